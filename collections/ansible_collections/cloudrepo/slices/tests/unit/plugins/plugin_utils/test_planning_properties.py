# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds of every plan, over random specs and random histories of a registry."""

from __future__ import annotations

from typing import Any

from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from hypothesis import event, given, settings
from hypothesis import strategies as st
from netaddr import IPNetwork

from .clusters import EMPTY, after, make_plan

RESERVED = (130, 131, 2000)
# A pool that can't grow is refused, and tested elsewhere: each slice stays with its size.
# They hold eight links beside those of VMs that are no longer wanted; one that can't is refused, tested elsewhere too.
POOL_SIZES = {"red": None, "green": 16, "blue": 20, "grey": 33}
VM_NAMES = [f"n{number}" for number in range(7)]


@st.composite
def specs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A spec that is valid: any VMs, any LANs among them, any options."""
    names = draw(st.lists(st.sampled_from(VM_NAMES), min_size=1, max_size=7, unique=True))
    vms = [
        {"name": vm, "flavor": draw(st.sampled_from(["cirros", "ubuntu"])), "internet": draw(st.booleans())}
        for vm in names
    ]
    ends = st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True)
    links = draw(st.lists(ends, max_size=8)) if len(names) > 1 else []
    return {
        "name": name,
        "vms": vms,
        "links": [{"endpoints": link, "dhcp": draw(st.booleans()), "gateway": draw(st.booleans())} for link in links],
        "vlan_pool_size": POOL_SIZES[name],
    }


def histories() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Specs to deploy one after the other; equal names are redeployments of a changed spec."""
    return st.lists(st.sampled_from(list(POOL_SIZES)).flatmap(specs), min_size=1, max_size=8)


def deploy_all(history: list[dict[str, Any]], next_id: int) -> dict[str, Any]:
    registry = {**EMPTY, "next_id": next_id}
    for spec in history:
        changed = {**spec, "vms": [_same_disk(vm, spec["name"], registry) for vm in spec["vms"]]}
        registry = after(registry, make_plan(changed, registry, reserved_vlans=RESERVED))
    return registry


def _same_disk(vm: dict[str, Any], name: str, registry: dict[str, Any]) -> dict[str, Any]:
    """A VM whose disk exists keeps its flavor; changing it is refused, and tested elsewhere."""
    for record in registry["slices"]:
        for old in record["vms"]:
            if record["name"] == name and old["name"] == vm["name"]:
                return {**vm, "flavor": old["flavor"]}
    return vm


