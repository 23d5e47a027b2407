# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import (
    actions,
    check_host,
    owned,
    validate,
    wanted,
)

from .vlan_hosts import SECURITY, WEB, bare_host, host, options, port, with_device, with_port, without


def changes(found: Any, **fields: Any) -> dict[str, tuple[str, list[str]]]:
    """What would be done, by name: the kind and, for a modification, the fields."""
    todo = actions(options(**fields), found)
    return {action.name: (action.kind, action.changed_keys() if action.kind == "modify" else []) for action in todo}


PEER = SECURITY["peers"][0]
GATEWAY = {"type": "internal", "vlan": 5, "address": "10.0.0.1/24"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (port("tap;x"), "an interface name is a letter and up to 14"),
        (port("a234567890123456"), "an interface name is a letter and up to 14"),
        (port("br-int"), "this is the bridge itself"),
        (port("tap_ok"), 'the name is used by ports[0] "tap_ok" already'),
        (port("x", vlan=0), "VLAN 0 is not between 1 and 4094"),
        (port("x", vlan=4095), "VLAN 4095 is not between 1 and 4094"),
        (port("x", vm="a b"), "vm 'a b': a name is"),
        (port("x", interface='e"0'), "is not the name of an interface"),
        (port("x", address="10.0.0.1/24"), "a TAP has no address"),
        (port("x", forwarding=True), "a TAP has no forwarding"),
        (port("x", type="internal"), "an internal port needs a VLAN"),
        (port("x", **GATEWAY, security=SECURITY), "an internal port has no security"),
        (port("x", vlan=5, security={**SECURITY, "mac": "52:54"}), "'52:54' is not a MAC address"),
        (port("x", vlan=5, security={**SECURITY, "router_mac": "02"}), "'02' is not a MAC address"),
        (port("x", vlan=5, security={**SECURITY, "address": "10.60.7.10"}), "is not an address with its prefix"),
        (
            port("x", vlan=5, security={**SECURITY, "peers": [{**PEER, "address": "10.60.8.1"}]}),
            "10.60.8.1 is not in 10.60.7",
        ),
        (port("x", vlan=5, security={**SECURITY, "peers": [{**PEER, "mac": "02"}]}), "'02' is not a MAC address"),
        (port("x", vlan=5, security={**SECURITY, "dhcp_mac": "02"}), "'02' is not a MAC address"),
        (port("x", **{**GATEWAY, "address": "10.0.0.1"}), "is not an address with its prefix length"),
        (port("x", **{**GATEWAY, "address": "fd00::1/64"}), "is not an address with its prefix length"),
        (port("x", **{**GATEWAY, "address": "10.0.0.0/24"}), "10.0.0.0/24 is no address for a host"),
        (port("x", **{**GATEWAY, "address": "10.0.0.1/33"}), "is not an address with its prefix length"),
        (port("x", **GATEWAY, gateway="10.0.1.1"), "10.0.1.1 is no gateway for 10.0.0.1/24"),
        (port("x", **GATEWAY, gateway="10.0.0.1"), "10.0.0.1 is no gateway for 10.0.0.1/24"),
        (port("x", **GATEWAY, gateway="ten"), "'ten' does not appear to be"),
    ],
)
def test_a_wrong_port_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ItemError) as raised:
        validate(options(port("tap_ok"), wrong))
    assert str(raised.value).startswith('ports[1] "%s": ' % wrong["name"])
    assert message in str(raised.value)


def test_there_is_one_default_route() -> None:
    second = port("x", type="internal", vlan=5, address="10.0.0.2/24", gateway="10.0.0.1")
    with pytest.raises(ItemError, match=r'ports\[5\] "x": ports\[4\] "inet_1000" has a gateway already'):
        validate(options(*WEB, second))


def test_the_hosts_own_default_route_is_not_touched() -> None:
    with pytest.raises(ItemError, match="a gateway needs a namespace"):
        validate(options(namespace=None))


