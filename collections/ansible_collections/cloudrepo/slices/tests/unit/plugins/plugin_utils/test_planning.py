# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Room, Stamp, Worker
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._report import render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import NetworkNode
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._shares import nothing

from .clusters import EMPTY, FLAVORS, WEB, after, make_plan, workers

GOLDEN = """\
======================================================================
Slice 1000 [design]: 2 VMs, 1 Links, VLAN pool: 100-119
  └─ VM 1001: web (VNC: 5901, Worker: 10.0.10.1, Disk: 1GB)
      eth0: MAC 52:54:00:03:e9:00, VLAN: 400, unconnected
      eth1: MAC 52:54:00:03:e9:01, VLAN: 100, Link: 1
  └─ VM 1002: db (VNC: 5902, Worker: 10.0.10.2, Disk: 2.2GB)
      eth0: MAC 52:54:00:03:ea:00, unconnected
      eth1: MAC 52:54:00:03:ea:01, VLAN: 100, Link: 1
  Link 1: VM1001.eth1 <-> VM1002.eth1 (VLAN 100)
======================================================================"""


def spec_with(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(WEB), **changes}


def vm(plan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in plan["slice"]["vms"] if each["name"] == name)


def topology(shape: str, count: int, name: str = "lan", **keys: Any) -> dict[str, Any]:
    return {"name": name, "topology": {"type": shape, "vms": count, "flavor": "cirros"}, **keys}


def test_golden_case() -> None:
    planned = make_plan(WEB)
    assert render([planned["slice"]]) == GOLDEN
    assert planned["hosts"].keys() == {"network1", "worker1", "worker2"}


def test_replanning_an_unchanged_slice_changes_nothing() -> None:
    first = make_plan(WEB)
    second = make_plan(WEB, after(EMPTY, first))
    assert second["changed"] is False
    assert second["hosts"] == first["hosts"]


def test_placement_goes_on_where_the_last_slice_stopped() -> None:
    first = make_plan(WEB)
    second = make_plan(topology("line", 2), after(EMPTY, first))
    assert [each["worker"] for each in second["slice"]["vms"]] == ["worker3", "worker1"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("packed", ["worker1", "worker1", "worker2"]), ("balanced", ["worker2", "worker1", "worker2"])],
)
def test_other_policies(policy: str, expected: list[str]) -> None:
    hosts = [
        Worker("worker1", "10.0.10.1", room=Room(2, 1024, 10**6)),
        Worker("worker2", "10.0.10.2", room=Room(8, 1536, 10**6)),
    ]
    planned = make_plan(topology("line", 3), hosts=hosts, placement=policy, overcommit=Room(1, 1, 1))
    assert [each["worker"] for each in planned["slice"]["vms"]] == expected


def test_pool_avoids_reserved_vlans_and_the_pools_of_others() -> None:
    # ID 1015 prefers 400-419, which the internet VLAN is in; ID 1100 prefers the block that ID 1000 holds.
    at_400 = make_plan(WEB, {**EMPTY, "next_id": 1015})
    assert at_400["slice"]["vlan_pool"] == {"first": 100, "size": 20}
    repeated = make_plan(topology("line", 2), {**after(EMPTY, make_plan(WEB)), "next_id": 1100})
    assert repeated["slice"]["vlan_pool"] == {"first": 120, "size": 20}
    reserved = make_plan(WEB, reserved_vlans=(119,))
    assert reserved["slice"]["vlan_pool"]["first"] == 120


def test_pool_grows_in_place_or_not_at_all() -> None:
    first = make_plan(topology("line", 2))
    grown = make_plan(topology("line", 2, vlan_pool_size=40), after(EMPTY, first))
    assert grown["slice"]["vlan_pool"] == {"first": 100, "size": 40}
    two = after(after(EMPTY, first), make_plan(WEB, after(EMPTY, first)))
    with pytest.raises(SpecError, match="VLAN 160 belongs to slice web"):
        make_plan(topology("line", 2, vlan_pool_size=80), two)


def test_subnets_above_vlan_255() -> None:
    planned = make_plan(topology("line", 2), {**EMPTY, "next_id": 1010})
    (link,) = planned["slice"]["links"]
    assert (link["vlan"], link["subnet"], link["server_address"]) == (300, "172.17.44.0/24", "172.17.44.1/24")


