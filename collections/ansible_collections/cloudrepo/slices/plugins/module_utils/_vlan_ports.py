# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports of a slice on one host: what is wanted, what is there, and what has to change. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, ip_address
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _openflow, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._ipv4 import parse_address, parse_mac, router_mac
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, label
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_interface_name, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, State, reconcile

TAP = "tap"
INTERNAL = "internal"
NAMESPACE = "namespace"
FLOWS = "flows"

# The host itself must not talk to guests: where no VLAN or the userspace datapath is used, its network stack sees
# what they send. Without IPv6, without answers to ARP, and with no route back, it drops all of it.
DEAF = {"ipv4.arp_ignore": 8, "ipv4.rp_filter": 1, "ipv6.disable_ipv6": 1}
# Gateways have no IPv6 address, so none that a guest could reach unasked.
SETTINGS = {TAP: tuple(DEAF), INTERNAL: ("ipv4.forwarding", "ipv6.disable_ipv6")}
ALL_SETTINGS = tuple(sorted({setting for settings in SETTINGS.values() for setting in settings}))

_PREFIX = "cloudrepo"
_CIDR = re.compile(r"[0-9.]+/[0-9]+")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Devices that the kernel itself puts into every namespace once their module is loaded.
_KERNELS_OWN = frozenset("lo erspan0 gre0 gretap0 ip6_vti0 ip6gre0 ip6tnl0 ip_vti0 sit0 tunl0".split())


class Options(NamedTuple):
    """The module's options."""

    slice: str
    slice_id: int
    bridge: str
    namespace: Optional[str]
    tap_user: str
    ports: Sequence[Mapping[str, Any]]
    present: bool
    purge: bool
    owner: Optional[str] = None
    vlan_pool: Optional[Mapping[str, int]] = None


class Host(NamedTuple):
    """One scan of a host; ``inside`` is None if the namespace does not exist, ``flows`` are ours on the bridge."""

    ovs: _ovs.Database
    root: _iproute.Network
    inside: Optional[_iproute.Network]
    sysctls: Mapping[str, Mapping[str, int]]
    flows: Sequence[_openflow.Flow] = ()


# --- the options --------------------------------------------------------------------------------------------------


def validate(options: Options) -> None:
    """Check everything that can be checked without looking at the host.

    Raises:
        ValueError: an option is wrong.
        ItemError: a port is.
    """
    if not is_name(options.slice):
        raise ValueError("slice %r: a name is %s" % (options.slice, NAME_RULE))
    if not 1 <= options.slice_id <= _openflow.MAX_SLICE_ID:
        raise ValueError("slice_id %d is not between 1 and %d" % (options.slice_id, _openflow.MAX_SLICE_ID))
    if not is_interface_name(options.bridge):
        raise ValueError("bridge %r is not the name of a bridge" % options.bridge)
    # Neither an argument of a command nor the database can have these.
    if options.owner is not None and _UNWRITABLE.search(options.owner):
        raise ValueError("owner %r has characters that can't be written down" % options.owner)
    if not _USER.fullmatch(options.tap_user):
        raise ValueError("tap_user %r is not the name of a user" % options.tap_user)
    # A namespace carries no stamp but its name.
    if options.namespace not in (None, "slice-%d" % options.slice_id):
        raise ValueError("namespace %r is not slice-%d, as slice_id says" % (options.namespace, options.slice_id))
    named: Dict[str, str] = {}
    for index, port in enumerate(options.ports):
        here = label("ports", index, port["name"])
        try:
            _validate_port(port, options)
        except ValueError as error:
            raise ItemError("%s: %s" % (here, error)) from error
        if port["name"] in named:
            raise ItemError("%s: the name is used by %s already" % (here, named[port["name"]]))
        named[port["name"]] = here
    routers = [named[port["name"]] for port in options.ports if options.present and port["gateway"]]
    if len(routers) > 1:
        raise ItemError("%s: %s has a gateway already, there is one default route" % (routers[1], routers[0]))


def _validate_port(port: Mapping[str, Any], options: Options) -> None:
    if not is_interface_name(port["name"]):
        raise ValueError("an interface name is a letter and up to 14 letters, digits or _.-")
    if port["name"] == options.bridge:
        raise ValueError("this is the bridge itself")
    if not options.present:
        return
    if port["vlan"] is not None and not 1 <= port["vlan"] <= 4094:
        raise ValueError("VLAN %d is not between 1 and 4094" % port["vlan"])
    if port["vm"] is not None and not is_name(port["vm"]):
        raise ValueError("vm %r: a name is %s" % (port["vm"], NAME_RULE))
    if port["interface"] is not None and not is_interface_name(port["interface"]):
        raise ValueError("interface %r is not the name of an interface" % port["interface"])
    if port["type"] == TAP:
        _validate_tap(port)
    else:
        _validate_internal(port, options.namespace)


