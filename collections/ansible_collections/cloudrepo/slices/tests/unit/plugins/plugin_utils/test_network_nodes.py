# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several network nodes: each slice is wholly on one of them, and stays there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._audit_shares import all_shares
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import (
    Cluster,
    NetworkNode,
    Settings,
    parse_network_node,
)

from .clusters import EMPTY, WEB, after, make_plan, workers

NODES = (
    NetworkNode("north", "10.0.10.4"),
    NetworkNode("south", "10.0.10.5", internet_vlan=401, internet_subnet="10.60.8.0/24"),
)


def plan(name: str, registry: dict[str, Any], nodes: tuple[NetworkNode, ...] = NODES) -> dict[str, Any]:
    return make_plan({**WEB, "name": name}, registry, network_nodes=nodes)


def deployed(*names: str, nodes: tuple[NetworkNode, ...] = NODES) -> dict[str, Any]:
    registry = EMPTY
    for name in names:
        registry = after(registry, plan(name, registry, nodes))
    return {**registry, "holds": []}


def where(registry: dict[str, Any]) -> dict[str, str]:
    return {record["name"]: record["network_node"] for record in registry["slices"]}


def test_slices_go_where_the_fewest_are() -> None:
    registry = deployed("a", "b", "c")
    assert where(registry) == {"a": "north", "b": "south", "c": "north"}
    registry["slices"] = [record for record in registry["slices"] if record["name"] == "b"]
    assert plan("d", registry)["slice"]["network_node"] == "north"


def test_a_slice_stays_where_it_is() -> None:
    registry = deployed("a", "b", "c")
    registry["slices"] = [record for record in registry["slices"] if record["name"] != "b"]
    # However crowded it is there, and whatever comes first in the inventory now.
    again = plan("c", registry, NODES[::-1])
    assert (again["changed"], again["slice"]["network_node"]) == (False, "north")
    assert [name for name, share in again["hosts"].items() if share["network"]] == ["north"]


def test_each_node_has_its_own_way_to_the_internet() -> None:
    registry = deployed("a", "b")
    vlans = [record["vms"][0]["interfaces"][0]["vlan"] for record in registry["slices"]]
    addresses = [record["vms"][0]["interfaces"][0]["address"] for record in registry["slices"]]
    servers = [record["internet"]["server_address"] for record in registry["slices"]]
    assert (vlans, addresses) == ([400, 401], ["10.60.7.10/24", "10.60.8.10/24"])
    assert servers == ["10.60.7.254/24", "10.60.8.254/24"]
    # Neither VLAN is in anybody's pool.
    wide = make_plan({**WEB, "name": "wide", "vlan_pool_size": 200}, registry, network_nodes=NODES)
    first = wide["slice"]["vlan_pool"]["first"]
    assert not {400, 401} & {*range(first, first + 200)}
    share = plan("b", registry)["hosts"]["south"]
    (port,) = [port for port in share["ports"] if port["name"].startswith("inet_")]
    assert (port["vlan"], port["gateway"]) == (401, "10.60.8.1")
    assert share["network"]["internet"]["protected_addresses"] == [f"10.0.10.{n}" for n in range(1, 6)]


def test_two_gateways_on_one_vlan_are_refused() -> None:
    nodes = (NODES[0], replace(NODES[1], internet_vlan=None))
    with pytest.raises(SpecError, match="network nodes north and south both have internet VLAN 400: set slices_int"):
        plan("a", EMPTY, nodes)


def test_a_node_that_is_gone_takes_no_new_slice_and_keeps_its_own() -> None:
    registry = deployed("a", "b")
    nodes = (replace(NODES[0], problem="is unreachable"), NODES[1])
    new = plan("c", registry, nodes)
    assert new["slice"]["network_node"] == "south"
    assert new["warnings"] == ["network node north is unreachable: it gets no new slices"]
    assert plan("b", registry, nodes)["changed"] is False
    with pytest.raises(SpecError, match=r"^network node north is unreachable$"):
        plan("a", registry, nodes)
    with pytest.raises(SpecError, match=r"^network node south is not in the inventory$"):
        plan("b", registry, NODES[:1])


def test_a_registry_from_before_has_its_slices_on_the_first_node() -> None:
    registry = deployed("a", nodes=NODES[:1])
    registry["slices"][0]["network_node"] = ""
    again = plan("a", registry)
    assert again["slice"]["network_node"] == "north"
    assert plan("b", registry)["slice"]["network_node"] == "south"


def test_the_audit_expects_each_slice_on_its_own_node() -> None:
    cluster = Cluster(workers(), NODES)
    shares = all_shares(deployed("a", "b"), cluster, Settings(), None, 0)
    present = {
        host: [share["name"] for share in shares["hosts"][host] if share["present"]] for host in ("north", "south")
    }
    assert present == {"north": ["a"], "south": ["b"]}
    assert [network["slice"] for network in shares["probes"]["south"]] == ["b"]
    assert {network["vlan"] for network in shares["probes"]["worker1"] if network["name"] == "internet"} <= {400, 401}

    shares = all_shares(deployed("a", "b"), Cluster(workers(), NODES[:1]), Settings(), None, 0)
    assert [finding["message"] for finding in shares["findings"]] == ["is not in the inventory and has its gateways"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"internet_vlan": 5000}, "network node south: slices_internet_vlan: a VLAN is 1 to"),
        ({"internet_vlan": "many"}, "network node south: slices_internet_vlan"),
        ({"internet_subnet": "10.60.8.0/33"}, "network node south: slices_internet_subnet"),
    ],
)
def test_what_the_inventory_says_of_a_node_is_checked(own: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_network_node({"name": "south", "address": "10.0.10.5", **own})