@st.composite
def wild_specs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A spec with everything a user can write, right or wrong: it is planned, or refused."""
    names = draw(st.lists(st.sampled_from(VM_NAMES), min_size=1, max_size=5, unique=True))
    ends = st.builds(
        lambda vm, index: f"{vm}:eth{index}" if index else vm,
        st.sampled_from(names),
        st.sampled_from([0, 0, 0, 1, 2, 3]),
    )
    vms = [
        {
            "name": vm,
            "flavor": "cirros",
            "internet": draw(st.booleans()),
            "interfaces": draw(st.sampled_from([None, None, 3, 5])),
            "worker": draw(st.sampled_from([None, None, "worker1", "worker2"])),
            "default_route": draw(st.sampled_from([None, None, None, "eth1"])),
        }
        for vm in names
    ]
    links = [
        {
            "endpoints": draw(st.lists(ends, min_size=2, max_size=3, unique=True)),
            "name": draw(st.sampled_from([None, f"lan{number}"])),
            "subnet": draw(st.sampled_from([None, None, f"10.{number}.0.0/24", f"10.{number}.0.0/28"])),
            "dhcp": draw(st.booleans()),
            "gateway": draw(st.booleans()),
        }
        for number in range(draw(st.integers(0, 3)))
    ]
    shape = draw(st.sampled_from([None, None, "ring", "mesh", "bus", "tree"]))
    topology = {"type": shape, "vms": 3, "flavor": "ubuntu"} if shape else None
    return {"name": name, "vms": vms, "links": links, "topology": topology}


def assert_kept(before: dict[str, Any], now: dict[str, Any], spec: dict[str, Any]) -> None:
    """Everything that both records have, by name, has the numbers that it had."""
    vms = {vm["name"]: vm for vm in now["vms"]}
    links = {link["name"]: link for link in now["links"]}
    # A number that a removed link had may be that of another one now.
    same_links = {(link["number"], links[link["name"]]["number"]) for link in before["links"] if link["name"] in links}
    for vm in before["vms"]:
        if vm["name"] in vms:
            kept = vms[vm["name"]]
            assert (kept["id"], kept["vnc_port"], kept["worker"]) == (vm["id"], vm["vnc_port"], vm["worker"])
            for old, new in zip(vm["interfaces"], kept["interfaces"], strict=False):
                assert (old["name"], old["mac"], old["tap"]) == (new["name"], new["mac"], new["tap"])
                same_link = (old["link"], new["link"]) in same_links
                if same_link and old["address"] and new["address"]:
                    same_subnet = old["address"].rpartition(".")[0] == new["address"].rpartition(".")[0]
                    assert (
                        old["address"] == new["address"] or not same_subnet or "/28" in old["address"] + new["address"]
                    )
    ends = [end for link in spec["links"] for end in link["endpoints"]]
    # Who writes an interface may write another one than before.
    bare = {end for end in ends if ":" not in end} - {end.partition(":")[0] for end in ends if ":" in end}
    for link in before["links"]:
        if link["name"] in links:
            kept = links[link["name"]]
            assert (kept["number"], kept["vlan"]) == (link["number"], link["vlan"])
            held = {end["vm"]: end["interface"] for end in link["endpoints"]}
            for end in kept["endpoints"]:
                assert end["vm"] not in held or end["vm"] not in bare or held[end["vm"]] == end["interface"]


def unique(values: list[Any]) -> bool:
    return len(values) == len(set(values))


@settings(max_examples=100, deadline=None)
@given(history=histories(), next_id=st.sampled_from([1000, 1013, 1095, 65530, 123456]))
def test_nothing_is_given_out_twice(history: list[dict[str, Any]], next_id: int) -> None:
    assert_unique(deploy_all(history, next_id)["slices"])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), names=st.lists(st.sampled_from(["red", "blue"]), min_size=1, max_size=6))
def test_whatever_is_written_is_refused_in_one_line_or_keeps_what_was(data: st.DataObject, names: list[str]) -> None:
    registry = EMPTY
    for name in names:
        spec = data.draw(wild_specs(name))
        try:
            planned = make_plan(spec, registry, reserved_vlans=RESERVED)
        except SpecError as error:
            assert "\n" not in str(error)
            event("refused")
            continue
        event("planned")
        before = next((record for record in registry["slices"] if record["name"] == name), None)
        if before:
            assert_kept(before, planned["slice"], spec)
        registry = after(registry, planned)
        assert_unique(registry["slices"])


def assert_unique(slices: list[dict[str, Any]]) -> None:
    vms = [vm for record in slices for vm in record["vms"]]
    interfaces = [interface for vm in vms for interface in vm["interfaces"]]
    links = [link for record in slices for link in record["links"]]
    pools = [
        vlan
        for record in slices
        for vlan in range(record["vlan_pool"]["first"], record["vlan_pool"]["first"] + record["vlan_pool"]["size"])
    ]
    assert unique(pools) and not {400, *RESERVED} & set(pools) and set(pools) <= set(range(100, 4095))
    assert unique([record["id"] for record in slices] + [vm["id"] for vm in vms])
    assert unique([link["vlan"] for link in links]) and {link["vlan"] for link in links} <= set(pools)
    assert unique([vm["vnc_port"] for vm in vms]) and all(vm["vnc_port"] >= 5901 for vm in vms)
    assert unique([interface["mac"] for interface in interfaces])
    assert unique([interface["tap"] for interface in interfaces])
    assert all(len(interface["tap"]) <= 15 for interface in interfaces)
    servers = [record["internet"]["server_address"] for record in slices if record["internet"]]
    addresses = [(i["vlan"], i["address"]) for i in interfaces if i["address"]] + [(400, server) for server in servers]
    assert unique(addresses) and (400, "10.60.7.1/24") not in addresses


@settings(max_examples=100, deadline=None)
@given(history=histories())
def test_every_interface_fits_its_link(history: list[dict[str, Any]]) -> None:
    for record in deploy_all(history, 1000)["slices"]:
        links = {link["number"]: link for link in record["links"]}
        ends = {(end["vm"], end["interface"], link["number"]) for link in record["links"] for end in link["endpoints"]}
        wired = {
            (vm["name"], i["name"], i["link"])
            for vm in record["vms"]
            for i in vm["interfaces"]
            if i["link"] is not None
        }
        assert ends == wired
        for vm in record["vms"]:
            routed = [i for i in vm["interfaces"] if i["default_route"]]
            assert len(routed) <= 1
            assert not vm["interfaces"][0]["vlan"] or routed == [vm["interfaces"][0]]
            for interface in vm["interfaces"][1:]:
                link = links.get(interface["link"])
                assert interface["vlan"] == (link["vlan"] if link else None)
                assert bool(interface["address"]) == bool(link and link["dhcp"])
                if interface["address"]:
                    network = IPNetwork(interface["address"])
                    assert str(network.cidr) == link["subnet"] and interface["address"] != link["server_address"]
                    assert 10 <= int(network.ip) - network.first <= 250


@settings(max_examples=100, deadline=None)
@given(history=histories())
def test_an_unchanged_spec_changes_nothing(history: list[dict[str, Any]]) -> None:
    registry = deploy_all(history, 1000)
    spec = history[-1]
    spec = {**spec, "vms": [_same_disk(vm, spec["name"], registry) for vm in spec["vms"]]}
    again = make_plan(spec, registry, reserved_vlans=RESERVED)
    assert again["changed"] is False and again["next_id"] == registry["next_id"]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), spec=specs("red"))
def test_adding_a_vm_and_a_link_renumbers_nothing(data: st.DataObject, spec: dict[str, Any]) -> None:
    registry = after(EMPTY, make_plan(spec))
    vm_at = data.draw(st.integers(0, len(spec["vms"])))
    link_at = data.draw(st.integers(0, len(spec["links"])))
    names = [vm["name"] for vm in spec["vms"]]
    other = data.draw(st.sampled_from(names))
    grown = {
        **spec,
        "vlan_pool_size": 40,
        "vms": [
            *spec["vms"][:vm_at],
            {"name": "new", "flavor": "cirros", "internet": True},
            *spec["vms"][vm_at:],
        ],
        "links": [*spec["links"][:link_at], {"endpoints": ["new", other]}, *spec["links"][link_at:]],
    }
    before = registry["slices"][0]
    planned = make_plan(grown, registry)["slice"]
    kept = {vm["name"]: vm for vm in planned["vms"]}
    for vm in before["vms"]:
        now = kept[vm["name"]]
        # A new link adds an interface at the end; all that was there stays as it was.
        assert {**now, "interfaces": now["interfaces"][: len(vm["interfaces"])]} == {
            **vm,
            "interfaces": [
                {**i, "default_route": n["default_route"]}
                for i, n in zip(vm["interfaces"], now["interfaces"], strict=False)
            ],
        }
        had_route = any(i["default_route"] for i in vm["interfaces"])
        assert not had_route or now["interfaces"][: len(vm["interfaces"])] == vm["interfaces"]
    after_links = {link["name"]: link for link in planned["links"]}
    assert all(after_links[link["name"]] == link for link in before["links"])