def _validate_tap(port: Mapping[str, Any]) -> None:
    for field in ("address", "gateway", "forwarding"):
        if port[field]:
            raise ValueError("a TAP has no %s" % field)
    if port["security"]:
        _security(port["security"])


def _validate_internal(port: Mapping[str, Any], namespace: Optional[str]) -> None:
    if port["security"]:
        raise ValueError("an internal port has no security")
    if port["vlan"] is None:
        raise ValueError("an internal port needs a VLAN")
    address = _interface(port["address"]) if port["address"] is not None else None
    if port["gateway"] is None:
        return
    if namespace is None:
        raise ValueError("a gateway needs a namespace: the host's own default route is not touched")
    if address is None:
        raise ValueError("a gateway needs an address")
    gateway = ip_address(port["gateway"])
    if gateway not in address.network or gateway == address.ip:
        raise ValueError("%s is no gateway for %s" % (gateway, address))


def _interface(value: str) -> IPv4Interface:
    try:
        interface = IPv4Interface(value if _CIDR.fullmatch(value) else "")
    except ValueError as error:
        raise ValueError("%r is not an address with its prefix length, such as 192.168.100.1/24" % value) from error
    network = interface.network
    if network.prefixlen < 31 and interface.ip in (network.network_address, network.broadcast_address):
        raise ValueError("%s is no address for a host" % value)
    return interface


def _security(fields: Mapping[str, Any]) -> _openflow.Security:
    address = _interface(fields["address"])
    peers = None
    if fields["peers"] is not None:
        peers = [
            _openflow.Peer(str(parse_address(peer["address"], address.network)), parse_mac(peer["mac"]))
            for peer in fields["peers"]
        ]
    return _openflow.Security(
        mac=parse_mac(fields["mac"]),
        address=address,
        peers=peers,
        router_mac=parse_mac(fields["router_mac"]) if fields["router_mac"] is not None else None,
        dhcp_mac=parse_mac(fields["dhcp_mac"]) if fields["dhcp_mac"] is not None else None,
    )


# --- what is wanted -----------------------------------------------------------------------------------------------


def wanted(options: Options) -> Dict[str, State]:
    """The state of every resource that the options describe, by name."""
    states: Dict[str, State] = {}
    if not options.present:
        return states
    ports = options.ports
    if options.namespace and any(port["type"] == INTERNAL for port in ports):
        states[namespace_key(options.namespace)] = {"type": NAMESPACE, "loopback_up": True}
    for port in ports:
        states[port["name"]] = _wanted_tap(port, options) if port["type"] == TAP else _wanted_internal(port, options)
    return states


def namespace_key(namespace: str) -> str:
    """The namespace's name among the resources; no port can have it."""
    return "namespace %s" % namespace


def _wanted_tap(port: Mapping[str, Any], options: Options) -> State:
    state = _wanted_port(port, options)
    if port["vlan"] is None:
        state.update(bridge=None, external_ids={})
    security = _security(port["security"]) if port["security"] else None
    flows = _openflow.flows(options.slice_id, security) if port["vlan"] is not None else []
    return dict(state, user=options.tap_user, sysctls=DEAF, flows=flows)


def _wanted_internal(port: Mapping[str, Any], options: Options) -> State:
    address = _interface(port["address"]) if port["address"] is not None else None
    return dict(
        _wanted_port(port, options),
        namespace=options.namespace,
        mac=router_mac(address.ip) if address else None,
        addresses=[str(address)] if address else [],
        gateway=port["gateway"],
        sysctls={"ipv4.forwarding": int(port["forwarding"]), "ipv6.disable_ipv6": 1},
    )


def _wanted_port(port: Mapping[str, Any], options: Options) -> Dict[str, Any]:
    fields = {"slice": options.slice, "vm": port["vm"], "interface": port["interface"]}
    stamp = {key: value for key, value in fields.items() if value is not None}
    ids = dict(stamp, **{"slice-id": str(options.slice_id)})
    if options.owner is not None:
        ids["owner"] = options.owner
    if options.vlan_pool is not None:
        first = options.vlan_pool["first"]
        ids["pool"] = "%d-%d" % (first, first + options.vlan_pool["size"] - 1)
    return {
        "type": port["type"],
        "bridge": options.bridge,
        "vlan": port["vlan"],
        "external_ids": {"%s-%s" % (_PREFIX, key): value for key, value in ids.items()},
        "alias": " ".join([_PREFIX] + ["%s=%s" % item for item in stamp.items()]),
        "up": True,
        "attached": True,
    }