def test_wide_ids_spill_into_the_third_octet_and_shorten_the_tap() -> None:
    planned = make_plan(topology("line", 2), {**EMPTY, "next_id": 12345677})
    first = vm(planned, "vm1")["interfaces"][1]
    assert first["mac"] == "52:54:bc:61:4e:01"
    assert first["tap"] == "t12345678e1"


def test_bare_endpoints_take_the_next_free_interface_and_keep_it() -> None:
    spec = spec_with(
        links=[{"endpoints": ["web", "db"]}],
        vms=[{"name": n, "flavor": "cirros"} for n in ("web", "db", "x")],
    )
    first = make_plan(spec)
    spec["links"] = [{"endpoints": ["x", "db"]}, {"endpoints": ["web", "db"]}]
    second = make_plan(spec, after(EMPTY, first))
    ends = {
        (end["vm"], link["name"]): end["interface"] for link in second["slice"]["links"] for end in link["endpoints"]
    }
    assert ends["db", "db_web"] == "eth1"
    assert ends["db", "db_x"] == "eth2"


def test_lan_with_three_ends() -> None:
    planned = make_plan(topology("bus", 3))
    (link,) = planned["slice"]["links"]
    assert len(link["endpoints"]) == 3
    assert "Link 1: VM1001.eth1 <-> VM1002.eth1 <-> VM1003.eth1 (VLAN 100)" in render([planned["slice"]])


@pytest.mark.parametrize(
    ("shape", "count", "ends"),
    [
        ("line", 4, ["12", "23", "34"]),
        ("ring", 4, ["12", "23", "34", "41"]),
        ("star", 4, ["12", "13", "14"]),
        ("tree", 7, ["12", "13", "24", "25", "36", "37"]),
        ("mesh", 4, ["12", "13", "14", "23", "24", "34"]),
        ("bus", 4, ["1234"]),
    ],
)
def test_topologies(shape: str, count: int, ends: list[str]) -> None:
    links = make_plan(topology(shape, count))["slice"]["links"]
    assert ["".join(end["vm"].removeprefix("vm") for end in link["endpoints"]) for link in links] == ends


def test_topology_adds_to_vms_and_links() -> None:
    spec = topology("ring", 3, vms=[{"name": "out", "flavor": "ubuntu"}], links=[{"endpoints": ["out", "vm1"]}])
    planned = make_plan(spec)
    assert [each["name"] for each in planned["slice"]["vms"]] == ["out", "vm1", "vm2", "vm3"]
    assert len(planned["slice"]["links"]) == 4


def test_default_route() -> None:
    routes = {
        each["name"]: [i["name"] for i in each["interfaces"] if i["default_route"]]
        for each in make_plan(topology("ring", 3, vms=[{"name": "a", "flavor": "cirros"}]))["slice"]["vms"]
    }
    assert routes == {"a": [], "vm1": ["eth1"], "vm2": ["eth1"], "vm3": ["eth1"]}
    spec = spec_with()
    spec["vms"][0]["default_route"] = "eth1"
    assert [i["default_route"] for i in vm(make_plan(spec), "web")["interfaces"]] == [False, True]
    spec["links"][0]["gateway"] = False
    with pytest.raises(SpecError, match=r'vms\[0\] "web": default_route: eth1 is on no network'):
        make_plan(spec)


def test_links_without_dhcp_or_gateway() -> None:
    spec = spec_with(vms=[{"name": n, "flavor": "cirros"} for n in "abc"])
    spec["links"] = [
        {"endpoints": ["a", "b"], "gateway": False, "name": "served"},
        {"endpoints": ["b", "c"], "gateway": False, "dhcp": False, "name": "bare"},
    ]
    planned = make_plan(spec)
    served, bare = planned["slice"]["links"]
    assert served["server_address"] == "192.168.100.254/24"
    assert bare["server_address"] is None
    node = planned["hosts"]["network1"]
    assert [port["name"] for port in node["ports"]] == ["gw_vlan100"]
    assert [network["router"] for network in node["network"]["networks"]] == [None]
    assert vm(planned, "c")["interfaces"][1]["address"] is None


