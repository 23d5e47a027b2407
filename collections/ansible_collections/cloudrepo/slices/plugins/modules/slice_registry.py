#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_registry
short_description: Read and change the registry of slices
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - The registry is the only state there is of slices.
    It holds their designs, their status, and every number that was given out.
  - One slice is changed in one transaction, or not at all.
    That no VLAN, MAC address, VNC port, TAP or address is held twice is a constraint of the database.
  - The registry is an SQLite file that only its owner can read, or the schema C(cloudrepo_slices) of a PostgreSQL
    database.
    One that does not exist is an empty registry. It is created by the first reservation.
  - One that exists but was emptied, cut off or damaged is an error in every state but V(rebuilt).
    The message names it and says how to get a registry again.
attributes:
  check_mode:
    description: Predicts the result, constraints included, without writing anything.
    support: full
  diff_mode:
    description: Shows the slice's record before and after.
    support: full
  idempotent:
    description: What is stored already is not written again and does not count the revision up.
    support: full
requirements:
  - psycopg 3, on the host that runs the module, with O(url)
options:
  path:
    description:
      - The registry's file.
      - Its folder is created with mode V(0700) if it is missing, the file with mode V(0600).
      - With O(url), only backups are beside it.
    type: path
    default: /var/lib/cloudrepo/registry/slices.sqlite
  url:
    description:
      - The registry's PostgreSQL database, as C(postgresql://user:password@host/database), instead of a file.
      - The user has to be allowed to create a schema in it, or to own an empty one with the name C(cloudrepo_slices).
      - The action plugin takes it from the variable C(slices_registry_url), so that no task has to name it, and it is
        in no task's arguments that a callback could record.
    type: str
  state:
    description:
      - V(read) returns the whole registry.
      - V(reserved) stores O(record), provided that the registry is still at O(revision).
        A slice that is running, and whose record is unchanged, stays running.
      - V(status) sets the status of O(slice). Once it is V(running), its retired VMs leave its record.
        A slice that is not registered is an error, unless it is V(deleting).
      - V(absent) removes O(slice) and frees everything it held, except its IDs, which are never used again.
      - V(backup) copies the registry to O(dest) as it is at one moment, whoever writes at the same time.
        The copy gets its name once it was read again and found sound. To restore it, copy it back while nothing runs.
      - V(rebuilt) stores O(records) and nothing else, in one transaction, where the registry is missing, damaged or
        holds no slice. A damaged file is renamed, never deleted. A registry that holds slices is an error.
      - V(passwords) returns the VNC passwords of all slices that the one who asks may change.
        With O(record), it gives a random one to each of its VMs that has none, and returns those of this slice only.
        A password goes when its VM does. Such a task needs C(no_log).
      - V(moved) moves the registry between O(path) and O(url), as O(to) says, in one transaction on either side.
        What is left behind is renamed, so that nobody goes on with it. If it was moved before, nothing is changed.
    type: str
    choices: [read, reserved, status, absent, backup, rebuilt, passwords, moved]
    default: read
  to:
    description: Where the registry is to be. Required for O(state=moved).
    type: str
    choices: [sqlite, postgresql]
  slice:
    description: The slice's name. Required for O(state=status) and O(state=absent).
    type: str
  status:
    description:
      - The status to set.
      - It is V(design) or V(deploying) for O(state=reserved), and any but V(design) for O(state=status).
      - Required for both.
    type: str
    choices: [design, deploying, running, deleting, failed]
  reason:
    description: Why the slice has this status. Used by O(state=status).
    type: str
    default: ""
  revision:
    description:
      - The revision of the registry that O(record) was planned from.
      - If the registry has moved on since, nothing is written and RV(conflict) is true, which is no failure.
      - Required for O(state=reserved).
    type: int
  next_id:
    description:
      - The next free ID once O(record) or O(records) are stored. The registry's own never goes down.
      - Required for O(state=reserved) and O(state=rebuilt).
    type: int
  last_worker:
    description:
      - The worker at which placement stopped.
      - Required for O(state=reserved) and O(state=rebuilt).
    type: str
  dest:
    description:
      - The file to make with O(state=backup), with mode V(0600). One that exists is an error.
      - By default it is named after the time, in a folder C(backups) beside O(path) that is created with mode V(0700).
      - It is an SQLite file, with O(url) too.
    type: path
  admins:
    description: Users who may change slices that others own.
    type: list
    elements: str
    default: []
  hold_timeout:
    description:
      - How many seconds a run holds the slice that it deploys or deletes, counted from its last word to the registry.
      - Runs on the same controller know better. They are refused for as long as the run is there, and no longer.
    type: int
    default: 900
  for_admins:
    description: Whether this concerns the slices of all, so that only O(admins) may, where it is certain who asks.
    type: bool
    default: false
  goes_on:
    description:
      - Whether this is more of the work that the run holds the slice for.
      - If so, it is refused if the run has lost its hold to another one since.
    type: bool
    default: false
  actor:
    description:
      - Who asks. Filled in by the action plugin of this module; what a task says is replaced.
    type: dict
    suboptions:
      run:
        description: Identifies the run of C(ansible-playbook).
        type: str
        required: true
      holder:
        description: Who and where that is, in words.
        type: str
        required: true
      user:
        description: The user, where it is certain who that is (AWX), else empty.
        type: str
        default: ""
      dead_run:
        description: A run that is known to have died.
        type: str
        default: ""
  expected:
    description:
      - For O(state=status), the slice as it was read. If it is another one, or elsewhere, by now, it is refused.
    type: dict
    suboptions:
      id:
        description: Its ID.
        type: int
        required: true
      workers:
        description: The workers that it was on.
        type: list
        elements: str
        required: true
  record:
    description:
      - The slice as it was planned. Required for O(state=reserved).
      - For O(state=passwords), the slice whose VMs get one.
    type: dict
    suboptions: &record
      id:
        description: The slice's ID.
        type: int
        required: true
      name:
        description: The slice's name.
        type: str
        required: true
      owner:
        description: Whose quota it counts against.
        type: str
        required: true
      status:
        description: Of one of O(records) what counts, and of O(record) ignored, as O(status) counts there.
        type: str
      reason:
        description: Of one of O(records) what counts, and of O(record) ignored, as O(reason) counts there.
        type: str
      has_run:
        description: Accepted so that a record can be given back as it was returned. The registry knows if it ever ran.
        type: bool
        default: false
      network_node:
        description:
          - Inventory name of the host with its gateways, DHCP and NAT.
          - Empty for a slice from before there could be several. It is on the first one.
        type: str
        default: ""
      vlan_pool:
        description: The VLANs that are the slice's own.
        type: dict
        required: true
        suboptions:
          first:
            description: The first VLAN.
            type: int
            required: true
          size:
            description: How many there are.
            type: int
            required: true
      internet:
        description: The slice's port on the internet VLAN. Left out where no VM has internet.
        type: dict
        suboptions:
          server_address:
            description: Address of the slice's DHCP and DNS server, with prefix length.
            type: str
            required: true
      vms:
        description: The virtual machines, in the spec's order.
        type: list
        elements: dict
        required: true
        suboptions:
          id:
            description: The VM's ID.
            type: int
            required: true
          name:
            description: The VM's name.
            type: str
            required: true
          flavor:
            description: Name of its flavor.
            type: str
            required: true
          cores:
            description: Number of virtual CPUs.
            type: int
            required: true
          memory_mb:
            description: Memory in MiB.
            type: int
            required: true
          disk_gb:
            description: Size of the disk in GiB.
            type: float
            required: true
          image:
            description: File name of the base image.
            type: str
            required: true
          worker:
            description: Inventory name of its worker.
            type: str
            required: true
          worker_address:
            description: Address of its worker.
            type: str
            required: true
          vnc_port:
            description: TCP port of its VNC display.
            type: int
            required: true
          retired:
            description: Whether the VM is unwanted, and kept only until it is removed from its worker.
            type: bool
            required: true
          interfaces:
            description: Its network interfaces, in the guest's order.
            type: list
            elements: dict
            required: true
            suboptions:
              name:
                description: Name of the interface in the guest.
                type: str
                required: true
              mac:
                description: MAC address in lower case.
                type: str
                required: true
              tap:
                description: Name of its TAP on the worker.
                type: str
                required: true
              vlan:
                description: The VLAN that it is on. Left out if it is unconnected.
                type: int
              link:
                description: Number of its link. Left out for management and unconnected interfaces.
                type: int
              address:
                description: Its reserved address with prefix length, if it has one.
                type: str
              default_route:
                description: Whether DHCP gives this interface the default route.
                type: bool
                required: true
      links:
        description: The links, in the spec's order.
        type: list
        elements: dict
        required: true
        suboptions:
          number:
            description: The link's number in the slice.
            type: int
            required: true
          name:
            description: The link's name.
            type: str
            required: true
          vlan:
            description: Its VLAN, one of O(record.vlan_pool).
            type: int
            required: true
          subnet:
            description: Its subnet, if it has one.
            type: str
          gateway:
            description: Whether the slice's network node routes for it.
            type: bool
            required: true
          dhcp:
            description: Whether addresses are given out on it.
            type: bool
            required: true
          port_security:
            description: Whether guests are held to their MAC and address on it.
            type: bool
            required: true
          server_address:
            description: Address of the slice's own port on it with prefix length, if it has one.
            type: str
          endpoints:
            description: The interfaces that it joins.
            type: list
            elements: dict
            required: true
            suboptions:
              vm:
                description: Name of the VM.
                type: str
                required: true
              interface:
                description: Name of its interface.
                type: str
                required: true
  records:
    description:
      - All slices, as they were found on the hosts.
      - Required for O(state=rebuilt).
    type: list
    elements: dict
    suboptions: *record
