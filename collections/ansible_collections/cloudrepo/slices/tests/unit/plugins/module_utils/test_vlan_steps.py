# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import DEAF, actions
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_steps import Line, Steps, Sysctls, steps

from .vlan_hosts import SECURITY, WEB, bare_host, host, options, recorded, with_device, with_port, without


def plan(found: Any, **fields: Any) -> Steps:
    """How the host would be brought to what the options say."""
    wish = options(**fields)
    return steps(actions(wish, found), wish, found)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def replaced(index: int, **fields: Any) -> list[dict[str, Any]]:
    """The slice's ports with another value in one of them."""
    return [{**port, **fields} if number == index else port for number, port in enumerate(WEB)]


NOTHING = Steps(False, [], [], [], [], [], [], [], [], [], [], False)


def test_nothing_to_do_costs_nothing() -> None:
    assert plan(host()) == NOTHING


def test_a_tap_is_ready_before_it_is_connected() -> None:
    todo = plan(bare_host(), ports=WEB[1:2])
    assert texts(todo.prepare) == [
        "tuntap add dev tap_1001_eth1 mode tap user nobody",
        'link set dev tap_1001_eth1 alias "cloudrepo slice=web vm=web interface=eth1" up',
    ]
    assert [command[:4] for command in todo.connect] == [["add-port", "br-int", "tap_1001_eth1", "tag=100"]]
    assert todo.deafen == [Sysctls("tap_1001_eth1", None, DEAF)]
    assert (todo.place, todo.settle, todo.detach) == ([], [], [])


def test_an_internal_port_is_stamped_before_it_moves_and_quiet_before_it_is_up() -> None:
    todo = plan(bare_host(), ports=WEB[4:])
    assert todo.create_namespace
    assert [command[0] for command in todo.connect] == ["add-port", "set"]
    assert texts(todo.place) == [
        'link set dev inet_1000 alias "cloudrepo slice=web"',
        "link set dev inet_1000 netns slice-1000",
    ]
    assert todo.sysctls == [Sysctls("inet_1000", "slice-1000", {"ipv4.forwarding": 0, "ipv6.disable_ipv6": 1})]
    assert texts(todo.settle) == [
        "link set dev lo up",
        "address replace 10.60.7.254/24 dev inet_1000",
        "link set dev inet_1000 address 02:00:0a:3c:07:fe",
        "link set dev inet_1000 up",
        "route replace default via 10.60.7.1 dev inet_1000",
    ]


def test_another_vlan_is_one_live_command() -> None:
    assert plan(host(), ports=replaced(1, vlan=101)) == NOTHING._replace(
        connect=[["set", "Port", "tap_1001_eth1", "tag=101"]]
    )


def test_a_tap_is_connected_and_disconnected_without_touching_the_device() -> None:
    todo = plan(host(), ports=replaced(2, vlan=7))
    assert [command[:4] for command in todo.connect] == [["add-port", "br-int", "tap_1001_eth2", "tag=7"]]
    tagged = "cookie=0xc10d5ec0000003e8,priority=50,vlan_tci=0x1000/0x1000 actions=drop"
    assert todo == NOTHING._replace(connect=todo.connect, secure=['add in_port="tap_1001_eth2",' + tagged])
    assert plan(host(), ports=replaced(1, vlan=None)) == NOTHING._replace(
        connect=[["--if-exists", "del-port", "tap_1001_eth1"]],
        secure=["delete cookie=0xc10d5ec000000000/0xffffffff00000000,in_port=2"],
    )


def test_a_new_address_takes_the_place_of_the_old_and_the_route_comes_back() -> None:
    assert texts(plan(host(), ports=replaced(4, address="10.60.7.253/24")).settle) == [
        "address delete 10.60.7.254/24 dev inet_1000",
        "address replace 10.60.7.253/24 dev inet_1000",
        "link set dev inet_1000 address 02:00:0a:3c:07:fd",
        "route replace default via 10.60.7.1 dev inet_1000",
    ]


def test_a_route_is_deleted_before_the_address_that_would_take_it_along() -> None:
    assert texts(plan(host(), ports=replaced(4, address="10.60.7.253/24", gateway=None)).settle) == [
        "route delete default dev inet_1000",
        "address delete 10.60.7.254/24 dev inet_1000",
        "address replace 10.60.7.253/24 dev inet_1000",
        "link set dev inet_1000 address 02:00:0a:3c:07:fd",
    ]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (without(host(), "tap_1001_eth1", "root"), "tap_1001_eth1"),
        # Made by hand after ours was deleted: Open vSwitch still listens to the old one.
        (with_device(host(), "root", "tap_1001_eth1", alias=""), "tap_1001_eth1"),
        (with_port(host(), "tap_1001_eth1", bridge="br-x"), "tap_1001_eth1"),
        (without(host(), "gw_vlan100", "inside"), "gw_vlan100"),
    ],
)
def test_only_a_new_port_gets_a_new_device(found: Any, name: str) -> None:
    todo = plan(found)
    assert todo.detach == [["--if-exists", "del-port", name]]
    assert todo.connect[0][:3] == ["add-port", "br-int", name]


