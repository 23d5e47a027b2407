# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that one host has of a slice, made what it should be: what each module does, in one process.

An Ansible round costs some tenths of a second on every host, and the step itself often a hundredth.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils import _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import ERRORS, Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

WORKER, NETWORK = "worker", "network"
_DISKS, _PORTS, _VMS = "disks", "ports", "VMs"

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "slice_id": {"type": "int", "required": True},
    "owner": {"type": "str"},
    "vlan_pool": {"type": "dict", "options": _specs.POOL},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "share": {"type": "dict", "default": {}},
    "purge": {"type": "bool", "default": False},
    **_specs.PLACE,
    "user": {"type": "str", "default": "slices-qemu"},
    "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
    "vnc_listen": {"type": "str", "default": "127.0.0.1"},
    "vnc_passwords": {"type": "dict", "default": {}, "no_log": True},
    "nic_offload": {"type": "bool", "default": True},
    "allow_restart": {"type": "bool", "default": False},
    "internet_vlan": {"type": "int", "default": 400},
    "internet_subnet": {"type": "str", "default": "10.60.7.0/24"},
    "uplink": {"type": "str"},
    "protected_networks": {"type": "list", "elements": "str", "default": []},
}
# What ``share`` consists of. The documentation of its parts is that of the modules whose options they are.
SHARE = _specs.HOST_SHARE


class Step(NamedTuple):
    """What is made, by whose ``ensure``, and with which of its options; the others have their defaults."""

    what: str
    module: Any
    options: Dict[str, Any]


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``slice_host`` documents its options and what it returns.

    The first step that fails is the last one that is told of. ``share`` has all that ``SHARE`` says.
    """
    result: Result = {"changed": False, "diff": [], "vms": [], "pending": []}
    for step, done in _outcomes(steps(params), check_mode):
        _add(result, step.what, done)
        if "msg" in result:
            break
    return result


def steps(params: Mapping[str, Any]) -> List[Step]:
    """What has to be made on a host, in its order."""
    order = _PRESENT if params["state"] == "present" else _ABSENT
    makers = [make for role, make in order if role is None or role in params["roles"]]
    return [make(params, params["share"]) for make in makers]


def _outcomes(todo: List[Step], check_mode: bool) -> Iterator[Tuple[Step, Result]]:
    """Each step, and what came of it."""
    if not check_mode and [step.what for step in todo] == [_DISKS, _PORTS, _VMS]:
        yield from _side_by_side(*todo)
        return
    for step in todo:
        yield step, _do(step, check_mode)


def _do(step: Step, check_mode: bool, **hook: Callable[[], None]) -> Result:
    try:
        done: Result = step.module.ensure({**_defaults(step.module.ARGUMENTS), **step.options}, check_mode, **hook)
        _refuse_missing(done.get("missing_images", []), check_mode)
    except ERRORS as error:
        return {"changed": False, "msg": str(error)}
    return done


def _side_by_side(disks: Step, ports: Step, vms: Step) -> Iterator[Tuple[Step, Result]]:
    """QEMUs start as soon as their disks and TAPs are there, and their guests begin when Open vSwitch has the TAPs."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    prepared = Event()

    def on_prepared() -> None:
        prepared.set()
        # A port may be taken from a VM that runs: that is not done for a deploy that fails.
        if "msg" in created.result():
            raise ItemError("the disks could not be made")

    def connected() -> None:
        if "msg" in made.result():
            raise ItemError("its ports could not be made")

    with ThreadPoolExecutor(2) as pool:
        created = pool.submit(_do, disks, False)
        made = pool.submit(_do, ports, False, prepared=on_prepared)
        made.add_done_callback(lambda _made: prepared.set())
        prepared.wait()
        failed = "msg" in created.result() or (made.done() and "msg" in made.result())
        started = None if failed else _do(vms, False, connected=connected)
    yield disks, created.result()
    yield ports, made.result()
    if started is not None:
        yield vms, started


# Imported where they are needed: Python compiles at each call what a module imports, and no host needs all.


