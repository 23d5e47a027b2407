# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit of a host: what differs from what is wanted, named field by field. Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import CREATE, DELETE, Action, State

Argv = List[str]

VM, DISK, IMAGE, PORT, DHCP, NAT, FILE, HOST = "vm", "disk", "image", "port", "dhcp", "nat", "file", "host"
FLOWS, NAMESPACE = "flows", "namespace"

_SECRET = "password"
_LOSSES = {"lost_disk": "runs on a disk that was deleted%.0s", "lost_taps": "has lost %s"}
_SHOWN = 2  # Elements of a list that a message names; the data has all.


class Finding(NamedTuple):
    """Something that is off.

    Attributes:
        slice: the slice it is about; empty if it is about none, or nobody knows about which.
        kind: what kind of resource it is.
        item: its name.
        field: which of its fields, if it is about one.
        found: what that is.
        wanted: what it should be.
        message: all of it in words, to be read after the item's name.
        commands: what removes it, one argument list after the other, where that is the remedy.
    """

    slice: str
    kind: str
    item: str
    message: str
    field: str = ""
    found: Any = None
    wanted: Any = None
    commands: Sequence[Argv] = ()


def drift(slice_name: str, kind: str, actions: Iterable[Action]) -> List[Finding]:
    """What a deploy would change, as findings."""
    return [finding for action in actions for finding in _drift(slice_name, kind, action)]


def _drift(slice_name: str, kind: str, action: Action) -> List[Finding]:
    if action.kind == CREATE:
        return [Finding(slice_name, kind, action.name, "is missing")]
    if action.kind == DELETE:
        return [Finding(slice_name, kind, action.name, "should not be there")]
    before, after = action.before or {}, action.after or {}
    lost = _lost(before, after)
    if lost:
        return [Finding(slice_name, kind, action.name, lost)]
    if before.get("status") == "stopped":
        after = {field: value for field, value in after.items() if field != "limits"}  # Only a process has such.
    return [_different(slice_name, kind, action.name, *change) for change in differences(before, after)]


def _lost(before: State, after: State) -> str:
    """What explains all other differences: a device, a place on the bridge, or a process is lost."""
    if before.get("device") == "lost" or not before.get("attached", True):
        return "its device is missing, or is not the one that was attached"
    if after.get("running") and not before.get("running"):
        return "is not running"
    if after.get("bridge") and not before.get("bridge"):
        return "is not on bridge %s" % after["bridge"]
    return ""


def differences(before: State, after: State) -> List[Tuple[str, Any, Any]]:
    """The fields in which two states differ, each with both values; of lists and texts only what is not common."""
    old, new = dict(_fields(before)), dict(_fields(after))
    paths = [*new, *(path for path in old if path not in new)]
    return [(path, *_only(old.get(path), new.get(path))) for path in paths if old.get(path) != new.get(path)]


def _fields(state: State, prefix: str = "") -> Iterable[Tuple[str, Any]]:
    for key, value in state.items():
        path = prefix + str(key)
        if isinstance(value, Mapping):
            yield from _fields(value, path + ".")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
            for item in value:
                yield from _fields(item, "%s.%s." % (path, item["name"]))
        else:
            yield path, value


def _only(old: Any, new: Any) -> Tuple[Any, Any]:
    left, right = _parts(old), _parts(new)
    if left is None or right is None:
        return old, new
    return [part for part in left if part not in right], [part for part in right if part not in left]


def _parts(value: Any) -> Any:
    """The elements of a list, or the lines of a text that has several."""
    if isinstance(value, str) and "\n" in value:
        return value.splitlines()
    return value if isinstance(value, list) else None


def _different(slice_name: str, kind: str, item: str, field: str, found: Any, wanted: Any) -> Finding:
    if field in _LOSSES:
        return Finding(slice_name, kind, item, _LOSSES[field] % _value(found), field, found, wanted)
    if _SECRET in field and isinstance(wanted, str):
        return Finding(slice_name, kind, item, "%s is another one" % field, field)
    return Finding(slice_name, kind, item, _sentence(field, found, wanted), field, found, wanted)


def _sentence(field: str, found: Any, wanted: Any) -> str:
    if isinstance(found, list) and isinstance(wanted, list):
        parts = ["lacks %s" % _value(wanted)] * bool(wanted) + ["has %s too many" % _value(found)] * bool(found)
        return "%s %s" % (field, " and ".join(parts) or "has another order")
    return "%s is %s, should be %s" % (field, _value(found), _value(wanted))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        more = " and %d more" % (len(value) - _SHOWN) if len(value) > _SHOWN else ""
        return "; ".join(map(str, value[:_SHOWN])) + more or "nothing"
    return str(value) if value not in (None, "") else "none"


def running_cards(
    slice_name: str, vm: str, have: Mapping[str, Mapping[str, str]], want: Mapping[str, Mapping[str, str]]
) -> List[Finding]:
    """The differences between the cards that a running QEMU has and those that it should have been started with."""
    return [
        _different(slice_name, VM, vm, "running %s" % path.replace(".", " "), found, wanted)
        for path, found, wanted in differences(have, want)
    ]


def as_dicts(findings: Iterable[Finding]) -> List[Dict[str, Any]]:
    """Findings as a module returns them."""
    return [{**finding._asdict(), "commands": [list(argv) for argv in finding.commands]} for finding in findings]
