# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _dnsmasq
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

# Written by dnsmasq 2.90; the VM web has two interfaces, of which dnsmasq gives its name to one.
RECORDED = (Path(__file__).parent / "fixtures" / "dnsmasq_dhcp" / "leases").read_text(encoding="utf-8")
FOLDER = "/var/lib/cloudrepo/dnsmasq/web"

LINK: dict[str, Any] = {
    "interface": "gw_vlan100",
    "vlan": 100,
    "subnet": "192.168.100.0/24",
    "server_address": "192.168.100.1",
    "router": "192.168.100.1",
    "hosts": [
        {"mac": "52:54:00:03:EA:01", "address": "192.168.100.11", "name": "db", "default_route": True},
        {"mac": "52:54:00:03:e9:01", "address": "192.168.100.10", "name": "web", "default_route": False},
    ],
}
INTERNET: dict[str, Any] = {
    "interface": "inet_1000",
    "vlan": 400,
    "subnet": "10.60.7.0/24",
    "server_address": "10.60.7.254",
    "router": None,
    "hosts": [{"mac": "52:54:00:03:e9:00", "address": "10.60.7.10", "name": "web", "default_route": True}],
}
NAMES: list[dict[str, Any]] = [
    {"name": "web", "addresses": ["10.60.7.10", "192.168.100.10"]},
    {"name": "db", "addresses": ["192.168.100.11"]},
]


def service(*networks: dict[str, Any], **options: Any) -> _dnsmasq.Service:
    defaults: dict[str, Any] = {
        "domain": "web.internal",
        "lease_time": 3600,
        "names": NAMES,
        "upstream_servers": ["9.9.9.9"],
    }
    return _dnsmasq.parse_service(**{**defaults, **options}, networks=networks or (INTERNET, LINK))


def rendered(name: str, *networks: dict[str, Any], **options: Any) -> list[str]:
    header, *lines = _dnsmasq.render(service(*networks, **options), FOLDER)[name].splitlines()
    assert header.startswith("#")
    return lines


def test_every_host_has_its_reservation() -> None:
    assert rendered(_dnsmasq.HOSTS) == [
        "52:54:00:03:e9:01,192.168.100.10,web",
        "52:54:00:03:ea:01,192.168.100.11,db",
        "52:54:00:03:e9:00,10.60.7.10,web",
    ]


def test_reservations_carry_no_tag() -> None:
    # dnsmasq 2.90 dies on SIGHUP if a host in its hosts file has one and was served.
    assert not any("set:" in line for line in rendered(_dnsmasq.HOSTS))


def test_only_a_default_route_gets_a_router() -> None:
    assert rendered(_dnsmasq.OPTIONS) == [
        "option:domain-search,web.internal",
        "option:router",
        "tag:vlan100,option:dns-server,192.168.100.1",
        "tag:vlan100,tag:route,option:router,192.168.100.1",
        "tag:vlan400,option:dns-server,10.60.7.254",
    ]
    assert [line for line in rendered(_dnsmasq.CONF) if "set:route" in line] == [
        "dhcp-mac=set:route,52:54:00:03:ea:01",
        "dhcp-mac=set:route,52:54:00:03:e9:00",
    ]


def test_a_vm_is_known_by_all_its_addresses() -> None:
    assert rendered(_dnsmasq.NAMES) == [
        "192.168.100.11 db.web.internal db",
        "10.60.7.10 web.web.internal web",
        "192.168.100.10 web.web.internal web",
    ]


def test_only_what_is_listed_is_served() -> None:
    lines = rendered(_dnsmasq.CONF)

    assert [line for line in lines if line.startswith("interface=")] == ["interface=gw_vlan100", "interface=inet_1000"]
    assert [line for line in lines if line.startswith("dhcp-range=")] == [
        "dhcp-range=set:vlan100,192.168.100.0,static,255.255.255.0,3600",
        "dhcp-range=set:vlan400,10.60.7.0,static,255.255.255.0,3600",
    ]
    assert {"no-resolv", "no-hosts", "except-interface=lo"} <= set(lines)
    assert [line for line in lines if line.startswith("server=")] == ["server=9.9.9.9"]


def test_without_upstream_nobody_is_asked() -> None:
    assert not any(line.startswith("server=") for line in rendered(_dnsmasq.CONF, upstream_servers=[]))


def test_order_of_the_options_means_nothing() -> None:
    link = {**LINK, "hosts": LINK["hosts"][::-1]}
    assert _dnsmasq.render(service(link, INTERNET, names=NAMES[::-1]), FOLDER) == _dnsmasq.render(service(), FOLDER)


def with_host(**fields: Any) -> list[dict[str, Any]]:
    networks = copy.deepcopy([LINK, INTERNET])
    networks[0]["hosts"][1].update(fields)
    return networks