def test_own_subnet() -> None:
    spec = spec_with()
    spec["links"][0]["subnet"] = "10.9.0.0/29"
    planned = make_plan(spec)
    assert [i["address"] for i in vm(planned, "web")["interfaces"]] == ["10.60.7.10/24", "10.9.0.2/29"]


def test_only_ports_on_the_internet_vlan_are_secured_and_names_lead_to_links() -> None:
    hosts = make_plan(WEB)["hosts"]
    security = {port["name"]: port.get("security") for share in hosts.values() for port in share["ports"]}
    assert {name: fields for name, fields in security.items() if fields} == {
        "tap_1001_eth0": {
            "mac": "52:54:00:03:e9:00",
            "address": "10.60.7.10/24",
            "peers": [
                {"address": "10.60.7.1", "mac": "02:00:0a:3c:07:01"},
                {"address": "10.60.7.254", "mac": "02:00:0a:3c:07:fe"},
            ],
            "router_mac": "02:00:0a:3c:07:01",
            "dhcp_mac": "02:00:0a:3c:07:fe",
        }
    }
    names = {name["name"]: name["addresses"] for name in hosts["network1"]["network"]["names"]}
    assert names["web"] == ["192.168.100.10"]


def test_port_security_of_a_link_is_about_its_guests_alone() -> None:
    spec = spec_with(vms=[{"name": n, "flavor": "cirros"} for n in "abc"])
    spec["links"] = [{"endpoints": ["a", "b"], "port_security": True}, {"endpoints": ["b", "c"]}]
    planned = make_plan(spec)
    security = {port["name"]: port.get("security") for share in planned["hosts"].values() for port in share["ports"]}
    assert {name: fields for name, fields in security.items() if fields} == {
        "tap_1001_eth1": {"mac": "52:54:00:03:e9:01", "address": "192.168.100.10/24"},
        "tap_1002_eth1": {"mac": "52:54:00:03:ea:01", "address": "192.168.100.11/24"},
    }
    shown = render([planned["slice"]])
    assert "VM1002.eth1 (VLAN 100, port security)" in shown and "VM1003.eth1 (VLAN 101)" in shown


def test_network_node_that_is_a_worker_gets_one_share() -> None:
    node = NetworkNode("worker1", "10.0.10.1")
    share = make_plan(WEB, network_nodes=[node])["hosts"]["worker1"]
    assert [port["name"] for port in share["ports"]] == [
        "tap_1001_eth0",
        "tap_1001_eth1",
        "gw_vlan100",
        "inet_1000",
    ]
    assert share["vms"] and share["network"]["namespace"] == "slice-1000"


def test_removed_vm_keeps_its_numbers_until_it_is_gone() -> None:
    running = after(EMPTY, make_plan(WEB))
    spec = spec_with(vms=WEB["vms"][1:], links=[])
    planned = make_plan(spec, running)
    retired = vm(planned, "web")
    assert retired["retired"] and retired["vnc_port"] == 5901
    assert planned["hosts"]["worker1"]["vms"] == []
    again = make_plan(WEB, after(running, planned, status="failed"))
    assert vm(again, "web")["id"] == 1001 and not vm(again, "web")["retired"]
    # Once it is gone its ID is not given out again.
    fresh = make_plan(WEB, after(running, planned))
    assert vm(fresh, "web")["id"] == 1003


def test_what_a_retired_vm_uses_is_given_to_nobody() -> None:
    """It runs until all others do: on its VLANs, with its addresses."""
    lan = {"name": "lan", "endpoints": ["a", "b", "old"]}
    before = {"name": "lan", "vms": machines("a", "b", "old")}
    running = after(EMPTY, make_plan({**before, "links": [lan, {"endpoints": ["a", "old"]}]}))
    old = running["slices"][0]["vms"][2]
    spec = {
        **before,
        "vms": machines("a", "b", "new"),
        "links": [{**lan, "endpoints": ["a", "b", "new"]}, {"endpoints": ["a", "new"]}],
    }
    planned = make_plan(spec, running)
    assert vm(planned, "old") == {**old, "retired": True}
    ours, theirs = old["interfaces"], vm(planned, "new")["interfaces"]
    # The LAN stays, with other addresses on it; the link of the two is another one.
    assert (theirs[1]["vlan"], theirs[1]["link"]) == (ours[1]["vlan"], ours[1]["link"])
    assert theirs[1]["address"] != ours[1]["address"]
    assert theirs[2]["vlan"] != ours[2]["vlan"] and theirs[2]["link"] != ours[2]["link"]
    # What failed may be taken back: then everything is as it was.
    back = make_plan({**before, "links": [lan, {"endpoints": ["a", "old"]}]}, after(running, planned, status="failed"))
    assert vm(back, "old") == old and vm(back, "new")["retired"]


