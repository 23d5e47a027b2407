# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts carry is the registry again, whatever was deployed; and what contradicts itself is said by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_recovery import rebuild as store
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._rebuild import Host, RebuildError, Rebuilt, rebuild
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, Settings
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._shares import host_shares
from hypothesis import given, settings
from hypothesis import strategies as st

from ..records import small, web
from .clusters import EMPTY, NETWORK_NODE, WEB, after, make_plan, workers
from .test_planning_properties import deploy_all, histories

CLUSTER = Cluster(workers(), [NETWORK_NODE])
Hosts = dict[str, Host]


def hosts_with(*records: dict[str, Any]) -> Hosts:
    """What the hosts carry once these slices were deployed."""
    hosts = {
        host.name: Host(host.name, host.address, {"vms": [], "ports": [], "taps": [], "guests": [], "namespaces": []})
        for host in [*CLUSTER.workers, *CLUSTER.network_nodes]
    }
    for record in records:
        for name, share in host_shares(record, CLUSTER, Settings()).items():
            stamps = hosts[name].stamps
            for vm in share["vms"]:
                # As a manifest: what JSON can't hold is no use.
                part = json.loads(json.dumps(vm["record"]))
                stamps["vms"].append({"slice": record["name"], "name": vm["name"], "record": part})
            for port in share["ports"]:
                if port["vlan"] is not None:
                    stamps["ports"].append(stamped(record, port))
                if port["type"] == "tap":
                    stamps["taps"].append({"name": port["name"], "slice": record["name"], "vm": port["vm"]})
            for guest in share["network"]["names"] if share["network"] else ():
                stamps["guests"].append({"slice": record["name"], "name": guest["name"]})
    return hosts


def stamped(record: dict[str, Any], port: dict[str, Any]) -> dict[str, Any]:
    stamp = {"slice": record["name"], "slice_id": record["id"], "owner": record["owner"], "vm": port.get("vm")}
    return {"name": port["name"], "vlan": port["vlan"], **stamp, "vlan_pool": record["vlan_pool"]}


def rebuilt(hosts: Hosts) -> Rebuilt:
    return rebuild(hosts.values())


def stamps(hosts: Hosts, host: str, kind: str, **which: Any) -> list[Any]:
    return [each for each in hosts[host].stamps[kind] if which.items() <= each.items()]


@given(histories(), st.integers(1000, 70000))
@settings(deadline=None, max_examples=50)
def test_what_was_deployed_is_restored(history: list[dict[str, Any]], next_id: int) -> None:
    registry = deploy_all(history, next_id)

    found = rebuilt(hosts_with(*registry["slices"]))

    assert found.records == registry["slices"]
    assert found.warnings == []
    ids = [number for each in registry["slices"] for number in [each["id"], *(vm["id"] for vm in each["vms"])]]
    assert max(ids) < found.next_id <= registry["next_id"]
    # The registry takes it, and the planner finds nothing to change in it.
    stored = store("/nonexistent/registry", found.records, found.next_id, found.last_worker, write=False)
    assert stored.after["slices"] == registry["slices"]


def test_the_counters_are_restored_while_the_newest_vm_is_there() -> None:
    registry = after(EMPTY, make_plan(WEB))

    found = rebuilt(hosts_with(*registry["slices"]))

    assert (found.next_id, found.last_worker) == (registry["next_id"], registry["last_worker"])


def test_whatever_is_appended_changes_no_other_vms_part() -> None:
    spec = copy.deepcopy(WEB)
    spec["vms"][0]["internet"] = False
    before = make_plan(spec)
    spec["vms"][1]["interfaces"] = 2
    spec["vms"].append({"name": "new", "flavor": "cirros", "internet": True})
    spec["links"].append({"endpoints": ["new", "db"]})

    now = make_plan(spec, after(EMPTY, before))

    def parts(planned: dict[str, Any]) -> dict[str, Any]:
        return {vm["name"]: vm["record"] for share in planned["hosts"].values() for vm in share["vms"]}

    assert parts(now)["web"] == parts(before)["web"]
    assert [link["number"] for link in parts(now)["db"]["links"]] == [1, 2]


def without(record: dict[str, Any], name: str) -> Hosts:
    """Hosts on which one VM was not started: its disk, its TAPs and ports are there."""
    hosts = hosts_with(record)
    for host in hosts.values():
        for vm in host.stamps["vms"]:
            if vm["name"] == name:
                vm["record"] = None
    return hosts


def test_a_slice_with_a_lost_manifest_has_failed_and_keeps_its_numbers() -> None:
    [record] = rebuilt(without(web(), "db")).records

    assert record["status"] == "failed"
    assert (
        record["reason"].startswith("rebuilt from the hosts: ") and "1 VMs without a manifest (db)" in record["reason"]
    )
    assert (record["id"], record["owner"], record["vlan_pool"]) == (1000, "alice", {"first": 100, "size": 20})
    first, second = record["vms"]
    assert first == web()["vms"][0]
    # Its worker is known, so that delete_slice goes there.
    assert (second["id"], second["name"], second["worker"], second["retired"]) == (1002, "db", "worker2", True)
    registered = store("/nonexistent/registry", [record], 1003, "worker2", write=False).after
    assert registered["slices"] == [record]


