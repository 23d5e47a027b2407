# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user can get wrong: one clear line that names the item, an exit code, and nothing changed anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CIRROS = {"flavor": "cirros"}


def spec(*names: str, links: list[Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {"name": "bad", "vms": [{"name": name, **CIRROS} for name in names], "links": links or [], **keys}


def link(*endpoints: str, **keys: Any) -> dict[str, Any]:
    return {"endpoints": list(endpoints), **keys}


def topology(shape: str, count: Any) -> dict[str, Any]:
    return {"name": "bad", "topology": {"type": shape, "vms": count, "flavor": "cirros"}}


def flavor(**keys: Any) -> dict[str, Any]:
    size = {"name": "own", "cores": 1, "memory_gb": 0.5, "disk_gb": 1, "image": "cirros-0.6.2-x86_64-disk.img"}
    return {
        "slice_spec": {"name": "bad", "vms": [{"name": "a", "flavor": "own"}]},
        "slices_flavors": [{**size, **keys}],
    }


def inline(value: Any, **extra: Any) -> dict[str, Any]:
    return {"slice_spec": value, **extra}


CASES = {
    "no slice": ({}, "which slice"),
    "no such file": ({"slice": "nope"}, r"slice nope: there is no spec .*/nope.yml \(there are: .*web"),
    "path in the name": ({"slice": "../../etc/passwd"}, r"slice '../../etc/passwd' must be 1 to 32"),
    "shell in the name": ({"slice": "web;reboot"}, "slice 'web;reboot' must be"),
    "name differs": (inline({**spec("a"), "name": "red"}, slice="blue"), 'name "red" differs from .* "blue"'),
    "not YAML": (inline("vms: [a, {b"), "slice_spec is not YAML: .*line 1"),
    "not a mapping": (inline("[1, 2]"), "slice_spec must be a mapping"),
    "unknown key": (inline({**spec("a"), "topolgy": {}}), 'unknown key .topolgy. .did you mean "topology"'),
    "empty name": (inline(spec("", "b")), r"vms\[0\]: name '' must be 1 to 32"),
    "long name": (inline(spec("x" * 33)), r"vms\[0\]: name 'x+' must be 1 to 32"),
    "shell in a VM's name": (inline(spec("$(reboot)")), r"vms\[0\]: name '\$\(reboot\)' must be"),
    "duplicate VM": (inline(spec("a", "b", "a")), r'vms\[2\] "a": duplicate VM'),
    "unknown flavor": (inline({"name": "bad", "vms": [{"name": "a", "flavor": "xp"}]}), "there are: cirros, ubuntu"),
    "unknown VM": (inline(spec("a", links=[link("a", "b")])), r'links\[0\]: there is no VM "b"'),
    "unknown interface": (
        inline(
            {
                "name": "bad",
                "vms": [{"name": n, "interfaces": 1, **CIRROS} for n in "ab"],
                "links": [link("a:eth7", "b")],
            }
        ),
        r'links\[0\]: VM "a" has no interface eth7',
    ),
    "interface twice": (
        inline(spec("a", "b", links=[link("a:eth1", "b"), link("b", "a:eth1")])),
        "a:eth1 is used twice",
    ),
    "link to itself": (inline(spec("a", "b", links=[link("a", "a")])), r'links\[0\]: links VM "a" to itself'),
    "one endpoint": (
        inline(spec("a", links=[link("a", name="lonely")])),
        r'links\[0\] "lonely": a link has two or more',
    ),
    "too many links": (
        inline(spec("a", "b", links=[link("a", "b")] * 21)),
        "21 links, but the slice's VLAN pool holds 20",
    ),
    "small ring": (inline(topology("ring", 2)), "a ring needs 3 or more VMs, not 2"),
    "large mesh": (inline(topology("mesh", 9)), "36 links, but the slice's VLAN pool holds 20"),
    "negative interfaces": (
        inline({"name": "bad", "vms": [{"name": "a", "interfaces": -1, **CIRROS}]}),
        "0 to 23, not -1",
    ),
    "no cores": (flavor(cores=0), 'flavor "own": cores must be more than 0, not 0'),
    "negative disk": (flavor(disk_gb=-1), 'flavor "own": disk_gb must be more than 0, not -1'),
    "disk below its base": (
        flavor(disk_gb=0.01),
        r'vms\[0\] "a": the disk of flavor "own" .* smaller than its base image',
    ),
    "base image missing": (
        flavor(image="gone.img"),
        "base image gone.img of flavor .* neither in .* on the controller nor on worker",
    ),
    "over quota": (inline(topology("line", 11)), "over quota: 0 of 10 VMs in other slices, 11 wanted"),
    "no room": (
        inline(spec("a"), slices_overcommit={"cores": 0.1}),
        r'vms\[0\] "a": no worker with room: worker1 lacks 1 core',
    ),
    "unknown worker": (
        inline({"name": "bad", "vms": [{"name": "a", "worker": "worker9", **CIRROS}]}),
        "worker 'worker9' is not in the inventory",
    ),
    "overlapping subnets": (
        inline(spec("a", "b", links=[link("a", "b", subnet="10.5.0.0/16"), link("a", "b", subnet="10.5.7.0/24")])),
        r"links\[1\]: subnet 10.5.7.0/24 overlaps 10.5.0.0/16 of links\[0\]",
    ),
}


@pytest.fixture(scope="module")
def registry(run_playbook: Any) -> Callable[[], str]:
    def read() -> str:
        shown = run_playbook("show_slices", output="json").output
        return shown[shown.index("\n{\n") : shown.index("\n}\n")]

    return read


@pytest.fixture(scope="module")
def before(registry: Callable[[], str]) -> str:
    return registry()


@pytest.fixture(scope="module")
def refused(run_playbook: Any, before: str) -> Callable[..., None]:
    """Deploy, and see that it is refused with one line and changes nothing."""

    def deploy(message: str, *args: str, **extra: Any) -> None:
        run = run_playbook("deploy_slice", *args, **extra)
        assert run.rc != 0, run.output
        # An unreachable host has an error line of its own before ours.
        errors = re.findall(r"^\[ERROR\]: (?:Task failed: )?(.*)$", run.output, re.MULTILINE)
        assert errors and re.search(message, errors[-1]), run.output
        assert "Traceback" not in run.output
        assert run.recap and run.total("changed") == 0, run.output

    return deploy


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused(case: str, refused: Callable[..., None]) -> None:
    extra, message = CASES[case]
    refused(message, **extra)


def test_nothing_was_reserved(before: str, registry: Callable[[], str]) -> None:
    assert registry() == before


def test_file_with_another_name(tmp_path: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "blue.yml").write_text("name: red\n", encoding="utf-8")
    (tmp_path / "torn.yml").write_text("vms: [\n", encoding="utf-8")
    refused('name "red" differs from the file\'s name "blue"', slice="blue", slices_dir=str(tmp_path))
    refused("torn.yml is not YAML", slice="torn", slices_dir=str(tmp_path))


def inventory(tmp_path: Path, **groups: dict[str, str]) -> str:
    """An inventory of other hosts, reached as the lab's are."""
    path = tmp_path / "hosts.yml"
    hosts = {
        group: {"hosts": {name: {"ansible_host": address} for name, address in members.items()}}
        for group, members in groups.items()
    }
    path.write_text(json.dumps(hosts), encoding="utf-8")
    (tmp_path / "group_vars").symlink_to(ROOT / "inventories" / "lab" / "group_vars")
    return str(path)


LAB_WORKERS = {"worker1": "10.0.10.1", "worker2": "10.0.10.2"}
NODE = {"network1": "10.0.10.4"}
# An address of the lab's own bridge that no host has: nothing leaves the machine.
NOBODY = "10.0.10.99"


@pytest.mark.parametrize("group", ["workers", "network_node"])
def test_empty_group(tmp_path: Path, group: str, refused: Callable[..., None]) -> None:
    path = inventory(tmp_path, **{"workers": LAB_WORKERS, "network_node": NODE, group: {}})
    refused(f"the inventory has no host in the group {group}", f"-i{path}", **inline(spec("a")))


def test_without_a_network_node_there_is_nothing_to_show(tmp_path: Path, run_playbook: Any) -> None:
    shown = run_playbook("show_slices", f"-i{inventory(tmp_path, workers=LAB_WORKERS, network_node={})}")
    assert shown.rc != 0 and "the inventory has no host in the group network_node" in shown.output, shown.output


def test_unreachable_network_node(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = inventory(tmp_path, workers=LAB_WORKERS, network_node={"network9": NOBODY})
    refused("network node network9 is unreachable", f"-i{path}", **inline(spec("a")))


def test_unreachable_worker_that_the_slice_needs(tmp_path: Path, refused: Callable[..., None]) -> None:
    path = inventory(tmp_path, workers={**LAB_WORKERS, "worker9": NOBODY}, network_node=NODE)
    wanted = {"name": "bad", "vms": [{"name": "a", "worker": "worker9", **CIRROS}]}
    refused("worker worker9 is unreachable", f"-i{path}", **inline(wanted))


def test_unreachable_worker_that_the_slice_does_not_need(
    tmp_path: Path, run_playbook: Any, before: str, registry: Callable[[], str]
) -> None:
    path = inventory(tmp_path, workers={"worker9": NOBODY, **LAB_WORKERS}, network_node=NODE)
    run = run_playbook("design_slice", f"-i{path}", **inline(spec("a", "b")))
    assert run.rc == 0, run.output
    assert "worker worker9 is unreachable: it gets no new VMs" in run.output
    assert "Worker: 10.0.10.1" in run.output and "Worker: 10.0.10.2" in run.output
    assert run_playbook("delete_slice", slice="bad").rc == 0
    assert registry() == before


def test_deleting_what_is_not_there_is_no_error(run_playbook: Any) -> None:
    run = run_playbook("delete_slice", slice="nope")
    assert run.rc == 0 and "nothing to delete" in run.output
    assert run.recap and run.total("changed") == 0


def test_a_host_on_which_open_vswitch_does_not_run(run_playbook: Any, run_module: Any) -> None:
    """Nobody takes its silence for an answer."""

    def move(source: str, target: str) -> None:
        assert not run_module("worker1", "ansible.builtin.command", {"argv": ["mv", source, target]})["failed"]

    socket = "/run/openvswitch/db.sock"
    move(socket, f"{socket}.away")
    try:
        run = run_playbook("prepare_hosts", "--limit=worker1")
    finally:
        move(f"{socket}.away", socket)
    assert run.rc != 0 and re.search("Open vSwitch does not run: .*db.sock", run.output), run.output
    assert run.total("changed") == 0, run.output
