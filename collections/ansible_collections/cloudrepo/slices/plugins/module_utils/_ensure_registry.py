# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry of slices: read, or made what it should be."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from ansible_collections.cloudrepo.slices.plugins.module_utils import _registry, _registry_recovery
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, PATH_RULE, is_name, is_path
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import diff, reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import RegistryError


def _needed(kind: str) -> Dict[str, Any]:
    return {"type": kind, "required": True}


def _items(options: Dict[str, Any]) -> Dict[str, Any]:
    return {"type": "list", "elements": "dict", "required": True, "options": options}


INTERFACE_SPEC = {
    "name": _needed("str"),
    "mac": _needed("str"),
    "tap": _needed("str"),
    "vlan": {"type": "int"},
    "link": {"type": "int"},
    "address": {"type": "str"},
    "default_route": _needed("bool"),
}

VM_SPEC = {
    "id": _needed("int"),
    "name": _needed("str"),
    "flavor": _needed("str"),
    "cores": _needed("int"),
    "memory_mb": _needed("int"),
    "disk_gb": _needed("float"),
    "image": _needed("str"),
    "worker": _needed("str"),
    "worker_address": _needed("str"),
    "vnc_port": _needed("int"),
    "retired": _needed("bool"),
    "interfaces": _items(INTERFACE_SPEC),
}

LINK_SPEC = {
    "number": _needed("int"),
    "name": _needed("str"),
    "vlan": _needed("int"),
    "subnet": {"type": "str"},
    "gateway": _needed("bool"),
    "dhcp": _needed("bool"),
    "port_security": _needed("bool"),
    "server_address": {"type": "str"},
    "endpoints": _items({"vm": _needed("str"), "interface": _needed("str")}),
}

POOL_SPEC = {"first": _needed("int"), "size": _needed("int")}

RECORD_SPEC = {
    "id": _needed("int"),
    "name": _needed("str"),
    "owner": _needed("str"),
    "status": {"type": "str"},
    "reason": {"type": "str"},
    "has_run": {"type": "bool", "default": False},
    "network_node": {"type": "str", "default": ""},
    "vlan_pool": {"type": "dict", "required": True, "options": POOL_SPEC},
    "internet": {"type": "dict", "options": {"server_address": _needed("str")}},
    "vms": _items(VM_SPEC),
    "links": _items(LINK_SPEC),
}

EXPECTED_SPEC = {"id": _needed("int"), "workers": {"type": "list", "elements": "str", "required": True}}

STATES = ["read", "reserved", "status", "absent", "backup", "rebuilt", "passwords", "moved"]

ACTOR_SPEC = {
    "run": _needed("str"),
    "holder": _needed("str"),
    "user": {"type": "str", "default": ""},
    "dead_run": {"type": "str", "default": ""},
}

ARGUMENTS = {
    "path": {"type": "path", "default": "/var/lib/cloudrepo/registry/slices.sqlite"},
    "url": {"type": "str", "no_log": True},
    "to": {"type": "str", "choices": ["sqlite", "postgresql"]},
    "state": {"type": "str", "choices": STATES, "default": "read"},
    "slice": {"type": "str"},
    "status": {"type": "str", "choices": ["design", "deploying", "running", "deleting", "failed"]},
    "reason": {"type": "str", "default": ""},
    "revision": {"type": "int"},
    "next_id": {"type": "int"},
    "last_worker": {"type": "str"},
    "dest": {"type": "path"},
    "admins": {"type": "list", "elements": "str", "default": []},
    "hold_timeout": {"type": "int", "default": _registry.HOLD_SECONDS},
    "for_admins": {"type": "bool", "default": False},
    "goes_on": {"type": "bool", "default": False},
    "actor": {"type": "dict", "options": ACTOR_SPEC},
    "record": {"type": "dict", "options": RECORD_SPEC},
    "expected": {"type": "dict", "options": EXPECTED_SPEC},
    "records": {"type": "list", "elements": "dict", "options": RECORD_SPEC},
}

REQUIRED_IF = [
    ("state", "reserved", ("record", "status", "revision", "next_id", "last_worker")),
    ("state", "status", ("slice", "status")),
    ("state", "absent", ("slice",)),
    ("state", "rebuilt", ("records", "next_id", "last_worker")),
    ("state", "moved", ("url", "to")),
]


def _check(params: Mapping[str, Any]) -> None:
    if not is_path(params["path"]):
        raise RegistryError("path: %r is not %s" % (params["path"], PATH_RULE))
    if params["url"] and not _registry.is_url(params["url"]):
        raise RegistryError("slices_registry_url is no URL like postgresql://user:password@host/database")
    if params["slice"] is not None and not is_name(params["slice"]):
        raise RegistryError("slice: %r is not a name: it has %s" % (params["slice"], NAME_RULE))
    if params["state"] == "reserved" and params["status"] not in (_registry.DESIGN, _registry.DEPLOYING):
        raise RegistryError("status: a reservation is design or deploying, not %s" % params["status"])
    for record in params["records"] or ():
        for field in ("status", "reason"):
            if record[field] is None:
                raise RegistryError("slice %s: %s is missing" % (record["name"], field))
    if params["state"] == "status" and params["status"] == _registry.DESIGN:
        raise RegistryError("status: only a reservation sets design")