notes:
  - If another run holds the registry for more than 30 seconds, the module fails and says that it is locked.
  - A slice that is set to V(deploying) or V(deleting) is held by the run that did it until that sets another status or
    removes it. Another run is refused with an error that says who holds the slice since when.
  - Where it is certain who asks, as for an AWX user, only a slice's owner and O(admins) may change it.
  - A registry that a newer version of this collection wrote is refused and left alone. One of an older version is
    read as it is, and made one of this version by the first change.
seealso:
  - module: cloudrepo.slices.slice_host_info
"""

EXAMPLES = r"""
- name: Read the registry
  cloudrepo.slices.slice_registry:
    state: read
  register: read

- name: Reserve what was planned from it
  cloudrepo.slices.slice_registry:
    state: reserved
    record: "{{ plan.slice }}"
    status: deploying
    revision: "{{ plan.revision }}"
    next_id: "{{ plan.next_id }}"
    last_worker: "{{ plan.last_worker }}"
  register: reservation

- name: Say that the slice runs
  cloudrepo.slices.slice_registry:
    state: status
    slice: web
    status: running

- name: Say what went wrong
  cloudrepo.slices.slice_registry:
    state: status
    slice: web
    status: failed
    reason: worker2 has no KVM

- name: Make the passwords of its screens
  cloudrepo.slices.slice_registry:
    state: passwords
    record: "{{ reservation.record }}"
  register: secrets
  no_log: true

- name: Forget the slice
  cloudrepo.slices.slice_registry:
    state: absent
    slice: web

- name: Keep a copy
  cloudrepo.slices.slice_registry:
    state: backup
  register: copied

- name: Share the registry with other network nodes from now on
  cloudrepo.slices.slice_registry:
    state: moved
    to: postgresql
    url: "{{ vaulted_url }}"
"""

RETURN = r"""
backup:
  description: The copy's path and the revision that it holds.
  returned: O(state=backup)
  type: dict
  sample: {"path": "/var/lib/cloudrepo/registry/backups/slices-20260102T030405.678901Z.sqlite", "revision": 7}
damaged:
  description: Where the damaged registry is kept now. V(none) if there was none.
  returned: O(state=rebuilt)
  type: str
aside:
  description: What the registry that was left behind is called now. V(none) if it was moved before.
  returned: O(state=moved)
  type: str
registry:
  description: The whole registry.
  returned: O(state=read), O(state=rebuilt) or O(state=moved)
  type: dict
  contains:
    revision:
      description: Counts every change. A plan made from this registry is reserved with it.
      type: int
      sample: 7
    next_id:
      description: The next free ID.
      type: int
      sample: 1003
    last_worker:
      description: The worker at which placement stopped, empty before the first.
      type: str
      sample: worker2
    slices:
      description: The records of all slices ordered by ID, each as O(record) describes it.
      type: list
      elements: dict
    holds:
      description: Who works on which slice since when and until when at most, in seconds since 1970.
      type: list
      elements: dict
      sample:
        - slice: web
          run: ctl/4242
          holder: alice on ctl (PID 4242)
          status: deploying
          since: 1795230845
          until: 1795231745
