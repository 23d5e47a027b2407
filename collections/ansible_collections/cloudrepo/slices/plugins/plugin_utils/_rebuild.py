# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry's records, from what every host carries of the slices. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..module_utils._registry import FAILED, RUNNING, problems
from . import _addressing as rules
from ._parts import Record, joined

_TAP = re.compile(r"t(?:ap_)?([0-9]{1,9})_?e(?:th)?[0-9]+")


class RebuildError(ValueError):
    """The hosts contradict each other; the message names both sides."""


@dataclass(frozen=True)
class Host:
    """A host and everything stamped that it carries, as ``slice_stamps_info`` returns it."""

    name: str
    address: str
    stamps: Mapping[str, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Rebuilt:
    """What the registry has to hold, and what could not be restored, in words."""

    records: list[Record]
    next_id: int
    last_worker: str
    warnings: list[str]


@dataclass
class _Slice:
    """What was found of one slice: its heads and VMs' parts with the hosts, and VMs of which there is no part."""

    name: str
    heads: list[tuple[str, Record]] = field(default_factory=list)
    parts: dict[str, tuple[Host, Mapping[str, Any]]] = field(default_factory=dict)
    lost: dict[str, Host] = field(default_factory=dict)
    guests: set[str] = field(default_factory=set)
    vlans: set[int] = field(default_factory=set)
    ids: dict[str, int] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)


# How many IDs to leave out for what a host that is not asked may carry.
_UNSEEN_IDS = 10_000


def rebuild(hosts: Iterable[Host], lost: Sequence[str] = ()) -> Rebuilt:
    """Restore the registry.

    Args:
        hosts: all hosts but those that are lost.
        lost: their names. Without them no slice is known to be whole, nor which IDs were given out.

    Raises:
        RebuildError: two hosts claim the same VM, or two slices the same ID or VLAN.
    """
    hosts = list(hosts)
    found: dict[str, _Slice] = {}
    for host in hosts:
        _collect(host, found)
    warnings = []
    known = []
    for each in found.values():
        each.lost = {name: host for name, host in each.lost.items() if name not in each.parts}
        if each.heads:
            known.append(each)
        else:
            where = ", ".join(sorted(each.hosts))
            warnings.append(
                f"slice {each.name}: what is left of it on {where} does not tell its ID, owner and VLANs, "
                "so it is left out"
            )
    _refuse_equal_ids(known)
    _refuse_foreign_vlans(known, hosts)

    highest = max([rules.FIRST_ID - 1, *_ids(known, hosts)])
    records = []
    for each in sorted(known, key=_id):
        try:
            record = {**_record(each, highest, lost), "network_node": _network_node(each, hosts)}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RebuildError(f"slice {each.name}: a manifest does not hold what the role wrote into it") from None
        highest = max([highest, *(vm["id"] for vm in record["vms"])])
        records.append(record)
    _number_screens(records)
    placed = [vm for record in records for vm in record["vms"]]
    last = max(placed, key=lambda vm: int(vm["id"]), default={"worker": ""})
    return Rebuilt(records, highest + 1 + _UNSEEN_IDS * bool(lost), last["worker"], warnings)


def _collect(host: Host, found: dict[str, _Slice]) -> None:
    def slice_of(stamp: Mapping[str, Any]) -> _Slice:
        each = found.setdefault(stamp["slice"], _Slice(stamp["slice"]))
        each.hosts.add(host.name)
        return each

    for vm in host.stamps["vms"]:
        each = slice_of(vm)
        if vm["record"] is None:
            each.lost[vm["name"]] = host
        else:
            _add_part(each, host, vm["name"], vm["record"])
    for port in host.stamps["ports"]:
        each = slice_of(port)
        fields = ("slice_id", "owner", "vlan_pool")
        if None not in [port[name] for name in fields]:
            head = {"id": port["slice_id"], "name": port["slice"], "owner": port["owner"]}
            each.heads.append((f"port {port['name']} on {host.name}", {**head, "vlan_pool": port["vlan_pool"]}))
        if port["vlan"] is not None:
            each.vlans.add(port["vlan"])
        if port["vm"] is not None:
            each.lost.setdefault(port["vm"], host)
    for tap in host.stamps["taps"]:
        each = slice_of(tap)
        each.lost.setdefault(tap["vm"], host)
        if match := _TAP.fullmatch(tap["name"]):
            each.ids[tap["vm"]] = int(match.group(1))
    for guest in host.stamps["guests"]:
        slice_of(guest).guests.add(guest["name"])


def _add_part(each: _Slice, host: Host, name: str, part: Mapping[str, Any]) -> None:
    where = f"VM {name} of slice {each.name} on {host.name}"
    try:
        says = (part["slice"]["name"], part["vm"]["name"])
        head = {key: part["slice"][key] for key in ("id", "name", "owner", "vlan_pool")}
    except (KeyError, TypeError):
        raise RebuildError(f"{where}: its manifest does not hold what the role wrote into it") from None
    if says != (each.name, name):
        raise RebuildError(f"{where}: its manifest is that of VM {says[1]} of slice {says[0]}")
    if name in each.parts:
        raise RebuildError(f"{where}: there is one on {each.parts[name][0].name} too")
    each.parts[name] = (host, part)
    each.heads.append((where, head))


def _id(each: _Slice) -> int:
    return int(each.heads[0][1]["id"])