def test_what_a_restart_of_open_vswitch_left_in_the_namespace_makes_room() -> None:
    todo = plan(with_device(host(), "root", "gw_vlan100"))
    assert todo.leftovers == ["gw_vlan100"]
    assert "link set dev gw_vlan100 netns slice-1000" in texts(todo.place)
    assert (todo.detach, todo.connect) == ([], [])


def test_a_device_that_moves_gets_everything_again() -> None:
    device = _iproute.parse_scan(recorded("ip-namespace.json")).devices["gw_vlan100"]
    todo = plan(with_device(without(host(), "gw_vlan100", "inside"), "root", **device._asdict()))
    assert texts(todo.place) == ["link set dev gw_vlan100 netns slice-1000"]
    assert texts(todo.settle) == [
        "address replace 192.168.100.1/24 dev gw_vlan100",
        "link set dev gw_vlan100 address 02:00:c0:a8:64:01",
        "link set dev gw_vlan100 up",
    ]
    assert [change.name for change in todo.sysctls] == ["gw_vlan100"]


def test_a_device_without_its_port_is_deleted_where_it_is() -> None:
    inside = plan(without(host(), "gw_vlan100", "ovs"))
    assert inside.leftovers == ["gw_vlan100"]
    outside = with_device(bare_host(), "root", "gw_vlan100", alias="cloudrepo slice=web")
    assert texts(plan(outside).prepare)[-1] == "link delete dev gw_vlan100"


def test_the_device_of_a_living_port_goes_with_it_but_a_tap_before() -> None:
    going = NOTHING._replace(connect=[["--if-exists", "del-port", "gw_vlan100"]])
    assert plan(host(), ports=[WEB[3]], present=False) == going._replace(leftovers=["gw_vlan100"])
    # The kernel's Open vSwitch lets nobody else delete what it has.
    kernels = with_device(host(), "inside", "gw_vlan100", kind="openvswitch")
    assert plan(kernels, ports=[WEB[3]], present=False) == going


def test_a_tap_is_deleted_after_its_port() -> None:
    todo = plan(host(), ports=[WEB[0]], present=False)
    assert todo.connect == [["--if-exists", "del-port", "tap_1001_eth0"]]
    assert todo.remove == ["tap_1001_eth0"]


def test_security_is_one_bundle_that_begins_with_what_goes() -> None:
    drop = "delete cookie=0xc10d5ec000000000/0xffffffff00000000,in_port=1"
    moved = plan(host(), ports=replaced(0, security={**SECURITY, "address": "10.60.7.11/24"})).secure
    assert moved[0] == drop and len(moved) == 11
    assert all(line.startswith('add in_port="tap_1001_eth0",cookie=0xc10d5ec0000003e8,') for line in moved[1:])
    assert plan(host(), ports=replaced(0, security=None)) == NOTHING._replace(secure=[drop, moved[-1]])
    assert plan(host(), ports=[WEB[0]], present=False).secure == [drop]
    # A new port has a new number, whatever the flows of the old one were.
    assert plan(without(host(), "tap_1001_eth0", "root")).secure == moved_back()
    assert plan(bare_host(), ports=WEB[:1]).secure == moved_back()[1:]


def moved_back() -> list[str]:
    return plan(host()._replace(flows=host().flows[1:])).secure


def test_flows_of_a_port_that_is_gone_go() -> None:
    found = without(host(), "tap_1001_eth0", "ovs", "root")
    assert plan(found, ports=WEB[1:]) == NOTHING._replace(
        secure=["delete cookie=0xc10d5ec000000000/0xffffffff00000000,in_port=1"]
    )
    others = [flow._replace(slice_id=1001) for flow in found.flows]
    assert plan(found._replace(flows=others), ports=WEB[1:]) == NOTHING


def test_a_device_without_our_stamp_is_never_deleted() -> None:
    found = with_device(host(), "root", "tap_1001_eth0", alias="")
    todo = plan(found, ports=[WEB[0]], present=False)
    assert todo.connect == [["--if-exists", "del-port", "tap_1001_eth0"]]
    assert todo.remove == []
    somebodys = with_device(with_device(host(), "root", "gw_vlan100"), "inside", "gw_vlan100", alias="")
    assert plan(somebodys).leftovers == []
