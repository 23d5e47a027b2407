# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What dnsmasq reads and writes: its configuration files for one slice, and its leases. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Set, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._ipv4 import parse_address, parse_mac, parse_network
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, label, labels
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_interface_name, is_name

USER = "dnsmasq"

CONF = "dnsmasq.conf"
HOSTS = "hosts"
OPTIONS = "options"
NAMES = "names"
LEASES = "leases"

_ROUTE_TAG = "route"
_HEADER = "# Written by cloudrepo.slices.dnsmasq_dhcp. Changes are overwritten.\n"
_DOMAIN = re.compile(r"(?=.{1,200}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_MIN_LEASE_TIME = 120
_MAX_LEASES = 10000
# Nothing of the host's own configuration leaks in, and nothing but what is listed is served.
_FIXED = (
    "user=%s" % USER,
    "no-resolv",
    "no-poll",
    "no-hosts",
    "no-ping",
    # Unlike bind-interfaces it follows an interface that is deleted and created again.
    "bind-dynamic",
    "except-interface=lo",
    "localise-queries",
    "domain-needed",
    "bogus-priv",
    "dhcp-authoritative",
    # A guest does not choose by which name the others find it.
    "dhcp-ignore-names",
    "dhcp-lease-max=%d" % _MAX_LEASES,
)


class Host(NamedTuple):
    """One interface of a VM and the address that is reserved for it."""

    mac: str
    address: IPv4Address
    name: str
    default_route: bool


class Network(NamedTuple):
    """One network on which the slice's dnsmasq answers; ``router`` is empty if it has none."""

    interface: str
    vlan: int
    base: str
    netmask: str
    server_address: str
    router: str
    hosts: Tuple[Host, ...]


class Service(NamedTuple):
    """Everything that one slice's dnsmasq serves, checked and in a fixed order."""

    domain: str
    lease_time: int
    networks: Tuple[Network, ...]
    names: Tuple[Tuple[str, Tuple[str, ...]], ...]
    upstream_servers: Tuple[str, ...]

    def reservations(self) -> Set[Tuple[str, str]]:
        """The MAC and address of every reservation."""
        return {(host.mac, str(host.address)) for network in self.networks for host in network.hosts}


class Lease(NamedTuple):
    """One line of the leases file; ``hostname`` is empty if there is none, ``expires`` 0 if it never does."""

    expires: int
    mac: str
    address: str
    hostname: str
    line: str


def parse_service(
    domain: str,
    lease_time: int,
    networks: Sequence[Mapping[str, Any]],
    names: Sequence[Mapping[str, Any]],
    upstream_servers: Sequence[str],
) -> Service:
    """Check a module's options and bring them into one order.

    Raises:
        ValueError: an option is wrong.
        ItemError: an item of a list is.
    """
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("domain: %r is not a domain name in lower case" % domain)
    if lease_time < _MIN_LEASE_TIME:
        raise ValueError("lease_time: %d seconds are less than dnsmasq's %d" % (lease_time, _MIN_LEASE_TIME))
    parsed = [_network(item, at) for at, item in enumerate(networks)]
    _refuse_repeated(parsed)
    return Service(
        domain=domain,
        lease_time=lease_time,
        networks=tuple(_sorted(network) for network in sorted(parsed, key=lambda network: network.vlan)),
        names=tuple(sorted(_names(names))),
        upstream_servers=tuple(_servers(upstream_servers)),
    )


def _sorted(network: Network) -> Network:
    return network._replace(hosts=tuple(sorted(network.hosts, key=lambda host: host.address)))


def _servers(servers: Sequence[str]) -> Iterable[str]:
    for at, server in enumerate(servers):
        try:
            yield str(parse_address(server))
        except ValueError as error:
            raise ItemError("upstream_servers[%d]: %s" % (at, error)) from error


def _network(item: Mapping[str, Any], at: int) -> Network:
    here = label("networks", at, item["interface"])
    try:
        if not is_interface_name(item["interface"]):
            raise ValueError("that is not the name of an interface")
        if not 1 <= item["vlan"] <= 4094:
            raise ValueError("VLAN %d is not between 1 and 4094" % item["vlan"])
        subnet = parse_network(item["subnet"])
        server_address = parse_address(item["server_address"], subnet)
        router = parse_address(item["router"], subnet) if item["router"] else ""
    except ValueError as error:
        raise ItemError("%s: %s" % (here, error)) from error
    hosts = [
        _host(host, subnet, _host_label(at, position, host["name"])) for position, host in enumerate(item["hosts"])
    ]
    return Network(
        interface=item["interface"],
        vlan=item["vlan"],
        base=str(subnet.network_address),
        netmask=str(subnet.netmask),
        server_address=str(server_address),
        router=str(router),
        hosts=tuple(hosts),
    )


def _host(item: Mapping[str, Any], subnet: IPv4Network, here: str) -> Host:
    if not is_name(item["name"]):
        raise ItemError("%s: the name must be %s" % (here, NAME_RULE))
    try:
        return Host(
            mac=parse_mac(item["mac"]),
            address=parse_address(item["address"], subnet),
            name=item["name"],
            default_route=item["default_route"],
        )
    except ValueError as error:
        raise ItemError("%s: %s" % (here, error)) from error


def _host_label(at: int, position: int, name: str) -> str:
    return label("networks[%d].hosts" % at, position, name)


def _refuse_repeated(networks: Sequence[Network]) -> None:
    """Every interface, VLAN, MAC and address is somebody's own."""
    seen: Dict[Tuple[str, object], str] = {}

    def claim(kind: str, value: object, here: str) -> None:
        owner = seen.setdefault((kind, value), here)
        if owner != here:
            raise ItemError("%s: %s %s is that of %s already" % (here, kind, value, owner))

    for at, network in enumerate(networks):
        here = label("networks", at, network.interface)
        claim("interface", network.interface, here)
        claim("VLAN", network.vlan, here)
        claim("address", network.server_address, here)
        for position, host in enumerate(network.hosts):
            here = _host_label(at, position, host.name)
            claim("MAC", host.mac, here)
            claim("address", str(host.address), here)


def _names(items: Sequence[Mapping[str, Any]]) -> Iterable[Tuple[str, Tuple[str, ...]]]:
    named = labels("names", items)
    for item in items:
        try:
            yield item["name"], tuple(str(parse_address(address)) for address in item["addresses"])
        except ValueError as error:
            raise ItemError("%s: %s" % (named[item["name"]], error)) from error


def render(service: Service, folder: str) -> Dict[str, str]:
    """The content of every file that dnsmasq reads, by file name.

    Args:
        service: what it serves.
        folder: where the files are.
    """
    return {
        CONF: _render(_conf(service, folder)),
        HOSTS: _render(_hosts(service)),
        OPTIONS: _render(_options(service)),
        NAMES: _render(_addresses(service)),
    }


def _render(lines: Iterable[str]) -> str:
    return _HEADER + "".join(line + "\n" for line in lines)


def _conf(service: Service, folder: str) -> Iterable[str]:
    yield from _FIXED
    yield "dhcp-leasefile=%s/%s" % (folder, LEASES)
    yield "dhcp-hostsfile=%s/%s" % (folder, HOSTS)
    yield "dhcp-optsfile=%s/%s" % (folder, OPTIONS)
    yield "addn-hosts=%s/%s" % (folder, NAMES)
    yield "domain=%s" % service.domain
    yield "local=/%s/" % service.domain
    for server in service.upstream_servers:
        yield "server=%s" % server
    for network in service.networks:
        yield "interface=%s" % network.interface
        # "static": nobody gets an address but the MACs in the hosts file.
        yield "dhcp-range=set:%s,%s,static,%s,%d" % (
            _tag(network),
            network.base,
            network.netmask,
            service.lease_time,
        )
        # Not with "set:" in the hosts file: dnsmasq 2.90 crashes when it reloads one with a tag that was in use.
        for host in network.hosts:
            if host.default_route:
                yield "dhcp-mac=set:%s,%s" % (_ROUTE_TAG, host.mac)


def _hosts(service: Service) -> Iterable[str]:
    for network in service.networks:
        for host in network.hosts:
            yield "%s,%s,%s" % (host.mac, host.address, host.name)


def _tag(network: Network) -> str:
    return "vlan%d" % network.vlan


def _options(service: Service) -> Iterable[str]:
    yield "option:domain-search,%s" % service.domain
    # Without a value the option is not sent; left out, dnsmasq would offer itself as the router.
    yield "option:router"
    for network in service.networks:
        yield "tag:%s,option:dns-server,%s" % (_tag(network), network.server_address)
        if network.router:
            yield "tag:%s,tag:%s,option:router,%s" % (_tag(network), _ROUTE_TAG, network.router)


def _addresses(service: Service) -> Iterable[str]:
    for name, addresses in service.names:
        for address in addresses:
            yield "%s %s.%s %s" % (address, name, service.domain, name)


def parse_hosts(text: str) -> Dict[str, str]:
    """The VM of every MAC in a hosts file that this module has written."""
    fields = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return {line[0]: line[-1] for line in fields if len(line) > 2}


def parse_leases(text: str) -> List[Lease]:
    """The DHCPv4 leases in a leases file, in its order."""
    leases = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 5 and fields[0].isdigit():
            expires, mac, address, hostname = fields[:4]
            leases.append(Lease(int(expires), mac.lower(), address, "" if hostname == "*" else hostname, line))
    return leases


def split_stale(leases: Iterable[Lease], service: Service) -> Tuple[List[Lease], List[Lease]]:
    """Leases that a reservation stands behind, and those whose holder would block an address for another."""
    reservations = service.reservations()
    good: List[Lease] = []
    stale: List[Lease] = []
    for lease in leases:
        (good if (lease.mac, lease.address) in reservations else stale).append(lease)
    return good, stale


def parse_nameservers(text: str) -> List[str]:
    """The IPv4 name servers of a resolv.conf that can be asked from elsewhere than the host itself."""
    words = [line.split() for line in text.splitlines()]
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return [server for server in servers if _is_usable(server)]


def _is_usable(server: str) -> bool:
    try:
        address = ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback
