# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The internet VLAN: its gateway on the network node, shared by all slices, and what it lets through. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _nft, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._ipv4 import (
    parse_address,
    parse_mac,
    parse_network,
    router_mac,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, label
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_interface_name, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._nft import Chain, Rule
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import DELETE, Action, State

# The name of the shared table on the host, and of the slice's own in its namespace.
TABLE = "cloudrepo_slices"
STAMP = {"cloudrepo-role": "internet-gateway"}
# Without an IPv6 address there is none that a guest could reach unasked.
GATEWAY_SETTINGS = {"ipv4.forwarding": 1, "ipv6.disable_ipv6": 1}

GUESTS = "guests"
SERVERS = "servers"
BLOCKED = "blocked"
# By set, who may send (address and MAC), who may ask DNS servers, and which guest may not reach which network.
SETS = {
    GUESTS: "ipv4_addr . ether_addr",
    SERVERS: "ipv4_addr",
    BLOCKED: "ipv4_addr . ipv4_addr interval",
}

_TABLE_KEY = "table"
_MAX_PREFIX = 29


class Guest(NamedTuple):
    """A VM's interface on the internet VLAN."""

    address: str
    mac: str


class Options(NamedTuple):
    """The module's options, checked."""

    slice: str
    present: bool
    bridge: str
    vlan: int
    subnet: IPv4Network
    uplink: Optional[str]
    namespace: Optional[str]
    interface: Optional[str]
    server_address: Optional[str]
    guests: Tuple[Guest, ...]
    protected_networks: Tuple[IPv4Network, ...]
    protected_addresses: Tuple[IPv4Address, ...]

    @property
    def takes_part(self) -> bool:
        """Whether the slice has anything to do with the internet."""
        return self.present and bool(self.guests or self.server_address)

    @property
    def gateway_port(self) -> str:
        """The name of the gateway's port."""
        return "gw_vlan%d" % self.vlan

    @property
    def gateway_mac(self) -> str:
        """The gateway's MAC address: guests that know it need not notice that the port was made anew."""
        return router_mac(self.gateway.ip)

    @property
    def gateway(self) -> IPv4Interface:
        """The gateway's address."""
        return IPv4Interface((self.subnet.network_address + 1, self.subnet.prefixlen))


class Host(NamedTuple):
    """One scan of a host.

    Attributes:
        ovs: its bridges and ports.
        network: its devices and default routes.
        sysctls: settings of the gateway's port and of the uplink, by device, as far as these exist.
        ip_forward: whether the host is a router anyway.
        table: the shared table, if it exists.
        inside: the table in the slice's namespace, if that exists.
    """

    ovs: _ovs.Database
    network: _iproute.Network
    sysctls: Mapping[str, Mapping[str, int]]
    ip_forward: bool
    table: Optional[_nft.Listing]
    inside: Optional[_nft.Listing]


# --- the options --------------------------------------------------------------------------------------------------


def parse_options(params: Mapping[str, Any]) -> Options:
    """Check a module's options.

    Raises:
        ValueError: an option is wrong.
        ItemError: an item of a list is.
    """
    for option, valid, what in (
        ("slice", is_name, NAME_RULE),
        ("namespace", is_name, NAME_RULE),
        ("bridge", is_interface_name, "the name of a bridge"),
        ("uplink", is_interface_name, "the name of an interface"),
        ("interface", is_interface_name, "the name of an interface"),
    ):
        if params[option] is not None and not valid(params[option]):
            raise ValueError("%s %r is not %s" % (option, params[option], what))
    if not 1 <= params["vlan"] <= 4094:
        raise ValueError("vlan %d is not between 1 and 4094" % params["vlan"])
    subnet = parse_network(params["subnet"])
    if subnet.prefixlen > _MAX_PREFIX:
        raise ValueError("subnet %s is too small, its prefix may have %d bits" % (subnet, _MAX_PREFIX))
    options = Options(
        slice=params["slice"],
        present=params["state"] == "present",
        bridge=params["bridge"],
        vlan=params["vlan"],
        subnet=subnet,
        uplink=params["uplink"],
        namespace=params["namespace"],
        interface=params["interface"],
        server_address=None,
        guests=(),
        protected_networks=tuple(parse_network(network) for network in params["protected_networks"]),
        protected_addresses=tuple(parse_address(address) for address in params["protected_addresses"]),
    )
    if params["server_address"] is not None:
        options = options._replace(server_address=_own_address(params["server_address"], options))
    return options._replace(guests=tuple(_guests(params["addresses"], options)))


