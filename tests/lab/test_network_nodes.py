# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two network nodes: slices are spread over them, and each serves only its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .packets import lab_run, stations_of
from .test_playbooks import slices_in

REGISTRY = "/var/lib/cloudrepo/registry/slices.sqlite"
NODES = Path(__file__).parent / "two_network_nodes"
NAMES = ("north", "south", "third")
INVENTORY = ["-i", str(NODES / "hosts.yml")]


def spec(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "owner": "nodes",
        "vms": [{"name": "a", "flavor": "cirros", "internet": True}, {"name": "b", "flavor": "cirros"}],
        "links": [{"endpoints": ["a", "b"]}],
    }


@pytest.fixture(scope="module")
def play(run_playbook: Any) -> Iterator[Any]:
    """Runs a playbook in a lab with a second network node."""

    def run(name: str, *args: str, rc: int = 0, **extravars: Any) -> Any:
        played = run_playbook(name, *INVENTORY, *args, **extravars)
        assert played.rc == rc, played.output
        return played

    reach_the_internet()
    more = run_playbook("lab_up", "-e", f"@{NODES / 'lab.yml'}")
    assert more.rc == 0, more.output
    try:
        reach_the_internet()
        run("prepare_hosts")
        yield run
    finally:
        for name in NAMES:
            run_playbook("delete_slice", *INVENTORY, slice=name)
        reach_the_internet()
        fewer = run_playbook("lab_up")
    assert fewer.rc == 0, fewer.output
    reach_the_internet()


def reach_the_internet() -> None:
    """With the first packet: what it is reached by must not be another one once an uplink comes or goes."""
    lab_run("network1", "ping", "-c", "1", "-W", "2", "203.0.113.1")


def namespaces(host: str) -> set[str]:
    return {line.split()[0] for line in lab_run(host, "ip", "netns", "list").splitlines()}


def test_each_slice_is_on_one_node_and_stays_there(play: Any, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        play("deploy_slice", slice_spec=spec(name), slices_wait_for_leases=True)
    records = slices_in(play("show_slices", output="json").output)
    assert [records[name]["network_node"] for name in NAMES[:2]] == ["network1", "network2"]
    for name, host in zip(NAMES, ("network1", "network2"), strict=False):
        assert namespaces(host) == {f"slice-{records[name]['id']}"}
        guests = {station.name: station for station in stations_of(records[name])}
        peer, internet = records[name]["vms"][1]["interfaces"][1]["address"].partition("/")[0], "203.0.113.1"
        pings = {address: f"ping -c 1 -W 5 {address}" for address in (peer, internet)}
        assert guests["a"].passing(pings) == {peer, internet}
    audited = play("audit_slices", probe=True)
    assert "nothing off" in audited.output

    # Whatever comes first in the inventory now.
    reverse = yaml.safe_load((NODES / "hosts.yml").read_text())
    reverse["network_node"]["hosts"] = dict(reversed(reverse["network_node"]["hosts"].items()))
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(reverse, sort_keys=False))
    (tmp_path / "group_vars").symlink_to((NODES / "group_vars").resolve())
    again = play(
        "deploy_slice", "-i", str(tmp_path / "hosts.yml"), slice_spec=spec("north"), slices_registry_host="network1"
    )
    assert again.total("changed") == 0, again.output


def test_without_its_node_a_slice_is_not_touched_and_others_go_on(play: Any) -> None:
    refused = play("deploy_slice", "--limit", "all,!network2", rc=2, slice_spec=spec("south"))
    assert "network node network2 is not part of this run (--limit?)" in refused.output
    refused = play("delete_slice", "--limit", "all,!network2", rc=2, slice="south")
    assert "has parts on network2" in refused.output
    other = play("deploy_slice", "--limit", "all,!network2", slice_spec=spec("north"))
    assert other.total("changed") == 0, other.output
    new = play("deploy_slice", "--limit", "all,!network2", slice_spec=spec("third"), output="json")
    assert "network node network2 is not part of this run (--limit?): it gets no new slices" in new.output
    assert slices_in(new.output)["third"]["network_node"] == "network1"


def test_two_gateways_on_one_vlan_are_refused(play: Any) -> None:
    refused = play("deploy_slice", rc=2, slice_spec=spec("south"), slices_internet_vlan=400)
    assert "network nodes network1 and network2 both have internet VLAN 400" in refused.output


def test_a_lost_registry_knows_each_slices_node_again(play: Any, run_module: Any) -> None:
    def registry() -> dict[str, Any]:
        read = run_module("network1", "slice_registry", {})["registry"]
        return {key: value for key, value in read.items() if key != "revision"}

    before = registry()
    run_module("network1", "ansible.builtin.file", {"path": REGISTRY, "state": "absent"})
    play("rebuild_registry")
    assert registry() == before
    assert {record["name"]: record["network_node"] for record in before["slices"]}["south"] == "network2"


def test_a_delete_cleans_its_own_node_only(play: Any) -> None:
    shared = namespaces("network1")
    play("delete_slice", slice="south")
    assert namespaces("network2") == set()
    assert "gw_vlan401" not in lab_run("network2", "ip", "-o", "link")
    assert namespaces("network1") == shared != set()
    assert "nothing off" in play("audit_slices").output