def with_network(at: int, **fields: Any) -> list[dict[str, Any]]:
    networks = copy.deepcopy([LINK, INTERNET])
    networks[at].update(fields)
    return networks


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (
            with_host(mac="52:54:00:03:e9:01,set:x"),
            "networks[0].hosts[1] \"web\": '52:54:00:03:e9:01,set:x' is not a MAC",
        ),
        (with_host(mac="52:54:00:03:e9:01\n"), 'networks[0].hosts[1] "web"'),
        (with_host(mac="52:54:00:03:ea:01"), 'MAC 52:54:00:03:ea:01 is that of networks[0].hosts[0] "db" already'),
        (with_host(address="192.168.101.10"), 'networks[0].hosts[1] "web": 192.168.101.10 is not in 192.168.100.0/24'),
        (with_host(address="192.168.100.11"), 'address 192.168.100.11 is that of networks[0].hosts[0] "db" already'),
        (with_host(address="192.168.100.1"), 'address 192.168.100.1 is that of networks[0] "gw_vlan100" already'),
        (with_host(address="192.168.100.255"), "192.168.100.255 is no address for a host"),
        (with_host(name="web,x"), 'networks[0].hosts[1] "web,x": the name must be'),
        (with_host(name="web\nx"), "the name must be"),
        (with_network(0, interface="gw\ninterface=eth0"), "that is not the name of an interface"),
        (with_network(0, vlan=4095), 'networks[0] "gw_vlan100": VLAN 4095 is not between'),
        (with_network(0, subnet="192.168.100.1/24"), "'192.168.100.1/24' is not an IPv4 network"),
        (with_network(0, router="10.0.0.1"), 'networks[0] "gw_vlan100": 10.0.0.1 is not in 192.168.100.0/24'),
        (with_network(0, server_address="192.168.100.1\n"), 'networks[0] "gw_vlan100"'),
        (with_network(1, vlan=100), 'networks[1] "inet_1000": VLAN 100 is that of networks[0] "gw_vlan100" already'),
        (with_network(1, interface="gw_vlan100"), "interface gw_vlan100 is that of"),
    ],
)
def test_bad_networks_are_refused_by_name(networks: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ItemError) as error:
        service(*networks)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "web.internal\nuser=root"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"domain": "a..b"}, "domain"),
        ({"lease_time": 119}, "lease_time"),
        ({"upstream_servers": ["9.9.9.9", "9.9.9.9\nuser=root"]}, "upstream_servers[1]"),
        ({"names": [*NAMES, {"name": "web", "addresses": []}]}, 'names[2] "web": the name is used by names[0] "web"'),
        ({"names": [{"name": "web", "addresses": ["10.60.7.10 evil"]}]}, "names[0] \"web\": '10.60.7.10 evil'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ItemError, ValueError)) as error:
        service(**options)
    assert message in str(error.value)


def test_recorded_leases() -> None:
    first, second, _third = _dnsmasq.parse_leases(RECORDED)

    assert first == _dnsmasq.Lease(
        expires=1795226165,
        mac="52:54:00:03:eb:01",
        address="192.168.100.12",
        hostname="new",
        line="1795226165 52:54:00:03:eb:01 192.168.100.12 new 01:52:54:00:03:eb:01",
    )
    assert (second.address, second.hostname) == ("192.168.100.10", "")


def moved(mac: str) -> dict[str, Any]:
    return {**LINK, "hosts": [{"mac": mac, "address": "192.168.100.12", "name": "new", "default_route": False}]}


@pytest.mark.parametrize(
    ("networks", "stale"),
    [
        ([moved("52:54:00:03:eb:01")], ["192.168.100.10", "10.60.7.10"]),
        ([moved("52:54:00:03:ec:01")], ["192.168.100.12", "192.168.100.10", "10.60.7.10"]),
        ([LINK, INTERNET], ["192.168.100.12"]),
    ],
)
def test_leases_that_nothing_is_reserved_for_are_stale(networks: list[dict[str, Any]], stale: list[str]) -> None:
    leases = _dnsmasq.parse_leases(RECORDED)
    good, bad = _dnsmasq.split_stale(leases, service(*networks))

    assert [lease.address for lease in bad] == stale
    assert good == [lease for lease in leases if lease.address not in stale]


def test_hosts_file_tells_whose_mac_it_is() -> None:
    text = _dnsmasq.render(service(), FOLDER)[_dnsmasq.HOSTS]
    assert _dnsmasq.parse_hosts(text) == {
        "52:54:00:03:e9:00": "web",
        "52:54:00:03:e9:01": "web",
        "52:54:00:03:ea:01": "db",
    }


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("search x\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions edns0\n", ["10.0.0.1", "10.0.0.2"]),
        ("nameserver 127.0.0.53\nnameserver ::1\n#nameserver 10.0.0.1\n", []),
        ("nameserver fe80::1%eth0\nnameserver\nnameserver what\nnameserver 10.0.0.1\n", ["10.0.0.1"]),
    ],
)
def test_name_servers_that_a_namespace_can_ask(text: str, servers: list[str]) -> None:
    assert _dnsmasq.parse_nameservers(text) == servers