def machines(*names: str, **keys: Any) -> list[dict[str, Any]]:
    return [{"name": name, "flavor": "cirros", **keys} for name in names]


def test_a_link_on_the_subnet_of_a_removed_one_goes_on_as_that() -> None:
    """Both would have the same gateway while the retired VM runs."""
    spec = {"name": "lan", "vms": machines("b", "a"), "links": [{"endpoints": ["b", "a"], "subnet": "10.0.0.0/24"}]}
    running = after(EMPTY, make_plan(spec))
    planned = make_plan(
        {**spec, "vms": machines("new", "a"), "links": [{"endpoints": ["new", "a"], "subnet": "10.0.0.0/24"}]}, running
    )
    [before], [now] = running["slices"][0]["links"], planned["slice"]["links"]
    assert (now["number"], now["vlan"], now["name"] == before["name"]) == (before["number"], before["vlan"], False)
    assert vm(planned, "a") == running["slices"][0]["vms"][1]
    assert vm(planned, "new")["interfaces"][1]["address"] == "10.0.0.12/24"


def test_vlans_of_removed_links_are_taken_last() -> None:
    """Guests are still on them where a host failed."""
    spec = {"name": "lan", "vms": machines("a", "b", "c"), "vlan_pool_size": 3, "links": [{"endpoints": ["a", "b"]}]}
    running = after(EMPTY, make_plan(spec))
    moved = make_plan({**spec, "links": [{"endpoints": ["b", "c"]}]}, running)["slice"]
    assert [link["vlan"] for link in moved["links"]] == [101]
    full = {**spec, "links": [{"endpoints": ["b", "c"]}, {"endpoints": ["a", "c"]}, {"endpoints": ["a", "b", "c"]}]}
    assert [link["vlan"] for link in make_plan(full, running)["slice"]["links"]] == [101, 102, 100]


def test_what_does_not_fit_beside_retired_vms_is_refused() -> None:
    spec = {
        "name": "lan",
        "vms": machines("a", "old"),
        "vlan_pool_size": 1,
        "links": [{"name": "lan", "endpoints": ["a", "old"], "subnet": "10.0.0.0/29"}],
    }
    running = after(EMPTY, make_plan(spec))
    new = {**spec, "vms": machines("a", "new"), "links": [{"endpoints": ["a", "new"]}]}
    until = r'is free until VM "old" is gone: deploy once without any new'
    with pytest.raises(SpecError, match=rf"links\[0\].*: no VLAN of the slice's pool of 1 {until} link"):
        make_plan(new, running)
    make_plan({**new, "vlan_pool_size": 2}, running)
    names = ["a", "n1", "n2", "n3"]  # As many as the subnet has room for.
    crowd = {**spec, "vms": machines(*names), "links": [{**spec["links"][0], "endpoints": names}]}
    with pytest.raises(SpecError, match=rf"links\[0\].*: no address of 10.0.0.0/29 {until} VM on it"):
        make_plan(crowd, running)
    names = ["a", "n1", "n2", "n3", "old"]
    wide = {"name": "lan", "endpoints": names, "subnet": "10.0.0.0/28"}
    narrow = {"name": "lan", "endpoints": ["a", "new"], "subnet": "10.0.0.0/29", "gateway": False}
    running = after(EMPTY, make_plan({**spec, "vms": machines(*names), "links": [wide]}))
    with pytest.raises(SpecError, match=r"server's address 10.0.0.6/29 is not free until .* VM \"old\" is gone"):
        make_plan({**new, "links": [narrow]}, running)


