# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the ports of a slice are changed: actions as ``ip -batch`` lines, Open vSwitch commands and settings. Pure."""

from __future__ import annotations

from typing import List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _openflow, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import CREATE, DELETE, Action, State
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import (
    FLOWS,
    INTERNAL,
    NAMESPACE,
    TAP,
    Host,
    Options,
    alias_owner,
    device_owner,
    flow_port,
)

# An internal port's device as ovs-vswitchd makes it.
_NEW_DEVICE: State = {
    "alias": None, "namespace": None, "mac": None, "addresses": [], "gateway": None, "up": False, "sysctls": {}
}  # fmt: skip


class Line(NamedTuple):
    """A line of an ``ip -batch`` and the port it is for."""

    text: str
    name: str


class Sysctls(NamedTuple):
    """Settings to write for a device in a namespace."""

    name: str
    namespace: Optional[str]
    values: Mapping[str, int]


class Steps(NamedTuple):
    """What is to be done, in this order; a list that is empty costs nothing.

    Attributes:
        create_namespace: whether the namespace is created.
        leftovers: devices in the namespace to be deleted before their ports.
        detach: Open vSwitch commands that drop ports whose device is lost: only what is a new port gets a new device.
        prepare: lines for the host that make TAPs ready, and delete dead devices.
        deafen: settings of TAPs, written before anybody is behind them.
        connect: the Open vSwitch commands of the one transaction.
        secure: lines for ovs-ofctl, deletions first: numbers of ports that are gone may be those of new ones.
        place: lines for the host that move internal ports into the namespace.
        remove: TAPs that are disconnected by then, to be deleted.
        sysctls: settings of internal ports, written where these are by then.
        settle: lines for where the internal ports are: addresses, up, routes.
        delete_namespace: whether the namespace is deleted.
    """

    create_namespace: bool
    leftovers: List[str]
    detach: List[_ovs.Command]
    prepare: List[Line]
    deafen: List[Sysctls]
    connect: List[_ovs.Command]
    secure: List[str]
    place: List[Line]
    remove: List[str]
    sysctls: List[Sysctls]
    settle: List[Line]
    delete_namespace: bool


def steps(todo: Sequence[Action], options: Options, host: Host) -> Steps:
    """How the actions are done, with as few processes as there can be."""
    of_namespace = {action.kind for action in todo if _type(action) == NAMESPACE}
    result = Steps(CREATE in of_namespace, [], [], [], [], [], [], [], [], [], [], DELETE in of_namespace)
    for action in todo:
        if _type(action) == FLOWS:
            result.secure.insert(0, _openflow.delete((action.before or {})["port"]))
            continue
        if _type(action) == NAMESPACE:
            if action.after:
                result.settle.append(Line(_iproute.set_up("lo"), action.name))
            continue
        if _goes_first(action, options, host):
            result.leftovers.append(action.name)
        _connection_steps(action, result)
        if _type(action) == TAP:
            _tap_steps(action, options, result)
            _security_steps(action, options, host, result)
        else:
            _internal_steps(action, host, result)
    return result


def _type(action: Action) -> str:
    return str((action.after or action.before or {})["type"])


def _goes_first(action: Action, options: Options, host: Host) -> bool:
    """Whether a device of ours in the namespace is deleted before its port: a dead one, or one that may be.

    Of the ports that go, Open vSwitch in user space would close one TAP after the other. What the kernel's has, goes
    with its port only.
    """
    device = host.inside.devices.get(action.name) if host.inside else None
    if device is None or device_owner(device) != options.slice:
        return False
    before = action.before or {}
    alive = before.get("namespace") is not None and before["attached"]
    return not alive or (action.after is None and device.is_tap)