def test_a_slice_of_which_only_ports_and_disks_are_left_can_be_deleted() -> None:
    hosts = hosts_with(web(), small("b", 1010, 200))
    for host in hosts.values():
        for vm in host.stamps["vms"]:
            vm["record"] = None if vm["slice"] == "web" else vm["record"]
        host.stamps["taps"][:] = [tap for tap in host.stamps["taps"] if tap["vm"] != "db"]

    found = rebuilt(hosts)

    [record, other] = found.records
    assert other == {**small("b", 1010, 200), "status": "running", "has_run": True}
    assert (record["id"], record["owner"], record["status"]) == (1000, "alice", "failed")
    assert "2 VMs without a manifest (db, web)" in record["reason"]
    # What no TAP tells is given anew.
    assert [(vm["name"], vm["id"], vm["worker"]) for vm in record["vms"]] == [
        ("db", 1012, "worker2"),
        ("web", 1001, "worker1"),
    ]
    assert found.next_id == 1013
    assert store("/nonexistent/registry", found.records, 1013, "", write=False).after["slices"] == found.records


def test_a_disk_alone_is_only_warned_of() -> None:
    hosts = hosts_with()
    hosts["worker2"].stamps["vms"].append({"slice": "old", "name": "a", "record": None})

    found = rebuilt(hosts)

    assert found.records == []
    [warning] = found.warnings
    assert "old: what is left of it on worker2 does not tell its ID, owner and VLANs, so it is left out" in warning


def test_no_id_on_any_host_is_given_out_again() -> None:
    hosts = hosts_with(web())
    hosts["network1"].stamps["namespaces"].append({"name": "slice-1234", "slice_id": 1234})

    assert rebuilt(hosts).next_id == 1235


def test_half_of_a_change_is_no_running_slice() -> None:
    """A redeploy that died: one worker has the new record, the other the old one."""
    new = web()
    new["links"][0].update(number=2, name="lan")
    new["vms"][0]["interfaces"][1]["link"] = 2
    hosts = hosts_with(web())
    hosts["worker1"] = hosts_with(new)["worker1"]

    [record] = rebuilt(hosts).records

    assert record["status"] == "failed" and "VLAN 100 twice" in record["reason"]
    assert [vm["interfaces"][1]["link"] for vm in record["vms"]] == [None, None]
    assert [vm["id"] for vm in record["vms"]] == [1001, 1002]


def twice(hosts: Hosts) -> None:
    hosts["worker3"].stamps["vms"].extend(stamps(hosts, "worker1", "vms", name="web"))


def in_the_wrong_folder(hosts: Hosts) -> None:
    stamps(hosts, "worker1", "vms", name="web")[0]["slice"] = "b"


def with_two_ids(hosts: Hosts) -> None:
    stamps(hosts, "worker2", "vms", name="db")[0]["record"]["slice"]["id"] = 1001


def with_an_id_of_another(hosts: Hosts) -> None:
    stamps(hosts, "worker1", "vms", slice="b")[0]["record"]["slice"]["id"] = 1000


def with_a_pool_of_another(hosts: Hosts) -> None:
    stamps(hosts, "worker1", "vms", slice="b")[0]["record"]["slice"]["vlan_pool"]["first"] = 118


def with_a_port_in_another_pool(hosts: Hosts) -> None:
    stamps(hosts, "network1", "ports", name="gw_vlan100")[0]["vlan"] = 200


def with_anything_in_the_manifest(hosts: Hosts) -> None:
    stamps(hosts, "worker1", "vms", name="web")[0]["record"] = {"slice": "web"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (twice, "VM web of slice web on worker3: there is one on worker1 too"),
        (in_the_wrong_folder, "VM web of slice b on worker1: its manifest is that of VM web of slice web"),
        (with_two_ids, r"slice web has ID 1000 \(VM web .* worker1\) and ID 1001 \(VM db .* worker2\)"),
        (with_an_id_of_another, r"slices web \(.* on worker1\) and b \(.* on worker1\) both have ID 1000"),
        (with_a_pool_of_another, r"VLAN 118 is that of slice web \(.*\) and of b \(.*\)"),
        (with_a_port_in_another_pool, "port gw_vlan100 of slice web on network1 is on VLAN 200, .* slice b "),
        (with_anything_in_the_manifest, "VM web of slice web on worker1: its manifest does not hold"),
    ],
)
def test_contradictions_name_both_sides(spoil: Callable[[Hosts], None], message: str) -> None:
    hosts = hosts_with(web(), small("b", 1010, 200))
    spoil(hosts)

    with pytest.raises(RebuildError, match=message):
        rebuilt(hosts)


def test_a_slice_is_on_the_network_node_that_carries_it() -> None:
    hosts = hosts_with(web())
    assert rebuilt(hosts).records[0]["network_node"] == "network1"
    hosts["worker2"].stamps["namespaces"].append({"slice_id": web()["id"]})
    assert rebuilt(hosts).records[0]["network_node"] == "worker2"
    # Manifests from before there could be several, of a slice without a namespace.
    hosts = hosts_with(web())
    for host in hosts.values():
        for vm in host.stamps["vms"]:
            del vm["record"]["slice"]["network_node"]
    assert rebuilt(hosts).records[0]["network_node"] == ""