def test_the_servers_address_on_the_internet_vlan_goes_with_the_retired() -> None:
    running = after(EMPTY, make_plan(WEB))
    planned = make_plan(spec_with(vms=WEB["vms"][1:], links=[]), running)
    assert planned["slice"]["internet"] == running["slices"][0]["internet"]
    assert planned["hosts"]["network1"]["ports"] == [] and planned["hosts"]["network1"]["network"]["internet"] is None
    other = make_plan({**WEB, "name": "other"}, after(running, planned, status="failed"))["slice"]
    assert other["internet"] != running["slices"][0]["internet"]
    assert after(running, planned)["slices"][0]["internet"] is None


def test_all_or_nothing_admission() -> None:
    small = Room(2, 1024, 10**6)
    hosts = workers(2, room=small)
    make_plan(topology("line", 4), hosts=hosts, overcommit=Room(1, 1, 1))
    with pytest.raises(
        SpecError, match=r"vms\[4\].*no worker with room: worker1 lacks 1 core.*512 MB memory, worker2 lacks"
    ):
        spec = {"name": "lan", "vms": [{"name": f"vm{n}", "flavor": "cirros"} for n in range(5)]}
        make_plan(spec, hosts=hosts, overcommit=Room(1, 1, 1))


def test_unreachable_worker_gets_no_new_vms_and_is_named() -> None:
    planned = make_plan(topology("line", 4), hosts=workers(worker2="is unreachable"))
    assert {each["worker"] for each in planned["slice"]["vms"]} == {"worker1", "worker3"}
    assert planned["warnings"] == ["worker worker2 is unreachable: it gets no new VMs"]


def flavor(**changes: Any) -> list[dict[str, Any]]:
    return [*FLAVORS, {**FLAVORS[0], "name": "big", **changes}]