def _disks(params: Mapping[str, Any], share: Mapping[str, Any]) -> Step:
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_overlays

    options = {
        "overlays": share["overlays"],
        "state": params["state"],
        "base_dir": params["base_dir"],
        "run_dir": params["run_dir"],
        "owner": params["user"],
    }
    return Step(_DISKS, _ensure_overlays, {**_common(params), **options})


def _ports(params: Mapping[str, Any], share: Mapping[str, Any]) -> Step:
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_ports

    options = {
        "slice_id": params["slice_id"],
        "owner": params["owner"],
        "vlan_pool": params["vlan_pool"],
        "state": params["state"],
        "bridge": params["bridge"],
        "namespace": _namespace(params) if NETWORK in params["roles"] else None,
        "tap_user": params["user"],
        "ports": share["ports"],
    }
    return Step(_PORTS, _ensure_ports, {**_common(params), **options})


def _dhcp(params: Mapping[str, Any], share: Mapping[str, Any]) -> Step:
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_dhcp

    network = share["network"] or {}
    served = params["state"] == "present" and network.get("networks")
    options = {
        "slice": params["slice"],
        "state": "started" if served else "absent",
        "namespace": _namespace(params),
        "state_dir": params["state_dir"],
        **({field: network[field] for field in ("domain", "networks", "names")} if served else {}),
    }
    return Step("DHCP", _ensure_dhcp, options)


def _nat(params: Mapping[str, Any], share: Mapping[str, Any]) -> Step:
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_nat

    internet = (share["network"] or {}).get("internet") or {}
    options = {
        **internet,
        "slice": params["slice"],
        "state": "present" if params["state"] == "present" and internet else "absent",
        "bridge": params["bridge"],
        "vlan": params["internet_vlan"],
        "subnet": params["internet_subnet"],
        "uplink": params["uplink"],
        "namespace": _namespace(params),
        "protected_networks": params["protected_networks"],
    }
    return Step("NAT", _ensure_nat, options)


def _vms(params: Mapping[str, Any], share: Mapping[str, Any]) -> Step:
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_vms

    settings = ("base_dir", "run_dir", "user", "accelerator", "vnc_listen", "vnc_passwords", "nic_offload")
    options = {
        **{option: params[option] for option in settings},
        "vms": share["vms"],
        "state": "started" if params["state"] == "present" else "absent",
        "allow_restart": params["allow_restart"],
    }
    return Step(_VMS, _ensure_vms, {**_common(params), **options})


def _common(params: Mapping[str, Any]) -> Dict[str, Any]:
    return {"slice": params["slice"], "purge": params["purge"] or params["state"] == "absent"}


def _namespace(params: Mapping[str, Any]) -> str:
    return "slice-%d" % params["slice_id"]


def _defaults(arguments: _specs.Spec) -> Dict[str, Any]:
    return {option: spec.get("default") for option, spec in arguments.items()}


# Whom each is for, unless for both roles.
_Maker = Tuple[Optional[str], Callable[[Mapping[str, Any], Mapping[str, Any]], Step]]
_PRESENT: List[_Maker] = [(WORKER, _disks), (None, _ports), (NETWORK, _dhcp), (NETWORK, _nat), (WORKER, _vms)]
# The first that fails is the last one: what the others need goes after them, what nothing needs does not wait.
_ABSENT: List[_Maker] = [(WORKER, _vms), (WORKER, _disks), (NETWORK, _nat), (NETWORK, _dhcp), (None, _ports)]


def _refuse_missing(images: List[str], check_mode: bool) -> None:
    """Images are sent before this. In check mode they are not, and what would come of them has been shown then."""
    if images and not check_mode:
        raise ItemError("base image %s is missing" % ", ".join(images))


def _add(result: Result, what: str, done: Result) -> None:
    result["changed"] = result["changed"] or done["changed"]
    if any(done.get("diff", {}).values()):
        headers = {"before_header": what, "after_header": what}
        result["diff"].append({**done["diff"], **headers})
    result["vms"] += done.get("vms", [])
    result["pending"] += done.get("pending", [])
    if "msg" in done:
        result["msg"] = done["msg"]
