# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _internet, _iproute, _nft
from ansible_collections.cloudrepo.slices.plugins.module_utils._internet import Host, Options
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, reconcile

from .nat_hosts import NEITHER, WEB, alone, bare_host, host, options


def actions(wanted: Options, found: Host) -> list[Action]:
    _internet.validate(wanted, found)
    return reconcile(_internet.wanted(wanted, found), _internet.observed(wanted, found), purge=True)


def names(todo: list[Action]) -> list[tuple[str, str]]:
    return sorted((action.name, action.kind) for action in todo)


def steps(wanted: Options, found: Host) -> _internet.Steps:
    return _internet.steps(actions(wanted, found), wanted, found)


def other(**fields: Any) -> Options:
    return options(**{**NEITHER, "slice": "other", "namespace": None, **fields})


# --- nothing to do, everything to do ------------------------------------------------------------------------------


def test_the_recorded_host_is_what_is_wanted() -> None:
    assert actions(options(), host()) == []


def test_a_bare_host_gets_everything_rules_first() -> None:
    todo = steps(options(), bare_host())

    assert todo.rules.startswith("table inet cloudrepo_slices {")
    assert todo.detach == []
    assert todo.connect == [
        [*"add-port br-int gw_vlan400 tag=400".split(), 'external_ids:"cloudrepo-role"="internet-gateway"'],
        "set Interface gw_vlan400 type=internal".split(),
        ["set", "Interface", "gw_vlan400", 'mac="02:00:0a:3c:07:01"'],
    ]
    assert todo.sysctls == {
        "gw_vlan400": {"ipv4.forwarding": 1, "ipv6.disable_ipv6": 1},
        "uplink0": {"ipv4.forwarding": 1},
    }
    assert todo.lines == ["address replace 10.60.7.1/24 dev gw_vlan400", "link set dev gw_vlan400 up"]
    assert 'iifname "inet_1000" udp dport 67 accept' in todo.inner_rules
    assert todo.last_rules == ""


def test_without_guests_and_server_nothing_is_wanted() -> None:
    assert actions(options(**NEITHER), bare_host()) == []


# --- who else is there --------------------------------------------------------------------------------------------


def test_the_first_to_leave_takes_only_its_own() -> None:
    gone = options(state="absent")
    todo = actions(gone, host())

    assert names(todo) == [("namespace slice-1000", "delete"), ("slice web", "delete")]
    script = _internet.steps(todo, gone, host()).rules
    assert "10.60.7.20" not in script
    assert "delete element inet cloudrepo_slices servers { 10.60.7.254 " in script


def test_the_last_to_leave_takes_everything() -> None:
    gone = options(state="absent")
    todo = steps(gone, alone(host()))

    assert names(actions(gone, alone(host()))) == [
        ("gw_vlan400", "delete"),
        ("namespace slice-1000", "delete"),
        ("slice web", "delete"),
        ("table", "delete"),
        ("uplink uplink0", "delete"),
    ]
    assert todo.detach == [["--if-exists", "del-port", "gw_vlan400"]]
    assert todo.sysctls == {"uplink0": {"ipv4.forwarding": 0}}
    assert (todo.rules, todo.last_rules) == ("", "delete table inet cloudrepo_slices\n")


def test_nothing_of_a_host_without_slices_is_touched() -> None:
    bare = bare_host()
    forwarding = bare._replace(sysctls={"uplink0": {"ipv4.forwarding": 1}})
    assert actions(options(state="absent"), forwarding) == []