workers:
  description: On which workers each slice may have something, by its name.
  returned: O(state=read)
  type: dict
  sample: {"web": ["worker1", "worker2"]}
held:
  description: Who works on the slice, as in RV(registry.holds), if that is why the module failed.
  returned: failure
  type: dict
record:
  description:
    - The slice's record as it is stored, or would be.
    - V(none) if it is not registered.
  returned: O(state=reserved), O(state=status) or O(state=absent)
  type: dict
  sample:
    id: 1000
    name: web
    owner: alice
    status: design
    reason: ""
    has_run: false
    network_node: network1
    vlan_pool: {first: 100, size: 20}
    vms: []
    links: []
    internet:
conflict:
  description:
    - Whether nothing was written because the registry is not at O(revision) any more.
    - If so, plan again and retry.
  returned: O(state=reserved)
  type: bool
  sample: false
passwords:
  description: VNC passwords by slice and VM. In check mode, those that would be made are made up.
  returned: O(state=passwords)
  type: dict
  sample: {web: {web: kD3wZpT9, db: a7RtmQxE}}
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _registry, _registry_recovery
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

ARGUMENT_SPEC = {
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


def _check(params: Dict[str, Any]) -> None:
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


def _place(params: Dict[str, Any]) -> str:
    place: str = params["url"] or params["path"]
    return place


def _actor(params: Dict[str, Any]) -> _registry.Actor:
    asks = params["actor"] or {}
    # Without the action plugin there is no run that could have lost anything.
    goes_on = params["goes_on"] and bool(asks)
    return _registry.Actor(admins=params["admins"], hold_seconds=params["hold_timeout"], goes_on=goes_on, **asks)


def _change(params: Dict[str, Any], write: bool) -> _registry.Change:
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


def _moves_hold(params: Dict[str, Any], change: _registry.Change) -> bool:
    """Whether the slice is taken or given up by somebody, even if its record stays as it is."""
    taken_or_given_up = params["state"] == "status" or params["status"] == _registry.DEPLOYING
    return bool(params["actor"] and taken_or_given_up and change.after and not change.conflict)


def _result(params: Dict[str, Any], change: _registry.Change) -> Dict[str, Any]:
    name = params["record"]["name"] if params["state"] == "reserved" else params["slice"]
    want = {} if change.after is None else {name: change.after}
    have = {} if change.before is None else {name: change.before}
    actions = reconcile(want, have, purge=True)
    result = {"changed": bool(actions), "record": change.after, "diff": diff(actions)}
    if params["state"] == "reserved":
        result["conflict"] = change.conflict
    return result


def _backup(params: Dict[str, Any], write: bool) -> Dict[str, Any]:
    dest = params["dest"] or _registry_recovery.backup_path(params["path"])
    revision = _registry_recovery.backup(_place(params), dest, write)
    return {
        "changed": True,
        "backup": {"path": dest, "revision": revision},
        "diff": {"before": {}, "after": {"path": dest, "revision": revision}},
    }


def _rebuilt(params: Dict[str, Any], write: bool) -> Dict[str, Any]:
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


def _moved(params: Dict[str, Any], write: bool) -> Dict[str, Any]:
    source, target = params["path"], params["url"]
    if params["to"] == "sqlite":
        source, target = target, source
    moved = _registry_recovery.move(source, target, write)
    places = [_registry.store(place).name for place in (source, target)]
    before, after = ({"registry": place} for place in places) if moved.changed else ({}, {})
    return {**moved._asdict(), "diff": {"before": before, "after": after}}


def _passwords(params: Dict[str, Any], write: bool) -> Dict[str, Any]:
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


def _tried(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
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


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    params = module.params
    try:
        _check(params)
        if params["for_admins"]:
            _registry.refuse_all_but_admins(_actor(params))
        if params["state"] == "read":
            with _registry.opened(_place(params), write=False) as connection:
                registry = _registry.read(connection)
            where = {record["name"]: _registry.workers(record) for record in registry["slices"]}
            module.exit_json(changed=False, registry=registry, workers=where)
        if params["state"] in _WHOLE:
            module.exit_json(**_WHOLE[params["state"]](params, not module.check_mode))
        result = _tried(params, module.check_mode)
        if not module._diff:
            result.pop("diff")  # Two whole records, which nobody looks at.
    except _registry.HeldError as error:
        module.fail_json(msg=str(error), held=error.hold._asdict())
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