LAN_OF_FIVE = {"endpoints": [f"vm{n}" for n in range(1, 6)], "subnet": "10.0.0.0/29"}
BIG = spec_with(vms=[{"name": "a", "flavor": "big"}], links=[])


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (spec_with(nam="x"), {}, 'slice: unknown key "nam"|unknown key \'nam\' .did you mean "name"'),
        (spec_with(name=""), {}, "slice name '' must be"),
        (spec_with(name="a" * 33), {}, "must be 1 to 32"),
        (spec_with(name="a;rm"), {}, "slice name 'a;rm'"),
        (spec_with(vms=[{"name": "$(id)", "flavor": "cirros"}], links=[]), {}, r"vms\[0\]: name '\$\(id\)'"),
        (
            spec_with(vms=[{"name": "a", "flavour": "cirros"}]),
            {},
            r'vms\[0\] "a": unknown key .*did you mean "flavor"',
        ),
        (spec_with(vms=[{"name": "a"}]), {}, r'vms\[0\] "a": "flavor" is missing'),
        (spec_with(vms=[*WEB["vms"], WEB["vms"][0]]), {}, r'vms\[2\] "web": duplicate VM, vms\[0\]'),
        (spec_with(vms=[{"name": "a", "flavor": "windows"}], links=[]), {}, "there are: cirros, ubuntu"),
        (spec_with(links=[{"endpoints": ["web", "nope"]}]), {}, r'links\[0\]: there is no VM "nope"'),
        (spec_with(links=[{"endpoints": ["web:eth2", "db"]}]), {}, 'VM "web" has no interface eth2'),
        (spec_with(links=[{"endpoints": ["web:eth0", "db"]}]), {}, "eth0 is the management interface"),
        (spec_with(links=[{"endpoints": ["web", "db"]}] * 2), {}, 'VM "web" has no free data interface'),
        (
            spec_with(links=[{"endpoints": ["web:eth1", "db"]}, {"endpoints": ["db", "web:eth1"]}]),
            {},
            "web:eth1 is used twice",
        ),
        (spec_with(links=[{"endpoints": ["web:eth1", "web"]}]), {}, 'links VM "web" to itself'),
        (
            spec_with(links=[{"endpoints": ["web", "db"], "name": "dmz", "dhcp": False, "port_security": True}]),
            {},
            r'links\[0\] "dmz": port_security needs dhcp: ',
        ),
        (spec_with(links=[{"endpoints": ["web"]}]), {}, "two or more endpoints, not 1"),
        (
            topology("bus", 2, links=[{"endpoints": ["vm1", "vm2"]}] * 20),
            {},
            "21 links, but the slice's VLAN pool holds 20",
        ),
        (topology("ring", 2), {}, "a ring needs 3 or more VMs, not 2"),
        (topology("mesh", 1), {}, "a mesh needs 2 or more VMs"),
        (topology("mesh", 7), {}, "21 links, but the slice's VLAN pool holds 20"),
        (topology("ring", 10**9), {}, "vms must be at most"),
        (topology("ring", -1), {}, "a ring needs 3"),
        (
            spec_with(vms=[{"name": "a", "flavor": "cirros", "interfaces": -1}], links=[]),
            {},
            "interfaces must be 0 to 23",
        ),
        (BIG, {"flavors": flavor(cores=0)}, 'flavor "big": cores must be more than 0'),
        (BIG, {"flavors": flavor(memory_gb=-1)}, "memory_gb must be more than 0"),
        (BIG, {"flavors": flavor(disk_gb=0)}, "disk_gb must be more than 0"),
        (BIG, {"flavors": flavor(image="../etc/passwd")}, "must be a file name without a folder"),
        (BIG, {"flavors": flavor(disk_gb=0.01)}, "is smaller than its base image"),
        (
            BIG,
            {"flavors": flavor(image="gone.img")},
            "gone.img .*neither in /tmp/vm_images on the controller nor on worker1",
        ),
        (WEB, {"quota": 1}, "owner alice is over quota: 0 of 1 VMs in other slices, 2 wanted"),
        (
            spec_with(vms=[{"name": "a", "flavor": "cirros", "worker": "w9"}], links=[]),
            {},
            "worker 'w9' is not in the inventory",
        ),
        (
            spec_with(vms=[{"name": "a", "flavor": "cirros", "worker": "worker1"}], links=[]),
            {"hosts": workers(worker1="is unreachable")},
            r'vms\[0\] "a": worker worker1 is unreachable',
        ),
        (
            WEB,
            {"network_nodes": [NetworkNode("network1", "x", problem="is unreachable")]},
            "network node network1 is unreachable",
        ),
        (
            topology("line", 3, links=[{"endpoints": ["vm1", "vm3"], "subnet": "192.168.0.0/16"}]),
            {},
            r"subnet 192.168.10\d.0/24 overlaps 192.168.0.0/16 of links\[0\]",
        ),
        (
            spec_with(links=[{"endpoints": ["web", "db"], "subnet": "10.60.0.0/16"}]),
            {},
            "of links.0.; give|the internet VLAN",
        ),
        (spec_with(links=[{"endpoints": ["web", "db"], "subnet": "10.0.0.0/30"}]), {}, "must be between /8 and /29"),
        (topology("line", 5, links=[LAN_OF_FIVE]), {}, "subnet 10.0.0.0/29 has addresses for 4 guests, not 5"),
        (
            spec_with(links=[{"endpoints": ["web", "db"], "subnet": "10.0.0.1/24"}]),
            {},
            "did you mean 10.0.0.0/24",
        ),
        (
            spec_with(links=[{"endpoints": ["web", "db"], "subnet": "fe80::/64"}]),
            {},
            "must be an IPv4 network",
        ),
        (spec_with(vms="web"), {}, "vms must be a list"),
        (spec_with(vms=[], links=[]), {}, "no VMs"),
        (["web"], {}, "slice: must be a mapping"),
        (spec_with(owner="a b\n"), {}, "owner"),
    ],
)
def test_bad_input(spec: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        make_plan(spec, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worker": "worker3"}, "is on worker worker1, a VM is not moved"),
        ({"flavor": "other"}, "its disk is backed by cirros"),
        ({"flavor": "small"}, "of 1 GB can't shrink to 0.5 GB"),
    ],
)
def test_what_a_disk_that_exists_cannot_follow(change: dict[str, Any], message: str) -> None:
    flavors = [*FLAVORS, {**FLAVORS[0], "name": "small", "disk_gb": 0.5}, {**FLAVORS[1], "name": "other"}]
    registry = after(EMPTY, make_plan(WEB))
    spec = spec_with()
    spec["vms"][0].update(change)
    with pytest.raises(SpecError, match=message):
        make_plan(spec, registry, flavors=flavors)
    design = after(EMPTY, make_plan(WEB), status="design")
    assert make_plan(spec, design, flavors=flavors)["changed"]