def _guests(items: Sequence[Mapping[str, Any]], options: Options) -> Iterable[Guest]:
    seen: Dict[str, str] = {str(options.server_address): "server_address"}
    for at, item in enumerate(items):
        here = label("addresses", at, item["address"])
        try:
            address, mac = _own_address(item["address"], options), parse_mac(item["mac"])
        except ValueError as error:
            raise ItemError("%s: %s" % (here, error)) from error
        for value in (address, mac):
            if seen.setdefault(value, here) != here:
                raise ItemError("%s: %s is that of %s already" % (here, value, seen[value]))
        yield Guest(address, mac)


def _own_address(value: str, options: Options) -> str:
    address = parse_address(value, options.subnet)
    if address == options.gateway.ip:
        raise ValueError("%s is the gateway's address" % address)
    return str(address)


# --- what is wanted -----------------------------------------------------------------------------------------------


def uplink(options: Options, host: Host) -> Optional[str]:
    """The interface that leads to the internet, if the host has one."""
    return options.uplink or next(iter(host.network.gateways), None)


def validate(options: Options, host: Host) -> None:
    """Check what only the host can tell.

    Raises:
        ValueError: the slice takes part, and something on the host is in the way.
    """
    if not options.takes_part:
        return
    if options.bridge not in host.ovs.bridges:
        raise ValueError("bridge %s does not exist: run the playbook prepare_hosts" % options.bridge)
    name = uplink(options, host)
    if name is None:
        raise ValueError("this host has no default route: set uplink to the interface that leads to the internet")
    if name not in host.network.devices:
        raise ValueError("uplink %s does not exist" % name)
    port = options.gateway_port
    if port not in gateway_ports(host) and (port in host.ovs.ports or port in host.network.devices):
        raise ValueError("interface %s exists already, and is not ours" % port)
    own = {guest.address for guest in options.guests} | {options.server_address}
    others = _others(options, host)
    for value, owner in [*others.get(GUESTS, {}).items(), *others.get(SERVERS, {}).items()]:
        address = value.split(" ")[0]
        if address in own:
            raise ValueError('address %s belongs to slice "%s"' % (address, owner))
        if IPv4Address(address) not in options.subnet:
            raise ValueError('subnet %s: slice "%s" still has %s' % (options.subnet, owner, address))


def wanted(options: Options, host: Host) -> Dict[str, State]:
    """The state of every resource, those included that other slices still need."""
    if not options.takes_part:
        have = observed(options, host)
        return {key: have[key] for key in _kept(options, host) if key in have}
    want: Dict[str, State] = {
        _TABLE_KEY: _nft.shape(shared_table(options, host)),
        _slice_key(options): _state(own_elements(options, host)),
        options.gateway_port: {
            "bridge": options.bridge,
            "vlan": options.vlan,
            "addresses": [str(options.gateway)],
            "up": True,
            "sysctls": GATEWAY_SETTINGS,
        },
        _uplink_key(options, host): {"forwarding": True},
    }
    if options.interface:
        inner = inner_table(options)
        want[_namespace_key(options)] = dict(_nft.shape(inner), elements=_state(inner_elements(options)))
    return want


def _kept(options: Options, host: Host) -> List[str]:
    """What this slice leaves behind: everything that is shared, but for the last one, who also ends the forwarding."""
    if _others(options, host):
        return [_TABLE_KEY, _uplink_key(options, host), *gateway_ports(host)]
    was_ours = host.table is not None or bool(gateway_ports(host))
    return [] if was_ours and not host.ip_forward else [_uplink_key(options, host)]


def shared_table(options: Options, host: Host) -> _nft.Table:
    """What the gateway lets through. The host's other traffic passes, but for what this module's forwarding brought."""
    port, out = options.gateway_port, str(uplink(options, host))
    inward, outward = 'iifname "%s"' % port, 'iifname "%s" oifname "%s"' % (port, out)
    forward = [
        Rule("%s ip saddr . ip daddr @%s drop" % (outward, BLOCKED), "protected networks"),
        Rule("%s ip saddr . ether saddr @%s accept" % (outward, GUESTS), "guests to the internet"),
        Rule("%s ip saddr @%s meta l4proto { tcp, udp } th dport 53 accept" % (outward, SERVERS), "DNS of the slices"),
        Rule("%s drop" % inward, "nothing else from the guests"),
        Rule('iifname "%s" oifname "%s" ct state established,related accept' % (out, port), "answers to guests"),
        Rule('oifname "%s" drop' % port, "nothing else to the guests"),
    ]
    if not host.ip_forward:
        # For forwarding to guests the uplink forwards to everybody: it did to nobody before.
        forward.append(Rule('iifname "%s" drop' % out, "the host is no router"))
    answer = "%s ip daddr %s icmp type echo-request accept" % (inward, options.gateway.ip)
    masquerade = 'ip saddr %s oifname "%s" masquerade' % (options.subnet, out)
    return _nft.Table(
        name=TABLE,
        sets=SETS,
        chains={
            "input": Chain(
                "filter",
                "input",
                0,
                [
                    Rule("%s ct state established,related accept" % inward, "answers to the host"),
                    Rule(answer, "ping to the gateway"),
                    Rule("%s drop" % inward, "nothing else to the host"),
                ],
            ),
            "forward": Chain("filter", "forward", 0, forward),
            "postrouting": Chain("nat", "postrouting", 100, [Rule(masquerade, "guests have the host's address")]),
        },
    )