def _refuse_equal_ids(slices: Iterable[_Slice]) -> None:
    holders: dict[int, _Slice] = {}
    for each in slices:
        first, head = each.heads[0]
        for where, other in each.heads:
            if other["id"] != head["id"]:
                raise RebuildError(f"slice {each.name} has ID {head['id']} ({first}) and ID {other['id']} ({where})")
        holder = holders.setdefault(head["id"], each)
        if holder is not each:
            raise RebuildError(
                f"slices {holder.name} ({holder.heads[0][0]}) and {each.name} ({first}) both have ID {head['id']}"
            )


def _refuse_foreign_vlans(slices: list[_Slice], hosts: Iterable[Host]) -> None:
    """Pools that overlap, and ports on a VLAN of another slice's."""
    holders: dict[int, tuple[str, str]] = {}
    for each in slices:
        for where, head in each.heads:
            for vlan in _pool(head):
                name, other = holders.setdefault(vlan, (each.name, where))
                if name != each.name:
                    raise RebuildError(f"VLAN {vlan} is that of slice {name} ({other}) and of {each.name} ({where})")
    for host in hosts:
        for port in host.stamps["ports"]:
            name, where = holders.get(port["vlan"], (port["slice"], ""))
            if name != port["slice"]:
                raise RebuildError(
                    f"port {port['name']} of slice {port['slice']} on {host.name} is on VLAN {port['vlan']}, "
                    f"which is that of slice {name} ({where})"
                )


def _pool(head: Mapping[str, Any]) -> range:
    first = head["vlan_pool"]["first"]
    return range(first, first + head["vlan_pool"]["size"])


def _ids(slices: Iterable[_Slice], hosts: Iterable[Host]) -> Iterable[int]:
    """Every ID that is in use on any host."""
    for each in slices:
        yield _id(each)
        yield from each.ids.values()
        yield from (part["vm"]["id"] for _host, part in each.parts.values())
    for host in hosts:
        yield from (namespace["slice_id"] for namespace in host.stamps["namespaces"])


def _record(each: _Slice, highest: int, lost: Sequence[str]) -> Record:
    wrong: list[str] = []
    if each.parts:
        record, wrong = joined([part for _host, part in each.parts.values()])
        # Where they were found is where they are, whatever they were called then.
        record["vms"] = [{**vm, **_place(each.parts[vm["name"]][0])} for vm in record["vms"]]
    else:
        record = {**each.heads[0][1], "vms": [], "links": [], "internet": None}
    heads = [head for _where, head in each.heads]
    if any(head != heads[0] for head in heads):
        wrong.append("its VMs and ports do not agree about its owner and VLAN pool")
        # Pools only grow, so the widest is the last one.
        record["vlan_pool"] = max((head["vlan_pool"] for head in heads), key=lambda pool: int(pool["size"]))
    missing = sorted({*each.lost, *each.guests} - {*each.parts})
    if missing:
        wrong.append(f"{len(missing)} VMs without a manifest ({', '.join(missing)})")
    wrong += [f"{', '.join(lost)} was not asked"] * bool(lost)
    wrong += [f"VLAN {vlan} has ports but no link" for vlan in sorted(_without_link(record, each.vlans))]
    # What is there has run, for all we know: a deploy that fails must not take it away.
    state = {"status": RUNNING, "reason": "", "has_run": True}
    contradiction = next(problems({**record, **state}), None)
    if contradiction is not None:
        # Its numbers are kept, so that nobody else gets them; how they were wired can't be told.
        wrong.append(contradiction)
        record = {**record, "vms": [_unplugged(vm) for vm in record["vms"]], "links": []}
    for name in sorted(each.lost):
        highest = max(highest, each.ids.get(name, highest + 1))
        record["vms"].append(_remains(name, each.ids.get(name, highest), each.lost[name]))
    if wrong:
        state.update(status=FAILED, reason=f"rebuilt from the hosts: {'; '.join(dict.fromkeys(wrong))}")
    return {**record, **state}


def _network_node(each: _Slice, hosts: Iterable[Host]) -> str:
    """Where the slice's namespace was found; else what its VMs say; else empty, which is the first one."""
    found = [host.name for host in hosts if _id(each) in {name["slice_id"] for name in host.stamps["namespaces"]}]
    said = [part["slice"].get("network_node", "") for _host, part in each.parts.values()]
    return next(iter(found + said), "")


def _place(host: Host) -> Record:
    return {"worker": host.name, "worker_address": host.address}


def _without_link(record: Record, vlans: Iterable[int]) -> set[int]:
    return ({*vlans} & {*_pool(record)}) - {link["vlan"] for link in record["links"]}


def _unplugged(vm: Record) -> Record:
    blank = {"vlan": None, "link": None, "address": None, "default_route": False}
    return {
        **vm,
        "interfaces": [
            interface if interface["link"] is None else {**interface, **blank} for interface in vm["interfaces"]
        ],
    }


def _remains(name: str, number: int, host: Host) -> Record:
    """A VM of which only remains are left: nothing to run, but its worker is one that delete_slice has to clean."""
    return {
        "id": number,
        "name": name,
        "flavor": "unknown",
        "cores": 0,
        "memory_mb": 0,
        "disk_gb": 0,
        "image": "unknown",
        **_place(host),
        "vnc_port": 0,
        "retired": True,
        "interfaces": [],
    }


def _number_screens(records: Iterable[Record]) -> None:
    """Give each VM without a screen a port that no other has, as the registry wants it."""
    vms = [vm for record in records for vm in record["vms"]]
    ports = range(rules.FIRST_VNC_PORT, rules.LAST_VNC_PORT + 1)[::-1]
    free = rules.lowest_free(ports, {vm["vnc_port"] for vm in vms})
    for vm in vms:
        vm["vnc_port"] = vm["vnc_port"] or next(free)