def test_a_new_table_keeps_the_others_elements() -> None:
    found = host()
    assert found.table is not None
    broken = found._replace(table=found.table._replace(shape={"sets": {}, "chains": {}}))

    script = steps(options(), broken).rules

    assert '10.60.7.20 . 52:54:00:04:e9:00 comment "other"' in script
    assert '10.60.7.10 . 52:54:00:03:e9:00 comment "web"' in script


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            other(addresses=[{"address": "10.60.7.10", "mac": "52:54:00:04:e9:01"}]),
            'address 10.60.7.10 belongs to slice "web"',
        ),
        (
            other(interface="inet_1010", namespace="slice-1010", server_address="10.60.7.10"),
            "address 10.60.7.10 belongs",
        ),
        (
            other(interface="inet_1010", namespace="slice-1010", server_address="10.60.7.254"),
            'address 10.60.7.254 belongs to slice "web"',
        ),
        (
            other(subnet="10.60.8.0/24", addresses=[{"address": "10.60.8.10", "mac": "52:54:00:04:e9:01"}]),
            'subnet 10.60.8.0/24: slice "web" still has 10.60.7.10',
        ),
    ],
)
def test_what_another_slice_has_is_refused(wanted: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        actions(wanted, host())


# --- a host that is a router anyway -------------------------------------------------------------------------------


def test_a_router_stays_one() -> None:
    router = alone(host())._replace(ip_forward=True)

    assert ("uplink uplink0", "delete") not in names(actions(options(state="absent"), router))


@pytest.mark.parametrize(("ip_forward", "guarded"), [(False, True), (True, False)])
def test_only_a_host_that_is_no_router_forwards_for_guests_alone(ip_forward: bool, guarded: bool) -> None:
    rules = _internet.shared_table(options(), host()._replace(ip_forward=ip_forward)).chains["forward"].rules
    assert ('iifname "uplink0" drop' in [rule.text for rule in rules]) is guarded


# --- repairs ------------------------------------------------------------------------------------------------------


def test_a_port_whose_device_is_lost_is_made_anew() -> None:
    found = host()
    lost = found._replace(
        network=found.network._replace(
            devices={name: device for name, device in found.network.devices.items() if name != "gw_vlan400"}
        )
    )

    todo = steps(options(), lost)

    assert todo.detach == [["--if-exists", "del-port", "gw_vlan400"]]
    assert todo.connect[0][:2] == ["add-port", "br-int"]
    assert todo.rules == ""


def test_surplus_addresses_go() -> None:
    found = host()
    device = _iproute.Device("gw_vlan400", "", False, "", ["10.60.9.1/24"], "")
    drifted = found._replace(network=found.network._replace(devices={**found.network.devices, "gw_vlan400": device}))

    assert steps(options(), drifted).lines == [
        "address delete 10.60.9.1/24 dev gw_vlan400",
        "address replace 10.60.7.1/24 dev gw_vlan400",
        "link set dev gw_vlan400 up",
    ]


def test_an_interface_of_somebody_else_is_left_alone() -> None:
    found = host()
    port = found.ovs.ports["gw_vlan400"]._replace(external_ids={})
    foreign = found._replace(ovs=found.ovs._replace(ports={"gw_vlan400": port}))

    with pytest.raises(ValueError, match="gw_vlan400 exists already"):
        actions(options(), foreign)
    assert "gw_vlan400" not in {action.name for action in actions(options(state="absent"), alone(foreign))}


# --- what is protected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "networks"),
    [
        ({}, ["10.0.10.0/24", "198.51.100.0/24"]),
        ({"protected_addresses": ["10.9.9.9"], "protected_networks": []}, ["10.9.9.9/32"]),
        ({"protected_networks": ["10.0.0.0/8"]}, ["10.0.0.0/8"]),
        ({"protected_addresses": ["203.0.113.2"], "protected_networks": []}, ["203.0.113.0/24"]),
    ],
)
def test_networks_around_protected_addresses(fields: dict[str, Any], networks: list[str]) -> None:
    assert [str(network) for network in _internet.protected(options(**fields), host())] == networks


def test_every_guest_is_kept_from_every_protected_network() -> None:
    two = [{"address": f"10.60.7.{n}", "mac": f"52:54:00:03:e9:{n}"} for n in (10, 11)]
    blocked = _internet.own_elements(options(addresses=two, protected_addresses=["10.9.9.9"]), host())["blocked"]
    assert sorted(blocked) == [
        "10.60.7.10 . 10.9.9.9",
        "10.60.7.10 . 198.51.100.0/24",
        "10.60.7.11 . 10.9.9.9",
        "10.60.7.11 . 198.51.100.0/24",
    ]


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slice": "../web"}, "slice '../web' is not"),
        ({"bridge": "br int"}, "bridge 'br int' is not"),
        ({"uplink": 'eth0" accept'}, "uplink 'eth0\" accept' is not"),
        ({"interface": "a\nb"}, "interface"),
        ({"namespace": "../x"}, "namespace"),
        ({"vlan": 0}, "vlan 0 is not between"),
        ({"subnet": "10.60.7.1/24"}, "'10.60.7.1/24' is not an IPv4 network"),
        ({"subnet": "10.60.7.0/30"}, "subnet 10.60.7.0/30 is too small"),
        ({"server_address": "10.60.7.1"}, "10.60.7.1 is the gateway's address"),
        (
            {"addresses": [{"address": "10.60.8.1", "mac": "52:54:00:03:e9:00"}]},
            'addresses[0] "10.60.8.1": 10.60.8.1 is',
        ),
        ({"addresses": [{"address": "10.60.7.10", "mac": "x"}]}, "addresses[0] \"10.60.7.10\": 'x' is not a MAC"),
        ({"addresses": WEB["addresses"] * 2}, 'addresses[1] "10.60.7.10": 10.60.7.10 is that of addresses[0]'),
        ({"addresses": [{"address": "10.60.7.254", "mac": "52:54:00:03:e9:00"}]}, "is that of server_address already"),
        ({"protected_networks": ["10.0.0.0/8; accept"]}, "is not an IPv4 network"),
    ],
)
def test_bad_options_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ItemError, ValueError)) as error:
        options(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (host()._replace(network=_iproute.Network({}, {})), "this host has no default route"),
        (host()._replace(network=_iproute.Network({}, {"eth9": "10.0.0.1"})), "uplink eth9 does not exist"),
        (host()._replace(ovs=host().ovs._replace(bridges={})), "bridge br-int does not exist"),
    ],
)
def test_a_host_that_cannot_is_refused_but_not_on_the_way_out(found: Host, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _internet.validate(options(), found)
    _internet.validate(options(state="absent"), found)


def test_comments_fit_into_the_kernel() -> None:
    # nftables allows 128 bytes.
    long_names = options(uplink="enp199s0f1np1v2", vlan=4000, interface="inet_1000000000")
    tables = [_internet.shared_table(long_names, host()), _internet.inner_table(long_names)]
    rules = [rule for table in tables for chain in table.chains.values() for rule in chain.rules]
    assert len(rules) > 10
    assert max(len(rule.comment()) for rule in rules) < 128


def test_a_table_as_wanted_has_the_recorded_shape() -> None:
    found = host()
    assert found.table is not None and found.inside is not None
    assert _nft.shape(_internet.shared_table(options(), found)) == found.table.shape
    assert _nft.shape(_internet.inner_table(options())) == found.inside.shape