def inner_table(options: Options) -> _nft.Table:
    """What the slice's own port on the internet VLAN accepts: slices must not reach each other through theirs."""
    inward, outward = 'iifname "%s"' % options.interface, 'oifname "%s"' % options.interface
    return _nft.Table(
        name=TABLE,
        sets={GUESTS: "ether_addr"},
        chains={
            "input": Chain(
                "filter",
                "input",
                0,
                [
                    Rule("%s ct state established,related accept" % inward, "answers"),
                    Rule("%s ether saddr != @%s drop" % (inward, GUESTS), "only the slice's own guests"),
                    Rule("%s udp dport 67 accept" % inward, "DHCP"),
                    Rule("%s meta l4proto { tcp, udp } th dport 53 accept" % inward, "DNS"),
                    Rule("%s icmp type echo-request accept" % inward, "ping"),
                    Rule("%s drop" % inward, "nothing else"),
                ],
            ),
            "forward": Chain(
                "filter",
                "forward",
                0,
                [Rule("%s drop" % inward, "no way in"), Rule("%s drop" % outward, "no way out")],
            ),
        },
    )


def own_elements(options: Options, host: Host) -> _nft.Elements:
    """This slice's elements of the shared table's sets."""
    name = options.slice
    servers = [options.server_address] if options.server_address else []
    return {
        GUESTS: {"%s . %s" % (guest.address, guest.mac): name for guest in options.guests},
        SERVERS: dict.fromkeys(servers, name),
        BLOCKED: {
            "%s . %s" % (guest.address, _prefix(network)): name
            for guest in options.guests
            for network in protected(options, host)
        },
    }


def inner_elements(options: Options) -> _nft.Elements:
    """The elements of the sets in the slice's namespace."""
    return {GUESTS: {guest.mac: "" for guest in options.guests}}


def protected(options: Options, host: Host) -> List[IPv4Network]:
    """What no guest may reach: the networks that are named, and those of the host in which somebody is to be protected.

    A protected address on none of the host's networks is protected alone.
    """
    connected = [
        IPv4Interface(address).network
        for device in host.network.devices.values()
        if device.name not in gateway_ports(host)
        for address in device.addresses
    ]
    networks = list(options.protected_networks)
    for address in options.protected_addresses:
        around = [network for network in connected if address in network]
        networks += around or [IPv4Network(address)]
    return list(collapse_addresses(networks))


# --- what there is ------------------------------------------------------------------------------------------------


def observed(options: Options, host: Host) -> Dict[str, State]:
    """The state of every resource that exists: what is shared, and what is this slice's own."""
    have: Dict[str, State] = {}
    if host.table is not None:
        have[_TABLE_KEY] = host.table.shape
    mine = elements_of(host, [options.slice])
    if mine:
        have[_slice_key(options)] = _state(mine)
    for name in gateway_ports(host):
        have[name] = _gateway_state(name, host)
    if host.sysctls.get(str(uplink(options, host)), {}).get("ipv4.forwarding"):
        have[_uplink_key(options, host)] = {"forwarding": True}
    if host.inside is not None:
        have[_namespace_key(options)] = dict(host.inside.shape, elements=_state(host.inside.elements))
    return have


def elements_of(host: Host, slices: Iterable[str]) -> Dict[str, Dict[str, str]]:
    """The elements of the shared table that belong to these slices, without sets in which they have none."""
    wanted_slices = set(slices)
    found = {
        name: {value: owner for value, owner in elements.items() if owner in wanted_slices}
        for name, elements in (host.table.elements if host.table else {}).items()
        if name in SETS
    }
    return {name: elements for name, elements in found.items() if elements}


def _others(options: Options, host: Host) -> Dict[str, Dict[str, str]]:
    """The elements of all other slices."""
    owners = {owner for elements in (host.table.elements if host.table else {}).values() for owner in elements.values()}
    return elements_of(host, {owner for owner in owners if is_name(owner)} - {options.slice})