@pytest.mark.parametrize(
    "fields",
    [
        {"slice": "../etc"},
        {"slice_id": 0},
        {"bridge": "br int"},
        {"tap_user": "a b"},
        {"namespace": "slice-1001"},
        {"namespace": "host"},
    ],
)
def test_a_wrong_option_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(fields.values())))):
        validate(options(**fields))


def test_of_an_absent_port_only_the_name_counts() -> None:
    validate(options(port("x", vlan=0), present=False))


def test_what_is_as_described_is_left_alone() -> None:
    validate(options())
    check_host(options(), host(), known_user=True)
    assert changes(host(), purge=True) == {}


def test_all_is_made_on_a_bare_host() -> None:
    assert changes(bare_host()) == {name: ("create", []) for name in wanted(options())}
    assert len(wanted(options())) == len(WEB) + 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (with_port(host(), "tap_1001_eth1", tag=9), {"tap_1001_eth1": ["vlan"]}),
        (with_port(host(), "gw_vlan100", external_ids={"cloudrepo-slice": "web"}), {"gw_vlan100": ["external_ids"]}),
        (with_port(host(), "tap_1001_eth0", error="no such device"), {"tap_1001_eth0": ["attached"]}),
        (with_device(host(), "root", "tap_1001_eth2", up=False), {"tap_1001_eth2": ["up"]}),
        (with_device(host(), "root", "tap_1001_eth1", alias=""), {"tap_1001_eth1": ["alias", "attached"]}),
        (with_device(host(), "inside", "gw_vlan100", addresses=[]), {"gw_vlan100": ["addresses"]}),
        (with_device(host(), "inside", "lo", up=False), {"namespace slice-1000": ["loopback_up"]}),
        (host()._replace(inside=host().inside._replace(gateways={})), {"inet_1000": ["gateway"]}),  # type: ignore[union-attr]
        (host()._replace(sysctls={**host().sysctls, "tap_1001_eth1": {}}), {"tap_1001_eth1": ["sysctls"]}),
        # Open vSwitch was started again: its new device is outside, the dead one inside.
        (
            with_device(host(), "root", "gw_vlan100"),
            {"gw_vlan100": ["addresses", "alias", "mac", "namespace", "up"]},
        ),
    ],
)
def test_drift_is_seen(found: Any, expected: dict[str, list[str]]) -> None:
    assert changes(found) == {name: ("modify", keys) for name, keys in expected.items()}


def test_ids_and_addresses_of_others_on_our_port_do_not_count_or_do() -> None:
    ids = {**host().ovs.ports["tap_1001_eth0"].external_ids, "somebody": "else"}
    assert changes(with_port(host(), "tap_1001_eth0", external_ids=ids)) == {}
    twice = with_device(host(), "inside", "gw_vlan100", addresses=["192.168.100.1/24", "192.168.100.2/24"])
    assert changes(twice) == {"gw_vlan100": ("modify", ["addresses"])}


def test_a_port_on_another_bridge_has_left_its_flows_behind() -> None:
    assert changes(with_port(host(), "tap_1001_eth1", bridge="br-x")) == {
        "flows of port 2": ("delete", []),
        "tap_1001_eth1": ("modify", ["bridge", "flows"]),
    }


def test_a_lost_flow_is_seen_and_a_foreign_one_on_a_port_of_ours_too() -> None:
    fewer = host()._replace(flows=host().flows[1:])
    assert changes(fewer) == {"tap_1001_eth0": ("modify", ["flows"])}
    others = host()._replace(flows=[*host().flows, host().flows[0]._replace(port=2, slice_id=1001)])
    assert changes(others) == {"tap_1001_eth1": ("modify", ["flows"])}


def test_security_waits_for_a_vlan() -> None:
    state = wanted(options(port("x", security=SECURITY)))["x"]
    assert state["bridge"] is None and state["flows"] == []


def test_a_lost_device_is_seen_by_its_port() -> None:
    found = without(host(), "tap_1001_eth1", "root")
    [action] = actions(options(), found)
    assert (action.kind, action.name) == ("modify", "tap_1001_eth1")
    assert action.before and action.before["attached"] is False