def _place(params: Mapping[str, Any]) -> str:
    place: str = params["url"] or params["path"]
    return place


def _actor(params: Mapping[str, Any]) -> _registry.Actor:
    asks = params["actor"] or {}
    # Without the action plugin there is no run that could have lost anything.
    goes_on = params["goes_on"] and bool(asks)
    return _registry.Actor(admins=params["admins"], hold_seconds=params["hold_timeout"], goes_on=goes_on, **asks)


def _change(params: Mapping[str, Any], write: bool) -> _registry.Change:
    """Do what is asked for, in the registry itself or, not to ``write``, in a copy of it."""
    actor = _actor(params)
    with _registry.opened(_place(params), write) as connection:
        if params["state"] == "reserved":
            arguments = {name: params[name] for name in ("record", "status", "revision", "next_id", "last_worker")}
            return _registry.reserve(connection, actor=actor, **arguments)
        if params["state"] == "status":
            name, status, reason, expected = (params[key] for key in ("slice", "status", "reason", "expected"))
            return _registry.set_status(connection, name, status, reason, actor, expected)
        return _registry.remove(connection, params["slice"], actor)


def _moves_hold(params: Mapping[str, Any], change: _registry.Change) -> bool:
    """Whether the slice is taken or given up by somebody, even if its record stays as it is."""
    taken_or_given_up = params["state"] == "status" or params["status"] == _registry.DEPLOYING
    return bool(params["actor"] and taken_or_given_up and change.after and not change.conflict)


def _result(params: Mapping[str, Any], change: _registry.Change) -> Dict[str, Any]:
    name = params["record"]["name"] if params["state"] == "reserved" else params["slice"]
    want = {} if change.after is None else {name: change.after}
    have = {} if change.before is None else {name: change.before}
    actions = reconcile(want, have, purge=True)
    result = {"changed": bool(actions), "record": change.after, "diff": diff(actions)}
    if params["state"] == "reserved":
        result["conflict"] = change.conflict
    return result


def _backup(params: Mapping[str, Any], write: bool) -> Dict[str, Any]:
    dest = params["dest"] or _registry_recovery.backup_path(params["path"])
    revision = _registry_recovery.backup(_place(params), dest, write)
    return {
        "changed": True,
        "backup": {"path": dest, "revision": revision},
        "diff": {"before": {}, "after": {"path": dest, "revision": revision}},
    }


def _rebuilt(params: Mapping[str, Any], write: bool) -> Dict[str, Any]:
    rebuilt = _registry_recovery.rebuild(
        _place(params), params["records"], params["next_id"], params["last_worker"], write
    )
    actions = reconcile({record["name"]: record for record in rebuilt.after["slices"]}, {}, purge=True)
    return {
        "changed": rebuilt.changed,
        "registry": rebuilt.after,
        "damaged": rebuilt.damaged,
        "diff": diff(actions),
    }


def _moved(params: Mapping[str, Any], write: bool) -> Dict[str, Any]:
    source, target = params["path"], params["url"]
    if params["to"] == "sqlite":
        source, target = target, source
    moved = _registry_recovery.move(source, target, write)
    places = [_registry.store(place).name for place in (source, target)]
    before, after = ({"registry": place} for place in places) if moved.changed else ({}, {})
    return {**moved._asdict(), "diff": {"before": before, "after": after}}


def _passwords(params: Mapping[str, Any], write: bool) -> Dict[str, Any]:
    """Those that are asked for. Only to make some, the registry itself is opened."""
    record = params["record"]
    with _registry.opened(_place(params), write=False) as copy:
        if record is None:
            return {"changed": False, "passwords": _registry.read_passwords(copy, _actor(params))}
        passwords, changed = _registry.make_passwords(copy, record)
    if changed and write:
        with _registry.opened(_place(params), write=True) as connection:
            passwords, changed = _registry.make_passwords(connection, record)
    return {"changed": changed, "passwords": passwords}


def _tried(params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Change the slice, if need be."""
    if params["url"] and not check_mode and _registry_recovery.is_there(params["url"]):
        # A database has a lock to spare, and is far away: a copy would be all of it.
        return _result(params, _change(params, write=True))
    # Tried on a copy first: what changes nothing, or is refused, never takes the lock nor creates a file.
    change = _change(params, write=False)
    result = _result(params, change)
    if (result["changed"] or _moves_hold(params, change)) and not check_mode:
        result = _result(params, _change(params, write=True))
    return result


# What changes no slice, or all of them.
_WHOLE = {"backup": _backup, "rebuilt": _rebuilt, "moved": _moved, "passwords": _passwords}


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``slice_registry`` documents its options and what it returns."""
    try:
        _check(params)
        if params["for_admins"]:
            _registry.refuse_all_but_admins(_actor(params))
        if params["state"] == "read":
            return _read(params)
        if params["state"] in _WHOLE:
            return _WHOLE[params["state"]](params, not check_mode)
        return _tried(params, check_mode)
    except _registry.HeldError as error:
        return {"msg": str(error), "held": error.hold._asdict()}
    except RegistryError as error:
        return {"msg": str(error)}


def _read(params: Mapping[str, Any]) -> Result:
    with _registry.opened(_place(params), write=False) as connection:
        registry = _registry.read(connection)
    where = {record["name"]: _registry.workers(record) for record in registry["slices"]}
    return {"changed": False, "registry": registry, "workers": where}