def _connection_steps(action: Action, result: Steps) -> None:
    name, before, after = action.name, action.before or {}, action.after or {}
    connected, wanted_on = before.get("bridge"), after.get("bridge")
    if _reattached(action):
        result.detach.append(_ovs.del_port(name))
        connected = None
    if connected and not wanted_on:
        result.connect.append(_ovs.del_port(name))
    elif wanted_on and not connected:
        internal = after["type"] == INTERNAL
        result.connect.extend(_ovs.add_port(wanted_on, name, after["vlan"], after["external_ids"], internal))
    elif wanted_on:
        if before["vlan"] != after["vlan"]:
            result.connect.append(_ovs.set_tag(name, after["vlan"]))
        result.connect.extend(_ovs.set_external_ids(name, before["external_ids"], after["external_ids"]))


def _reattached(action: Action) -> bool:
    """Whether the port is dropped and made again: its device is lost, or it is on another bridge."""
    before, after = action.before, action.after
    if not before or not after or before["bridge"] is None:
        return False
    return not before["attached"] or after["bridge"] not in (None, before["bridge"])


def _tap_steps(action: Action, options: Options, result: Steps) -> None:
    name, before, after = action.name, action.before or {}, action.after
    exists = before.get("user") is not None
    if after is None:
        # One that was made by hand in the place of ours stays.
        if exists and alias_owner(before["alias"]) == options.slice:
            result.remove.append(name)
        return
    lines = [] if exists else [_iproute.add_tap(name, after["user"])]
    if before.get("alias") != after["alias"]:
        lines.append(_iproute.set_alias(name, after["alias"], up=not before.get("up")))
    elif not before.get("up"):
        lines.append(_iproute.set_up(name))
    result.prepare.extend(Line(text, name) for text in lines)
    if before.get("sysctls") != after["sysctls"]:
        result.deafen.append(Sysctls(name, None, after["sysctls"]))


def _security_steps(action: Action, options: Options, host: Host, result: Steps) -> None:
    before, after = (action.before or {}).get("flows", []), (action.after or {}).get("flows", [])
    if before == after and not _reattached(action):
        return
    if before:
        result.secure.insert(0, _openflow.delete(flow_port(action.name, options, host) or 0))
    result.secure.extend(_openflow.add(action.name, text) for text in after)


def _internal_steps(action: Action, host: Host, result: Steps) -> None:
    name, before, after = action.name, action.before, action.after
    if before and before["bridge"] is None and name in host.root.devices:
        # Its port is gone, and a new port would not get this device.
        result.prepare.append(Line(_iproute.delete(name), name))
    if after is None:
        return
    if before is None or before["bridge"] is None or _reattached(action):
        before = _NEW_DEVICE
    moved = before["namespace"] != after["namespace"]
    if before["alias"] != after["alias"]:
        # Before it moves: what is found in a namespace always has its stamp.
        lines = result.place if before["namespace"] is None else result.settle
        lines.append(Line(_iproute.set_alias(name, after["alias"]), name))
    if moved:
        result.place.append(Line(_iproute.move(name, after["namespace"]), name))
        # On its way it loses everything but its alias.
        before = _NEW_DEVICE
    if before["sysctls"] != after["sysctls"]:
        result.sysctls.append(Sysctls(name, after["namespace"], after["sysctls"]))
    result.settle.extend(Line(text, name) for text in _settling(name, before, after))


def _settling(name: str, before: State, after: State) -> List[str]:
    """Addresses, up and the default route; a route goes with the address or the link that it needs."""
    lines = [] if after["gateway"] or not before["gateway"] else [_iproute.delete_default_route(name)]
    if before["addresses"] != after["addresses"]:
        surplus = [address for address in before["addresses"] if address not in after["addresses"]]
        lines.extend(_iproute.delete_address(name, address) for address in surplus)
        # Deleting the first address of a subnet can take the others with it.
        lines.extend(_iproute.replace_address(name, address) for address in after["addresses"])
    if after["mac"] and before["mac"] != after["mac"]:
        lines.append(_iproute.set_mac(name, after["mac"]))
    if not before["up"]:
        lines.append(_iproute.set_up(name))
    if after["gateway"] and (lines or before["gateway"] != after["gateway"]):
        lines.append(_iproute.default_route(name, after["gateway"]))
    return lines