def test_purge_takes_what_is_ours_and_not_listed_and_nothing_else() -> None:
    todo = changes(host(), ports=WEB[:1], purge=True)
    assert todo == {port["name"]: ("delete", []) for port in WEB[1:]}
    assert changes(host(), ports=WEB[:1]) == {}


def test_only_what_carries_the_stamp_is_ours() -> None:
    found = host()
    assert owned(options(), found.ovs, found.root, found.inside) == {port["name"] for port in WEB}
    assert owned(options(slice="db"), found.ovs, found.root, found.inside) == {"tap_2001_eth0"}


@pytest.mark.parametrize(
    ("found", "name", "fields", "message"),
    [
        (host(), "tap_2001_eth0", {}, "it exists and belongs to slice db"),
        (host(), "tap_foreign", {}, "it exists and belongs to no slice"),
        (host(), "trunk0", {}, "it exists and belongs to no slice"),
        (host(), "gw_vlan100", {}, "it exists and is an internal port"),
        (host(), "tap_1001_eth0", {"type": "internal"}, "it exists and is no internal port"),
        (with_device(host(), "inside", "gw_vlan7"), "gw_vlan7", {"type": "internal"}, "belongs to no slice"),
        (
            with_device(host(), "root", "tap_1001_eth1", alias="cloudrepo slice=db"),
            "tap_1001_eth1",
            {},
            "it exists and belongs to slice db",
        ),
        (with_device(host(), "root", "tap_1001_eth1", user="root"), "tap_1001_eth1", {}, "belongs to user root, not"),
    ],
)
def test_nothing_is_taken_over(found: Any, name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ItemError) as raised:
        check_host(options(port(name, vlan=7, **fields)), found, known_user=True)
    assert str(raised.value).startswith('ports[0] "%s": ' % name)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "known_user", "message"),
    [
        ({"bridge": "br-ex"}, True, "br-ex does not exist on this host: run the playbook prepare_hosts"),
        ({"bridge": "br-down"}, True, "br-down has no datapath"),
        ({}, False, "there is no user nobody on this host"),
    ],
)
def test_a_host_that_is_not_prepared_is_refused(fields: dict[str, Any], known_user: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_host(options(**fields), host(), known_user)
    check_host(options(**fields, present=False), host(), known_user)


def test_absent_removes_the_listed_ports_and_keeps_the_namespace_of_the_others() -> None:
    assert changes(host(), ports=[WEB[0], WEB[3]], present=False) == {
        "tap_1001_eth0": ("delete", []),
        "gw_vlan100": ("delete", []),
    }


def test_the_namespace_goes_with_the_last_port_in_it() -> None:
    gone = {name: ("delete", []) for name in wanted(options())}
    assert changes(host(), ports=[], present=False, purge=True) == gone
    assert "namespace slice-1000" in changes(host(), ports=WEB[3:], present=False)
    assert changes(bare_host(), ports=[], present=False, purge=True) == {}


def test_a_namespace_with_something_else_in_it_is_not_deleted() -> None:
    fields: dict[str, Any] = {"ports": [], "present": False, "purge": True}
    with pytest.raises(ValueError, match="veth7 in it is not ours"):
        changes(with_device(host(), "inside", "veth7"), **fields)
    # The kernel's own.
    assert "namespace slice-1000" in changes(with_device(host(), "inside", "sit0"), **fields)


def test_absent_leaves_alone_what_another_slice_has_by_now() -> None:
    assert changes(host(), ports=[port("tap_2001_eth0")], present=False) == {}


def test_the_owner_and_the_pool_are_part_of_the_stamp() -> None:
    stamped = wanted(options(port("tap_1", vlan=100), owner="a b", vlan_pool={"first": 100, "size": 20}))
    ids = stamped["tap_1"]["external_ids"]
    assert (ids["cloudrepo-owner"], ids["cloudrepo-pool"]) == ("a b", "100-119")
    for owner in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match="can't be written down"):
            validate(options(owner=owner))
