# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ovs-vsctl: what it prints as JSON, and the commands of a transaction. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError

Command = List[str]
Row = Dict[str, Any]

TIMEOUT = 60
_SIGALRM = 14
# What Open vSwitch writes where it could not attach a port.
_NO_NUMBER = -1


class Bridge(NamedTuple):
    """A bridge; ``ready`` says whether ovs-vswitchd has given it a datapath."""

    name: str
    ready: bool


class Port(NamedTuple):
    """A port and its interface.

    Attributes:
        name: its name.
        bridge: the bridge that it is on.
        tag: its VLAN.
        external_ids: what is written on it.
        internal: whether ovs-vswitchd makes its device.
        error: why ovs-vswitchd could not attach it, if it could not.
        number: by which number flows know it, if it is attached.
    """

    name: str
    bridge: str
    tag: Optional[int]
    external_ids: Mapping[str, str]
    internal: bool
    error: str
    number: Optional[int] = None


class Database(NamedTuple):
    """The bridges and ports of a host, by name."""

    bridges: Mapping[str, Bridge]
    ports: Mapping[str, Port]


_SCAN = (
    ("Bridge", "name,datapath_id,ports"),
    ("Port", "_uuid,name,tag,external_ids,interfaces"),
    ("Interface", "_uuid,type,error,ofport"),
)


def scan() -> List[str]:
    """The argument list that prints what ``parse_scan`` reads."""
    commands = [["--columns=" + columns, "list", table] for table, columns in _SCAN]
    return ["ovs-vsctl", "--timeout=%d" % TIMEOUT, "-f", "json", *_joined(commands)]


def parse_scan(text: str) -> Database:
    """The tables that ``scan`` printed, one JSON document each, put together."""
    bridges, ports, interfaces = (_rows(line) for line in text.splitlines())
    bridge_of = {uuid: bridge["name"] for bridge in bridges for uuid in _elements(bridge["ports"])}
    interface_of = {interface["_uuid"]: interface for interface in interfaces}
    found = [_port(row, bridge_of[row["_uuid"]], interface_of[_elements(row["interfaces"])[0]]) for row in ports]
    return Database(
        bridges={row["name"]: Bridge(row["name"], bool(row["datapath_id"])) for row in bridges},
        ports={port.name: port for port in found},
    )


def transaction(commands: Iterable[Command]) -> List[str]:
    """The argument list that does all the commands or none, and returns when ovs-vswitchd has done its part."""
    return ["ovs-vsctl", "--timeout=%d" % TIMEOUT, *_joined(commands)]


def add_port(bridge: str, name: str, tag: int, external_ids: Mapping[str, str], internal: bool) -> List[Command]:
    """Add a port that carries one VLAN untagged; the device of an internal one is made by ovs-vswitchd."""
    command = ["add-port", bridge, name, "tag=%d" % tag, *_assignments(external_ids)]
    return [command] + ([["set", "Interface", name, "type=internal"]] if internal else [])


def add_trunk(bridge: str, name: str, vlans: Iterable[int], external_ids: Mapping[str, str]) -> List[Command]:
    """Add an internal port that carries several VLANs tagged."""
    trunks = "trunks=[%s]" % ",".join(map(str, vlans))
    command = ["add-port", bridge, name, "vlan_mode=trunk", trunks, *_assignments(external_ids)]
    return [command, ["set", "Interface", name, "type=internal"]]


def del_port(name: str) -> Command:
    return ["--if-exists", "del-port", name]


def set_tag(name: str, tag: int) -> Command:
    return ["set", "Port", name, "tag=%d" % tag]


def set_external_ids(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> List[Command]:
    """Change the keys in which ``before`` and ``after`` differ; others that the port may have stay."""
    commands = []
    surplus = [quote(key) for key in before if key not in after]
    if surplus:
        commands.append(["remove", "Port", name, "external_ids", *surplus])
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    if changed:
        commands.append(["set", "Port", name, *_assignments(changed)])
    return commands


def quote(value: str) -> str:
    """A string in the database's own syntax, where a bare word may be a number or another type."""
    return json.dumps(value)


def explain(error: CommandError) -> str:
    """The message of a failed ovs-vsctl, with what it means where ovs-vsctl itself does not say it."""
    if error.rc == -_SIGALRM:
        return "ovs-vswitchd did not answer within %d seconds: is it running?" % TIMEOUT
    return str(error)


def _assignments(external_ids: Mapping[str, str]) -> List[str]:
    return ["external_ids:%s=%s" % (quote(key), quote(value)) for key, value in external_ids.items()]


def _joined(commands: Iterable[Command]) -> List[str]:
    return [word for command in commands for word in ["--", *command]]


def _port(row: Row, bridge: str, interface: Row) -> Port:
    return Port(
        name=row["name"],
        bridge=bridge,
        tag=_optional(row["tag"]),
        external_ids=row["external_ids"],
        internal=interface["type"] == "internal",
        error=_optional(interface["error"]) or "",
        number=None if interface["ofport"] == _NO_NUMBER else _optional(interface["ofport"]),
    )


def _rows(line: str) -> List[Row]:
    table = json.loads(line)
    return [dict(zip(table["headings"], map(decode, row))) for row in table["data"]]


def decode(value: Any) -> Any:
    """A value in OVSDB's notation (RFC 7047, 5.1): a set becomes a list, a map a dict, a UUID a string.

    A set of exactly one element is written as that element.
    """
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "set":
        return [decode(element) for element in content]
    if kind == "map":
        return {decode(key): decode(element) for key, element in content}
    return content


def _elements(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


def _optional(value: Any) -> Any:
    return next(iter(_elements(value)), None)