# --- what is there ------------------------------------------------------------------------------------------------


def owned(options: Options, ovs: _ovs.Database, *networks: Optional[_iproute.Network]) -> Set[str]:
    """The names of ports and devices that carry the slice's stamp."""
    names = {port.name for port in ovs.ports.values() if port_owner(port) == options.slice}
    for network in networks:
        devices = network.devices.values() if network else ()
        names |= {device.name for device in devices if device_owner(device) == options.slice}
    return names


def observed(options: Options, host: Host) -> Dict[str, State]:
    """The state of every resource that carries the slice's stamp, by name, with the fields that ``wanted`` has."""
    states: Dict[str, State] = {}
    if options.namespace and host.inside:
        up = host.inside.devices["lo"].up
        states[namespace_key(options.namespace)] = {"type": NAMESPACE, "loopback_up": up}
    types = {port["name"]: port["type"] for port in options.ports}
    for name in sorted(owned(options, host.ovs, host.root, host.inside)):
        kind = device_type(name, types.get(name), host)
        states[name] = _observed_tap(name, options, host) if kind == TAP else _observed_internal(name, options, host)
    return states


def device_type(name: str, expected: Optional[str], host: Host) -> str:
    """Which type a port of ours is; where there is only a device left, the expected one."""
    port = host.ovs.ports.get(name)
    if port:
        return INTERNAL if port.internal else TAP
    return expected or (TAP if name in host.root.devices else INTERNAL)


def _observed_tap(name: str, options: Options, host: Host) -> State:
    port, device = host.ovs.ports.get(name), host.root.devices.get(name)
    state = _observed_port(port, device)
    # A device that lost its stamp may be another one, made by hand after ours was deleted: the port does not know it.
    attached = device is not None and (port is None or (not port.error and device_owner(device) is not None))
    return dict(
        state,
        type=TAP,
        attached=attached,
        user=device.user if device else None,
        sysctls=_settings(name, TAP, host) if device else {},
        flows=sorted(flow.text for flow in host.flows if flow.port == flow_port(name, options, host)),
    )


def flow_port(name: str, options: Options, host: Host) -> Optional[int]:
    """The number by which flows know a port, if it is on the bridge and attached."""
    port = host.ovs.ports.get(name)
    return port.number if port and port.bridge == options.bridge else None


def _stale_flows(have: Mapping[str, State], options: Options, host: Host) -> Dict[str, State]:
    """The slice's flows on ports that are gone, whose numbers others may get."""
    known = {flow_port(name, options, host) for name, state in have.items() if state["type"] == TAP}
    states: Dict[str, State] = {}
    for flow in host.flows:
        if flow.slice_id == options.slice_id and flow.port not in known:
            state = states.setdefault("flows of port %d" % flow.port, {"type": FLOWS, "port": flow.port, "flows": []})
            state["flows"].append(flow.text)
    return states


def _observed_internal(name: str, options: Options, host: Host) -> State:
    port, outer = host.ovs.ports.get(name), host.root.devices.get(name)
    inner = host.inside.devices.get(name) if host.inside else None
    # After a restart of ovs-vswitchd both can be there; then the one inside is dead.
    device = outer or inner
    in_namespace = outer is None and inner is not None
    return dict(
        _observed_port(port, device),
        type=INTERNAL,
        attached=port is not None and not port.error and device is not None,
        namespace=options.namespace if in_namespace else None,
        mac=device.mac if device and _has_address(name, options) else None,
        addresses=device.addresses if device else [],
        gateway=host.inside.gateways.get(name) if host.inside and in_namespace else None,
        sysctls=_settings(name, INTERNAL, host),
    )


def _has_address(name: str, options: Options) -> bool:
    return any(port["name"] == name and port["address"] is not None for port in options.ports)


def _observed_port(port: Optional[_ovs.Port], device: Optional[_iproute.Device]) -> Dict[str, Any]:
    return {
        "bridge": port.bridge if port else None,
        "vlan": port.tag if port else None,
        "external_ids": _our_ids(port) if port else {},
        "alias": device.alias if device else None,
        "up": device.up if device else False,
    }


