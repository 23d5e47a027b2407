# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry of slices: which numbers are given out, to whom, and how each slice is doing.

What is written here is understood by every database that can hold a registry; what differs is in their modules.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from contextlib import closing, contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._names import (
    NAME_RULE,
    OWNER_RULE,
    is_interface_name,
    is_name,
    is_owner,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import (
    BUSY_SECONDS,
    Connection,
    RegistryError,
    Store,
    insert,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_sqlite import SqliteStore

Record = Mapping[str, Any]

HOLD_SECONDS = 900

DESIGN = "design"
DEPLOYING = "deploying"
RUNNING = "running"
DELETING = "deleting"
FAILED = "failed"

# A record's fields that are columns of the same name; the rest of each table says where the row belongs.
_SLICE = ("id", "name", "owner", "status", "reason", "has_run", "network_node")
_SLICE_COLUMNS = (*_SLICE, "pool_first", "pool_size", "internet_server")
_VM = (
    "id",
    "name",
    "flavor",
    "cores",
    "memory_mb",
    "disk_gb",
    "image",
    "worker",
    "worker_address",
    "vnc_port",
    "retired",
)
_INTERFACE = ("name", "mac", "tap", "vlan", "link", "address", "default_route")
_LINK = ("number", "name", "vlan", "subnet", "gateway", "dhcp", "port_security", "server_address")
_ENDPOINT = ("vm", "interface")
_FLAGS = frozenset(("has_run", "retired", "default_route", "gateway", "dhcp", "port_security"))

# What is unique over the whole registry, and how to ask which slice holds it.
_HOLDER = {
    "name": "SELECT id, name FROM slices WHERE name = ?",
    "slice ID": "SELECT id, name FROM slices WHERE id = ?",
    "VM ID": "SELECT s.id, s.name FROM slices s JOIN vms v ON v.slice_id = s.id WHERE v.id = ?",
    "VLAN": "SELECT s.id, s.name FROM slices s JOIN vlans v ON v.slice_id = s.id WHERE v.vlan = ?",
    "VNC port": "SELECT s.id, s.name FROM slices s JOIN vms v ON v.slice_id = s.id WHERE v.vnc_port = ?",
    "MAC address": "SELECT s.id, s.name FROM slices s JOIN vms v ON v.slice_id = s.id"
    " JOIN interfaces i ON i.vm_id = v.id WHERE i.mac = ?",
    "TAP": "SELECT s.id, s.name FROM slices s JOIN vms v ON v.slice_id = s.id"
    " JOIN interfaces i ON i.vm_id = v.id WHERE i.tap = ?",
    "address": "SELECT s.id, s.name FROM slices s JOIN addresses a ON a.slice_id = s.id"
    " WHERE a.vlan = ? AND a.address = ?",
}

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")

# Nothing that is read or typed as something else. VNC takes no more than eight characters.
_PASSWORD_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 8

Passwords = Dict[str, Dict[str, str]]  # By slice and VM.


class Hold(NamedTuple):
    """Who works on a slice: no other run may change it meanwhile. Times are in seconds since 1970.

    ``until`` is when it ends by itself, for a holder that died where nobody can see it; 0 once it was given up.
    """

    slice: str
    run: str
    holder: str
    status: str
    since: int
    until: int


_GIVEN_UP = 0
_HELD = "SELECT * FROM holds WHERE until != ?"


class Actor(NamedTuple):
    """Who asks for a change.

    Attributes:
        run: identifies the run of ansible-playbook.
        holder: who and where that is, in words.
        user: the user, where it is certain who that is; else empty.
        admins: users who may change the slices of others.
        dead_run: a run that is known to have died, whose hold therefore counts no more.
        hold_seconds: how long a hold lasts, counted from the holder's last change, if it is not given up.
        goes_on: whether this is more of what the run holds the slice for: it is refused if it has lost its hold.
    """

    run: str = ""
    holder: str = ""
    user: str = ""
    admins: Sequence[str] = ()
    dead_run: str = ""
    hold_seconds: int = HOLD_SECONDS
    goes_on: bool = False


NOBODY = Actor()


class HeldError(RegistryError):
    """Another run works on the slice."""

    def __init__(self, hold: Hold) -> None:
        verb = "deleted" if hold.status == DELETING else "deployed"
        end = "should that run have died, the slice is free again at %s" % _clock(hold.until)
        if hold.until <= time.time():
            end = "that run is still there, and has the slice until it ends"
        super().__init__(
            "slice %s is being %s by %s since %s; %s" % (hold.slice, verb, hold.holder, _clock(hold.since), end)
        )
        self.hold = hold


class Change(NamedTuple):
    """What became of one slice: its record before and after, None where there is none.

    ``conflict`` says that nothing was written because the registry is no longer at the expected revision.
    """

    before: Optional[Record]
    after: Optional[Record]
    conflict: bool = False


def read(connection: Connection) -> Dict[str, Any]:
    """The whole registry, slices ordered by ID. Call it on a snapshot or inside a transaction."""
    # Databases have their own ideas of how text is sorted.
    holds = [hold._asdict() for hold in sorted(Hold(*row) for row in connection.execute(_HELD, (_GIVEN_UP,)))]
    return dict(_counters(connection), slices=_records(connection), holds=holds)


def as_text(registry: Mapping[str, Any], only: Optional[str]) -> Dict[str, Any]:
    """What ``slice_host_info`` returns of the whole registry: all slices of it, or ``only`` the one of that name."""
    slices = [record for record in registry["slices"] if only in (None, record["name"])]
    where = {record["name"]: workers(record) for record in slices}
    return {"registry": json.dumps(dict(registry, slices=slices)), "workers": where}


def _counters(connection: Connection) -> Dict[str, Any]:
    names = ("revision", "next_id", "last_worker")
    return dict(zip(names, connection.execute("SELECT %s FROM meta" % ", ".join(names)).fetchone()))


def reserve(
    connection: Connection,
    record: Record,
    status: str,
    revision: int,
    next_id: int,
    last_worker: str,
    actor: Actor = NOBODY,
) -> Change:
    """Store ``record`` with ``status``, if the registry is still at ``revision``.

    A record that is stored already is left alone, and one that is running stays so.
    Who deploys it holds it from now on.

    Raises:
        HeldError: another run works on the slice.
        RegistryError: the record is not sound, claims what another slice holds, or is not the actor's to change.
    """
    _check(record)
    wanted = dict(record, status=status, reason="")
    try:
        with connection.transaction():
            counters = _counters(connection)
            stored = _stored(connection, record["name"])
            wanted["has_run"] = bool(stored and stored["has_run"])
            _refuse_stranger(actor, stored or wanted)
            _refuse_stranger(actor, wanted)
            _refuse_held(connection, record["name"], actor)
            if counters["revision"] != revision:
                return Change(stored, stored, conflict=True)
            if status == DEPLOYING:
                _hold(connection, record["name"], status, actor)
            if stored is not None and stored["status"] in (RUNNING, status) and _same_design(stored, wanted):
                return Change(stored, stored)
            _delete(connection, wanted)
            _insert_record(connection, wanted)
            _refuse_used_ids(wanted, stored, counters["next_id"])
            _forget_secrets(connection)
            _advance(connection, max(counters["next_id"], next_id, max(_ids(wanted)) + 1), last_worker)
            return Change(stored, _stored(connection, record["name"]))
    except connection.IntegrityError as error:
        reason = _holder(connection, record) or error
        raise RegistryError("slice %s: %s" % (record["name"], reason)) from error


def set_status(
    connection: Connection,
    name: str,
    status: str,
    reason: str,
    actor: Actor = NOBODY,
    expected: Optional[Mapping[str, Any]] = None,
) -> Change:
    """Set a slice's status and the reason for it; once it is running, its retired VMs are gone.

    Who is to deploy or delete it holds it from now on; with any other status it is given up.

    Args:
        connection: the registry.
        name: the slice.
        status: what it is from now on.
        reason: why.
        actor: who asks.
        expected: ``id`` and ``workers`` that it was decided from: it must not be another slice, or elsewhere, by now.

    Raises:
        HeldError: another run works on the slice.
        RegistryError: it is not the actor's to change, has changed, or is not there; one to be deleted may be missing.
    """
    with connection.transaction():
        stored = _stored(connection, name)
        if stored is None:
            if status == DELETING:
                return Change(None, None)
            raise RegistryError("slice %s is not in the registry" % name)
        _refuse_stranger(actor, stored)
        _refuse_held(connection, name, actor)
        if expected is not None and (
            stored["id"] != expected["id"] or not set(workers(stored)) <= set(expected["workers"])
        ):
            raise RegistryError("slice %s has been changed meanwhile; run this again" % name)
        if status in (DEPLOYING, DELETING):
            _hold(connection, name, status, actor)
        else:
            _give_up(connection, name, actor)
        # What a program printed may hold a NUL, which not every database takes.
        reason = reason.replace("\0", "\ufffd")
        wanted = dict(stored, status=status, reason=reason, has_run=stored["has_run"] or status == RUNNING)
        if status == RUNNING:
            wanted["vms"] = [vm for vm in stored["vms"] if not vm["retired"]]
            # The server's address was kept for as long as there were retired VMs.
            wanted["internet"] = stored["internet"] if _internet_vlans(wanted) else None
        if wanted != stored:
            _delete(connection, stored)
            _insert_record(connection, wanted)
            _forget_secrets(connection)
            _advance(connection)
        return Change(stored, wanted)


def workers(record: Record) -> List[str]:
    """Where a slice may have something. Of a design there is nothing on any worker."""
    return [] if record["status"] == DESIGN else sorted({vm["worker"] for vm in record["vms"]})


def remove(connection: Connection, name: str, actor: Actor = NOBODY) -> Change:
    """Remove a slice and everything it holds.

    Raises:
        HeldError: another run works on the slice.
        RegistryError: it is not the actor's to remove.
    """
    with connection.transaction():
        stored = _stored(connection, name)
        if stored is not None:
            _refuse_stranger(actor, stored)
            _refuse_held(connection, name, actor)
            connection.execute("DELETE FROM holds WHERE slice = ?", (name,))
            _delete(connection, stored)
            _forget_secrets(connection)
            _advance(connection)
        return Change(stored, None)


def restore(connection: Connection, records: Sequence[Record], next_id: int, last_worker: str) -> None:
    """Store all records, with the status that each has, in a registry that holds no slice.

    Raises:
        RegistryError: it holds one, a record is not sound, or two claim the same.
    """
    with connection.transaction():
        registry = read(connection)
        if registry["slices"]:
            raise RegistryError(
                "it holds %d slices: to have it rebuilt all the same, move it away" % len(registry["slices"])
            )
        for record in records:
            _check(record)
            connection.execute("SAVEPOINT record")
            try:
                _insert_record(connection, record)
            except connection.IntegrityError as error:
                connection.execute("ROLLBACK TO SAVEPOINT record")
                reason = _holder(connection, record) or error
                raise RegistryError("slice %s: %s" % (record["name"], reason)) from error
        _advance(connection, max(registry["next_id"], next_id), last_worker)


def read_passwords(connection: Connection, actor: Actor) -> Passwords:
    """The VNC passwords of the VMs that have one, of all slices that the one who asks may change."""
    found: Passwords = {}
    for slice_name, owner, vm, password in connection.execute(
        "SELECT s.name, s.owner, v.name, x.vnc_password FROM secrets x"
        " JOIN vms v ON v.id = x.vm_id JOIN slices s ON s.id = v.slice_id ORDER BY v.id"
    ):
        if not _is_stranger(actor, owner):
            found.setdefault(slice_name, {})[vm] = password
    return found


def make_passwords(connection: Connection, record: Record) -> Tuple[Passwords, bool]:
    """Give a random VNC password to each VM of a slice that has none.

    Returns:
        Those of all its VMs, and whether some are new.
    """
    vms = [vm for vm in record["vms"] if not vm["retired"]]
    with connection.transaction():
        known = dict(connection.execute("SELECT vm_id, vnc_password FROM secrets"))
        new = {vm["id"]: _random_password() for vm in vms if vm["id"] not in known}
        insert(connection, "secrets", ("vm_id", "vnc_password"), list(new.items()))
    known.update(new)
    return {record["name"]: {vm["name"]: known[vm["id"]] for vm in vms}}, bool(new)


def _random_password() -> str:
    import secrets  # What few calls need is not loaded by all.

    return "".join(secrets.choice(_PASSWORD_ALPHABET) for _place in range(_PASSWORD_LENGTH))


def _forget_secrets(connection: Connection) -> None:
    """Delete the secrets of VMs that are in no record any more."""
    connection.execute("DELETE FROM secrets WHERE vm_id NOT IN (SELECT id FROM vms)")


def refuse_all_but_admins(actor: Actor) -> None:
    """For what concerns the slices of all. Where it is not certain who asks, whoever reaches the host may.

    Raises:
        RegistryError: it is certain who asks, and that is no admin.
    """
    if actor.user and actor.user not in actor.admins:
        raise RegistryError("%s may not do this: it concerns the slices of all, and is for slices_admins" % actor.user)


def _refuse_stranger(actor: Actor, record: Record) -> None:
    """Only the owner and admins change a slice."""
    if _is_stranger(actor, record["owner"]):
        raise RegistryError(
            "slice %s belongs to %s: %s may not change it (slices_admins may)"
            % (record["name"], record["owner"], actor.user)
        )


def _is_stranger(actor: Actor, owner: str) -> bool:
    """Where it is not certain who asks, whoever reaches the host is none."""
    return bool(actor.user) and actor.user != owner and actor.user not in actor.admins


def _refuse_held(connection: Connection, name: str, actor: Actor) -> None:
    hold = _hold_of(connection, name)
    if hold and hold.run not in (actor.run, actor.dead_run) and _lasts(hold, actor):
        raise HeldError(hold)
    if actor.goes_on and (hold is None or hold.run != actor.run):
        raise RegistryError(
            "slice %s: this run was silent for longer than slices_hold_timeout, and another one has worked on it since;"
            " audit_slices says whether anything is off" % name
        )


def refuse_any_hold(holds: Iterable[Mapping[str, Any]]) -> None:
    """For what no run may be in the middle of.

    Raises:
        HeldError: one is, as far as can be told from the registry.
    """
    for hold in holds:
        if hold["until"] > time.time():
            raise HeldError(Hold(**hold))


def _lasts(hold: Hold, actor: Actor) -> bool:
    """Whether a hold counts still. Of a run on its own controller the one who asks knows whether it has died."""
    return hold.until > time.time() or (
        hold.until != _GIVEN_UP and _controller(hold.run) == _controller(actor.run) != ""
    )


def _controller(run: str) -> str:
    """The part of a run that names its controller (host, boot and namespace); empty if it can't be told for certain."""
    where = run.rsplit("/", 2)[0]
    return "" if where.endswith("/") else where


def _hold_of(connection: Connection, name: str) -> Optional[Hold]:
    row = connection.execute("SELECT * FROM holds WHERE slice = ?", (name,)).fetchone()
    return Hold(*row) if row else None


def _hold(connection: Connection, name: str, status: str, actor: Actor) -> None:
    """Note who works on a slice; a module that is called by hand has no run that could be asked later."""
    if actor.run:
        now = int(time.time())
        row = Hold(name, actor.run, actor.holder, status, now, now + actor.hold_seconds)
        connection.execute("DELETE FROM holds WHERE slice = ?", (name,))
        insert(connection, "holds", Hold._fields, [row])


def _give_up(connection: Connection, name: str, actor: Actor) -> None:
    """Note that nobody works on a slice any more, and who did last: only that run may say its outcome again."""
    connection.execute("UPDATE holds SET run = ?, until = ? WHERE slice = ?", (actor.run, _GIVEN_UP, name))


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _stored(connection: Connection, name: str) -> Optional[Dict[str, Any]]:
    return next(iter(_records(connection, name)), None)


def _same_design(one: Record, other: Record) -> bool:
    """Whether two records differ in nothing but their status and its reason."""
    return dict(one, status="", reason="") == dict(other, status="", reason="")


def _ids(record: Record) -> List[int]:
    return [record["id"]] + [vm["id"] for vm in record["vms"]]


def _pool(record: Record) -> range:
    return range(record["vlan_pool"]["first"], record["vlan_pool"]["first"] + record["vlan_pool"]["size"])


def _interfaces(record: Record) -> List[Mapping[str, Any]]:
    return [interface for vm in record["vms"] for interface in vm["interfaces"]]


def _addresses(record: Record) -> List[Tuple[int, str]]:
    """Every (VLAN, address) that the slice uses, its servers' own among them."""
    used = [(interface["vlan"], interface["address"]) for interface in _interfaces(record)]
    used += [(link["vlan"], link["server_address"]) for link in record["links"]]
    used += [(vlan, record["internet"]["server_address"]) for vlan in _internet_vlans(record) if record["internet"]]
    return [(vlan, address.split("/")[0]) for vlan, address in used if None not in (vlan, address)]


def _internet_vlans(record: Record) -> Set[int]:
    """The internet VLAN, if a VM is on it: it is where a connected interface is that is on no link."""
    return {interface["vlan"] for interface in _interfaces(record) if interface["link"] is None} - {None}


def _claims(record: Record) -> List[Tuple[str, Tuple[Any, ...]]]:
    """Everything the record wants for itself alone: its kind and its value, as ``_HOLDER`` asks for it."""
    return [
        ("name", (record["name"],)),
        ("slice ID", (record["id"],)),
        *(("VM ID", (vm["id"],)) for vm in record["vms"]),
        *(("VLAN", (vlan,)) for vlan in _pool(record)),
        *(("VNC port", (vm["vnc_port"],)) for vm in record["vms"]),
        *(("MAC address", (interface["mac"],)) for interface in _interfaces(record)),
        *(("TAP", (interface["tap"],)) for interface in _interfaces(record)),
        *(("address", pair) for pair in _addresses(record)),
    ]


def _say(kind: str, value: Tuple[Any, ...]) -> str:
    """A claim in words: ``VLAN 100``, ``address 10.60.7.10 on VLAN 400``."""
    if kind == "address":
        return "address %s on VLAN %s" % (value[1], value[0])
    return "%s %s" % (kind, value[0])


def _check(record: Record) -> None:
    """Refuse a record that is wrong in itself, whatever else the registry holds."""
    problem = next(problems(record), None)
    if problem is not None:
        raise RegistryError("slice %s: %s" % (record["name"], problem))


def problems(record: Record) -> Iterator[str]:
    """What is wrong with a record in itself."""
    if not is_name(record["name"]):
        yield "a slice's name has " + NAME_RULE
    if not is_owner(record["owner"]):
        yield "owner %r is not %s" % (record["owner"], OWNER_RULE)
    for index, vm in enumerate(record["vms"]):
        where = 'vms[%d] "%s"' % (index, vm["name"])
        if not is_name(vm["name"]):
            yield "%s: a VM's name has %s" % (where, NAME_RULE)
        for interface in vm["interfaces"]:
            if not is_interface_name(interface["name"]):
                yield "%s: %r is not an interface's name" % (where, interface["name"])
            if not is_interface_name(interface["tap"]):
                yield "%s: %r is not a TAP's name" % (where, interface["tap"])
            if not _MAC.fullmatch(interface["mac"]):
                yield "%s: %r is not a MAC address in lower case" % (where, interface["mac"])
        for name in _twice(interface["name"] for interface in vm["interfaces"]):
            yield "%s: interface %s twice" % (where, name)
    for link in record["links"]:
        if link["vlan"] not in _pool(record):
            yield "link %s: VLAN %s is not in the slice's own pool" % (link["number"], link["vlan"])
    claims = _claims(record)
    claims += [("VM name", (vm["name"],)) for vm in record["vms"]]
    claims += [("ID", (number,)) for number in _ids(record)]
    claims += [("link number", (link["number"],)) for link in record["links"]]
    claims += [("link VLAN", (link["vlan"],)) for link in record["links"]]
    yield from ("%s twice" % _say(*claim) for claim in _twice(claims))


def _twice(values: Iterable[Any]) -> List[Any]:
    """The values that occur more than once."""
    seen: Dict[Any, int] = defaultdict(int)
    for value in values:
        seen[value] += 1
    return [value for value, count in seen.items() if count > 1]


def _refuse_used_ids(record: Record, stored: Optional[Record], next_id: int) -> None:
    """An ID below the counter has been given out before: only the slice that has it may keep it."""
    for number in set(_ids(record)) - set(_ids(stored) if stored else ()):
        if number < next_id:
            raise RegistryError(
                "slice %s: ID %d was given out before, the next is %d" % (record["name"], number, next_id)
            )


def _holder(connection: Connection, record: Record) -> Optional[str]:
    """Which other slice holds something that the record claims, in words."""
    own = (record["id"], record["name"])
    for kind, value in _claims(record):
        for holder in connection.execute(_HOLDER[kind], value):
            if holder != own:
                held_by = "ID %d" % holder[0] if kind == "name" else "slice %s" % holder[1]
                return "%s is already held by %s" % (_say(kind, value), held_by)
    return None


def _advance(
    connection: Connection,
    next_id: Optional[int] = None,
    last_worker: Optional[str] = None,
) -> None:
    """Count the revision up, and move the counters that are given."""
    connection.execute(
        "UPDATE meta SET revision = revision + 1,"
        " next_id = COALESCE(?, next_id), last_worker = COALESCE(?, last_worker)",
        (next_id, last_worker),
    )


def _delete(connection: Connection, record: Record) -> None:
    """Delete a slice's own rows: those of the same ID under another name are another slice's."""
    connection.execute("DELETE FROM slices WHERE id = ? AND name = ?", (record["id"], record["name"]))


def _insert_record(connection: Connection, record: Record) -> None:
    key = (record["id"],)
    pool, internet = record["vlan_pool"], record["internet"]
    server = internet["server_address"] if internet else None
    row = (*_values(record, _SLICE), pool["first"], pool["size"], server)
    insert(connection, "slices", _SLICE_COLUMNS, [row])
    insert(connection, "vlans", ("slice_id", "vlan"), [(*key, vlan) for vlan in _pool(record)])
    addresses = [(*key, *pair) for pair in _addresses(record)]
    insert(connection, "addresses", ("slice_id", "vlan", "address"), addresses)
    _insert_list(connection, "vms", ("slice_id",), _VM, [(key, record["vms"])])
    interfaces = [((vm["id"],), vm["interfaces"]) for vm in record["vms"]]
    _insert_list(connection, "interfaces", ("vm_id",), _INTERFACE, interfaces)
    _insert_list(connection, "links", ("slice_id",), _LINK, [(key, record["links"])])
    endpoints = [((*key, link["number"]), link["endpoints"]) for link in record["links"]]
    _insert_list(connection, "endpoints", ("slice_id", "number"), _ENDPOINT, endpoints)


def _insert_list(
    connection: Connection,
    table: str,
    parent: Sequence[str],
    fields: Sequence[str],
    lists: Sequence[Tuple[Tuple[Any, ...], Sequence[Mapping[str, Any]]]],
) -> None:
    """Insert lists of items, each list under its parent's key, keeping their order."""
    rows = [(*key, place, *_values(item, fields)) for key, items in lists for place, item in enumerate(items)]
    insert(connection, table, (*parent, "position", *fields), rows)


def _values(item: Mapping[str, Any], fields: Sequence[str]) -> List[Any]:
    return [int(item[field]) if field in _FLAGS else item[field] for field in fields]


def _records(connection: Connection, name: Optional[str] = None) -> List[Dict[str, Any]]:
    """The records of all slices by ID, or only that of the one with the name."""
    mine = "" if name is None else " WHERE slice_id = (SELECT id FROM slices WHERE name = ?)"
    of_my_vms = mine and " WHERE vm_id IN (SELECT id FROM vms%s)" % mine
    values = () if name is None else (name,)
    vms = _lists(connection, "vms" + mine, values, ("slice_id",), _VM)
    interfaces = _lists(connection, "interfaces" + of_my_vms, values, ("vm_id",), _INTERFACE)
    links = _lists(connection, "links" + mine, values, ("slice_id",), _LINK)
    endpoints = _lists(connection, "endpoints" + mine, values, ("slice_id", "number"), _ENDPOINT)
    records = []
    only = "" if name is None else " WHERE name = ?"
    statement = "SELECT %s FROM slices%s ORDER BY id" % (", ".join(_SLICE_COLUMNS), only)
    for row in connection.execute(statement, values):
        record, (first, size, server) = _item(_SLICE, row), row[len(_SLICE) :]
        key = record["id"]
        record["vlan_pool"] = {"first": first, "size": size}
        record["vms"] = [dict(vm, interfaces=interfaces[(vm["id"],)]) for vm in vms[(key,)]]
        record["links"] = [dict(link, endpoints=endpoints[(key, link["number"])]) for link in links[(key,)]]
        record["internet"] = None if server is None else {"server_address": server}
        records.append(record)
    return records


def _lists(
    connection: Connection,
    rows: str,
    values: Sequence[Any],
    parent: Sequence[str],
    fields: Sequence[str],
) -> Dict[Tuple[Any, ...], List[Dict[str, Any]]]:
    """The items of some rows (a table, and which of it) by their parent's key, in their order."""
    lists: Dict[Tuple[Any, ...], List[Dict[str, Any]]] = defaultdict(list)
    statement = "SELECT %s FROM %s ORDER BY position" % (", ".join((*parent, *fields)), rows)
    for row in connection.execute(statement, values):
        lists[row[: len(parent)]].append(_item(fields, row[len(parent) :]))
    return lists


def _item(fields: Sequence[str], row: Sequence[Any]) -> Dict[str, Any]:
    return {field: _value(field, value) for field, value in zip(fields, row)}


def _value(field: str, value: Any) -> Any:
    """A column's value as the record has it: flags are booleans, whole numbers have no decimals."""
    if field in _FLAGS:
        return bool(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def is_url(place: str) -> bool:
    """Whether it is the URL of a PostgreSQL database."""
    return place.startswith(("postgresql://", "postgres://"))


def store(place: str) -> Store:
    """Where a registry is: at a path, or in the PostgreSQL database of a URL.

    Raises:
        RegistryError: the URL is none, or the library that it needs is missing.
    """
    if not is_url(place):
        return SqliteStore(place)
    # Python compiles at each call what a module imports.
    from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_postgresql import PostgresqlStore

    return PostgresqlStore(place)


@contextmanager
def opened(place: str, write: bool, timeout: float = BUSY_SECONDS) -> Iterator[Connection]:
    """The registry at ``place``, created if it is missing; or, not to ``write``, a copy of it in memory.

    Args:
        place: the registry's file, or the URL of its database; a copy of a missing one is an empty registry.
        write: whether what is changed is to last.
        timeout: seconds to wait for another run that holds the registry.

    Raises:
        DamagedError: there is something, but no registry that can be used.
        RegistryError: it is locked or can't be reached, or belongs to a newer version.
    """
    where = store(place)
    with where.explained(timeout), closing(where.open(timeout) if write else where.copy(timeout)) as connection:
        yield connection