def test_those_without_a_choice_are_placed_first() -> None:
    hosts = workers(2, room=Room(1, 512, 10**6))
    spec = {
        "name": "lan",
        "vms": [{"name": "a", "flavor": "cirros"}, {"name": "b", "flavor": "cirros", "worker": "worker1"}],
    }
    planned = make_plan(spec, hosts=hosts, overcommit=Room(1, 1, 1))
    assert [each["worker"] for each in planned["slice"]["vms"]] == ["worker2", "worker1"]


def test_a_link_is_never_moved_to_another_interface_in_silence() -> None:
    spec = {
        "name": "lan",
        "vms": [{"name": n, "flavor": "cirros"} for n in "abc"],
        "links": [{"endpoints": ["a", "b"]}],
    }
    running = after(EMPTY, make_plan(spec))
    taken = {**spec, "links": [*spec["links"], {"endpoints": ["a:eth1", "c"]}]}
    with pytest.raises(SpecError, match=r'links\[0\]: VM "a" is on this link by eth1, which a:eth1_c takes'):
        make_plan(taken, running)
    fewer = {**spec, "vms": [{"name": "a", "flavor": "cirros", "interfaces": 0}, *spec["vms"][1:]]}
    with pytest.raises(SpecError, match=r"is on this link by eth1, but has interfaces: 0"):
        make_plan(fewer, running)


def test_what_is_left_out_later_keeps_its_size() -> None:
    wide = after(EMPTY, make_plan(topology("mesh", 8, vlan_pool_size=40)))
    assert make_plan(topology("mesh", 8), wide)["changed"] is False
    narrow = after(EMPTY, make_plan(topology("line", 2, vlan_pool_size=5)))
    assert make_plan(topology("line", 2), narrow)["slice"]["vlan_pool"]["size"] == 5


def test_a_lowered_quota_takes_nothing_away() -> None:
    running = after(EMPTY, make_plan(WEB, quota=2))
    assert make_plan(WEB, running, quota=1)["changed"] is False
    with pytest.raises(SpecError, match="owner alice is over quota: 0 of 1"):
        make_plan(spec_with(vms=[*WEB["vms"], {"name": "x", "flavor": "cirros"}]), running, quota=1)


def test_a_delete_that_died_can_be_deployed_again_with_the_same_numbers() -> None:
    first = make_plan(WEB)
    again = make_plan(WEB, after(EMPTY, first, status="deleting"))
    assert {**again["slice"], "status": ""} == {**first["slice"], "status": ""}


def test_a_registry_that_is_behind_its_hosts_is_not_planned_from() -> None:
    node = NetworkNode("network1", "10.0.10.4", stamps=[Stamp("", "", "slice-1000", 1000)])
    with pytest.raises(SpecError, match=r"network1 carries slice-1000 with ID 1000, .* rebuild_registry"):
        make_plan(WEB, network_nodes=[node])
    assert make_plan(WEB, after(EMPTY, make_plan(WEB)), network_nodes=[node])["changed"] is False


def test_a_worker_that_comes_back_with_vms_of_the_slice_loses_them() -> None:
    first = make_plan(WEB)
    [idle] = {host.name for host in workers()} - {vm["worker"] for vm in first["slice"]["vms"]}
    stamps = [Stamp("web", "db", "VM web/db", 900), Stamp("other", "x", "VM other/x", 901)]
    again = make_plan(WEB, after(EMPTY, first), [replace(host, stamps=stamps) for host in workers()])
    shares = again["hosts"]
    [home] = [vm["worker"] for vm in first["slice"]["vms"] if vm["name"] == "db"]
    assert {name: share["retired"] for name, share in shares.items() if name != "network1"} == {
        name: [] if name == home else [{"name": "db"}] for name in ("worker1", "worker2", "worker3")
    }
    assert shares[idle] == {**nothing(), "retired": [{"name": "db"}]}
    assert not again["changed"]
    assert f"worker {idle} carries something of other, which the registry does not know" in "\n".join(again["warnings"])