def gateway_ports(host: Host) -> List[str]:
    """The ports that were made as a gateway: one at most, unless the VLAN has changed."""
    return [port.name for port in host.ovs.ports.values() if STAMP.items() <= port.external_ids.items()]


def _gateway_state(name: str, host: Host) -> State:
    port, device = host.ovs.ports[name], host.network.devices.get(name)
    if device is None:
        return {"bridge": port.bridge, "vlan": port.tag, "device": "lost"}
    return {
        "bridge": port.bridge,
        "vlan": port.tag,
        "addresses": device.addresses,
        "up": device.up,
        "sysctls": host.sysctls[name],
    }


def _state(elements: _nft.Elements) -> State:
    """Elements as they are compared and shown: the order in which the kernel gives them means nothing."""
    return {name: sorted(values) for name, values in elements.items() if values}


def _prefix(network: IPv4Network) -> str:
    """A network as nft prints it."""
    return str(network.network_address if network.prefixlen == 32 else network)


def _slice_key(options: Options) -> str:
    return "slice %s" % options.slice


def _namespace_key(options: Options) -> str:
    return "namespace %s" % options.namespace


def _uplink_key(options: Options, host: Host) -> str:
    return "uplink %s" % uplink(options, host)


# --- from one to the other ----------------------------------------------------------------------------------------


class Steps(NamedTuple):
    """What is to be done, in this order; what is empty costs nothing.

    Attributes:
        rules: script for the host's nft. The rules are there before anything is forwarded.
        inner_rules: script for nft in the slice's namespace.
        detach: Open vSwitch commands that drop ports: only what is a new port gets a new device.
        connect: the Open vSwitch commands of the one transaction that adds or changes the gateway's.
        sysctls: settings to write, by device.
        lines: lines for ``ip -batch``.
        last_rules: script for the host's nft, when nothing is forwarded any more.
    """

    rules: str
    inner_rules: str
    detach: List[_ovs.Command]
    connect: List[_ovs.Command]
    sysctls: Dict[str, Mapping[str, int]]
    lines: List[str]
    last_rules: str


def steps(actions: Sequence[Action], options: Options, host: Host) -> Steps:
    """What the actions take."""
    changed = {action.name: action for action in actions}
    done = Steps("", "", [], [], {}, [], "")
    if _TABLE_KEY in changed and changed[_TABLE_KEY].kind == DELETE:
        done = done._replace(last_rules=_nft.delete_table(TABLE))
    elif _TABLE_KEY in changed:
        elements = _merged(own_elements(options, host), _others(options, host))
        done = done._replace(rules=_nft.replace_table(shared_table(options, host), elements))
    elif _slice_key(options) in changed:
        before, after = elements_of(host, [options.slice]), own_elements(options, host) if options.takes_part else {}
        done = done._replace(rules=_nft.change_elements(TABLE, before, after))
    if _namespace_key(options) in changed:
        gone = changed[_namespace_key(options)].kind == DELETE
        script = _nft.delete_table(TABLE) if gone else _nft.replace_table(inner_table(options), inner_elements(options))
        done = done._replace(inner_rules=script)
    for name in set(changed) & {options.gateway_port, *gateway_ports(host)}:
        _gateway_steps(changed[name], options, done)
    if _uplink_key(options, host) in changed:
        on = changed[_uplink_key(options, host)].kind != DELETE
        done.sysctls[str(uplink(options, host))] = {"ipv4.forwarding": int(on)}
    return done


def _gateway_steps(action: Action, options: Options, done: Steps) -> None:
    name, before = action.name, action.before or {}
    if action.after is None:
        done.detach.append(_ovs.del_port(name))
        return
    if before and ("device" in before or before["bridge"] != options.bridge):
        done.detach.append(_ovs.del_port(name))
        before = {}
    if not before:
        done.connect.extend(_ovs.add_port(options.bridge, name, options.vlan, STAMP, internal=True))
        done.connect.append(["set", "Interface", name, "mac=%s" % _ovs.quote(options.gateway_mac)])
    elif before["vlan"] != options.vlan:
        done.connect.append(_ovs.set_tag(name, options.vlan))
    done.sysctls[name] = GATEWAY_SETTINGS
    surplus = [address for address in before.get("addresses", []) if address != str(options.gateway)]
    done.lines.extend(_iproute.delete_address(name, address) for address in surplus)
    done.lines.append(_iproute.replace_address(name, str(options.gateway)))
    done.lines.append(_iproute.set_up(name))


def _merged(one: _nft.Elements, other: _nft.Elements) -> _nft.Elements:
    return {name: dict(one.get(name, {}), **other.get(name, {})) for name in SETS}