def _settings(name: str, kind: str, host: Host) -> Dict[str, int]:
    values = host.sysctls.get(name, {})
    return {setting: values[setting] for setting in SETTINGS[kind] if setting in values}


def _our_ids(port: _ovs.Port) -> Dict[str, str]:
    return {key: value for key, value in port.external_ids.items() if key.startswith(_PREFIX + "-")}


def port_owner(port: _ovs.Port) -> Optional[str]:
    return port.external_ids.get(_PREFIX + "-slice")


def device_owner(device: _iproute.Device) -> Optional[str]:
    return alias_owner(device.alias)


def alias_owner(alias: str) -> Optional[str]:
    return alias_fields(alias).get("slice")


def alias_fields(alias: str) -> Dict[str, str]:
    """What our stamp on a device says; nothing if it carries none."""
    words = alias.split()
    return dict(word.split("=", 1) for word in words[1:] if "=" in word) if words[:1] == [_PREFIX] else {}


# --- what stands in the way ---------------------------------------------------------------------------------------


def check_host(options: Options, host: Host, known_user: bool) -> None:
    """Refuse what cannot be done on this host, before anything is touched.

    Args:
        options: the module's options.
        host: what was found.
        known_user: whether ``tap_user`` exists.

    Raises:
        ValueError: the host is not prepared.
        ItemError: a port's name is taken by somebody else, or by something else of ours.
    """
    if not options.present:
        return
    bridge = host.ovs.bridges.get(options.bridge)
    if bridge is None:
        raise ValueError("%s does not exist on this host: run the playbook prepare_hosts" % options.bridge)
    if not bridge.ready:
        raise ValueError("%s has no datapath: is ovs-vswitchd running, and its kernel module loaded?" % options.bridge)
    if not known_user and any(port["type"] == TAP for port in options.ports):
        raise ValueError("there is no user %s on this host: run the playbook prepare_hosts" % options.tap_user)
    for index, port in enumerate(options.ports):
        problem = _conflict(port, options, host)
        if problem:
            raise ItemError("%s: %s" % (label("ports", index, port["name"]), problem))


def _conflict(port: Mapping[str, Any], options: Options, host: Host) -> Optional[str]:
    name, mine = port["name"], options.slice
    there = host.ovs.ports.get(name)
    device = host.root.devices.get(name)
    inner = host.inside.devices.get(name) if host.inside else None
    owners = [port_owner(there)] if there else []
    owners += [device_owner(found) for found in (device, inner) if found]
    other = next((owner for owner in owners if owner not in (None, mine)), None)
    if other:
        return "it exists and belongs to slice %s" % other
    if owners and mine not in owners:
        return "it exists and belongs to no slice"
    if there and there.internal != (port["type"] == INTERNAL):
        return "it exists and is %s: remove it first" % ("an internal port" if there.internal else "no internal port")
    if port["type"] == TAP and device and device.user != options.tap_user:
        return "it exists and belongs to user %s, not %s: remove it first" % (device.user or "root", options.tap_user)
    return None


# --- what has to change -------------------------------------------------------------------------------------------


def actions(options: Options, host: Host) -> List[Action]:
    """The changes that lead from what is there to what is wanted.

    Raises:
        ValueError: the namespace would be deleted with something of somebody else's in it.
    """
    have = observed(options, host)
    return reconcile({}, _stale_flows(have, options, host), purge=True) + _port_actions(have, options, host)


def _port_actions(have: Dict[str, State], options: Options, host: Host) -> List[Action]:
    if options.present:
        key = namespace_key(options.namespace or "")
        want = wanted(options)
        # An empty namespace stays until the slice goes: other modules' processes may be in it.
        return reconcile(want, {name: have[name] for name in have if name != key or key in want}, options.purge)
    listed = {port["name"] for port in options.ports}
    doomed = {name: state for name, state in have.items() if options.purge or name in listed}
    if options.namespace and host.inside:
        key = namespace_key(options.namespace)
        doomed.pop(key, None)
        if not any(_lives_inside(have[name]) for name in set(have) - set(doomed) - {key}):
            _refuse_strangers(set(host.inside.devices) - set(doomed), options.namespace)
            doomed[key] = have[key]
    return reconcile({}, doomed, purge=True)


def _lives_inside(state: State) -> bool:
    return state["type"] == INTERNAL and state["namespace"] is not None


def _refuse_strangers(names: Iterable[str], namespace: str) -> None:
    strangers = sorted(set(names) - _KERNELS_OWN)
    if strangers:
        raise ValueError("namespace %s cannot be deleted: %s in it is not ours" % (namespace, ", ".join(strangers)))
