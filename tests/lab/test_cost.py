# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps deploys fast, counted and not timed: rounds, calls, processes, connections and bytes do not grow with N.

A ring of 3 VMs and one of 30 are deployed, deployed again and deleted. worker1 has one VM in both, so that for it
everything has to be the same, the bytes but for a few.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..faults.lab import HOSTS, root_of, run_in

BASE_DIR = "/var/lib/cloudrepo/vm_images"
IMAGE = "cost-blank.img"
SIZES = (3, 30)
PLAYS = ("deploy", "again", "delete")
MODULE = "a module"
QEMU = "a QEMU"
# An acct(5) record: its flags at 0, the program's name at 48.
RECORD, NAME = 64, slice(48, 64)
FORKED_ONLY = 0x01
ACCT = "import ctypes, sys; lib = ctypes.CDLL(None, use_errno=True); sys.exit(lib.acct({path}) and ctypes.get_errno())"


@dataclass
class Cost:
    """Of one play: the tasks that did something, and by host how many it took part in and what they made it do.

    ``results`` are the lines that say what became of a task, of which one in a loop has a line for each item.
    """

    rounds: list[str]
    results: int
    calls: dict[str, int]
    processes: dict[str, Counter[str]]
    connections: dict[str, int]
    received: dict[str, int]


def ring(size: int) -> dict[str, Any]:
    """All but the first VM are on the other two workers."""
    workers = ["worker1", *(f"worker{2 + index % 2}" for index in range(size - 1))]
    return {
        "name": f"cost{size}",
        "vlan_pool_size": max(20, size),
        "vms": [
            {"name": f"vm{index:02}", "flavor": "blank", "interfaces": 2, "worker": worker}
            for index, worker in enumerate(workers)
        ],
        "links": [{"endpoints": [f"vm{index:02}:eth1", f"vm{(index + 1) % size:02}:eth2"]} for index in range(size)],
    }


@contextmanager
def accounted(host: str) -> Iterator[Path]:
    """The kernel writes a record of every process of the host that ends."""
    log = "/var/tmp/cost-acct"
    run_in(host, "sh", "-c", f": > {log}")
    run_in(host, "python3", "-c", ACCT.format(path=f"b'{log}'"))
    try:
        yield root_of(host) / log.lstrip("/")
    finally:
        run_in(host, "python3", "-c", ACCT.format(path="None"))
        run_in(host, "rm", log)


def programs(log: Path) -> Counter[str]:
    """How often each program ended, but for the server that other connections end in."""
    content = log.read_bytes()
    records = [content[start : start + RECORD] for start in range(0, len(content), RECORD)]
    names = [record[NAME].split(b"\0")[0].decode() for record in records if not record[0] & FORKED_ONLY]
    names = [
        MODULE if name.startswith("python3") else QEMU if name.startswith("qemu-system") else name for name in names
    ]
    counted = Counter(name for name in names if not name.startswith("sshd"))
    counted[MODULE] -= 1  # The one that switched the records on.
    return counted


def connections(host: str) -> int:
    """How many TCP connections the host has accepted."""
    names, values = [
        line.split() for line in run_in(host, "cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:")
    ]
    return int(values[names.index("PassiveOpens")])


def received(host: str) -> int:
    return int(run_in(host, "cat", "/sys/class/net/mgmt0/statistics/rx_bytes"))


def measure(run_playbook: Any, playbook: str, **extravars: Any) -> Cost:
    # A folder of its own, so that every host has to be connected to.
    control = tempfile.mkdtemp(prefix="cost")
    before = {host: (connections(host), received(host)) for host in HOSTS}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, control)
        stack.callback(disconnect, control)
        logs = {host: stack.enter_context(accounted(host)) for host in HOSTS}
        played = run_playbook(playbook, ansible_control_path_dir=control, **extravars)
        assert played.rc == 0, played.output
        time.sleep(0.5)  # A module's shell ends after its answer.
        processes = {host: programs(log) for host, log in logs.items()}
    return Cost(
        rounds=[name.rpartition(" : ")[2] for name in re.findall(r"^TASK \[(.+?)\] \*+$", played.output, re.MULTILINE)],
        results=len(re.findall(r"^(?:ok|changed): \[", played.output, re.MULTILINE)),
        calls={host: played.recap[host]["ok"] for host in HOSTS},
        processes=processes,
        connections={host: connections(host) - before[host][0] for host in HOSTS},
        received={host: received(host) - before[host][1] for host in HOSTS},
    )


def disconnect(control: str) -> None:
    for path in Path(control).iterdir():
        subprocess.run(["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "lab"], capture_output=True)


@pytest.fixture(scope="module")
def costs(run_playbook: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[int, Cost]]]:
    """Of each play, by the number of VMs."""
    images = tmp_path_factory.mktemp("images")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(images / IMAGE), "64M"], check=True)
    flavor = {"name": "blank", "cores": 1, "memory_gb": 0.0625, "disk_gb": 0.0625, "image": IMAGE}
    settings = {"slices_flavors": [flavor], "slices_image_dir": str(images), "slices_quota": 100}
    found: dict[str, dict[int, Cost]] = {play: {} for play in PLAYS}
    try:
        # Sends the image, and makes what every first slice makes.
        assert run_playbook("deploy_slice", slice_spec=ring(3), **settings).rc == 0
        assert run_playbook("delete_slice", slice="cost3").rc == 0
        for size in SIZES:
            spec = ring(size)
            found["deploy"][size] = measure(run_playbook, "deploy_slice", slice_spec=spec, **settings)
            found["again"][size] = measure(run_playbook, "deploy_slice", slice_spec=spec, **settings)
            found["delete"][size] = measure(run_playbook, "delete_slice", slice=spec["name"])
        yield found
    finally:
        for size in SIZES:
            run_playbook("delete_slice", slice=f"cost{size}")
        for host in HOSTS:
            run_in(host, "rm", "-f", f"{BASE_DIR}/{IMAGE}", f"{BASE_DIR}/{IMAGE}.json")


def without_vms(processes: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in processes.items() if name != QEMU}


@pytest.mark.parametrize("play", PLAYS)
def test_n_makes_no_difference(costs: dict[str, dict[int, Cost]], play: str) -> None:
    few, many = (costs[play][size] for size in SIZES)
    assert few.rounds == many.rounds and few.results == many.results
    assert few.calls == many.calls
    assert {host: without_vms(found) for host, found in few.processes.items()} == {
        host: without_vms(found) for host, found in many.processes.items()
    }
    for size, cost in ((SIZES[0], few), (SIZES[1], many)):
        # None is started beside those that stay, and a delete ends these.
        ended = sum(found[QEMU] for found in cost.processes.values())
        assert ended == (size if play == "delete" else 0), cost.processes
    assert few.connections == many.connections == dict.fromkeys(HOSTS, 1)


@pytest.mark.parametrize("play", PLAYS)
def test_a_worker_receives_its_own_share_only(costs: dict[str, dict[int, Cost]], play: str) -> None:
    few, many = (costs[play][size].received for size in SIZES)
    # Longer numbers, and what TCP acknowledges. The records of 27 other VMs would be six times as much.
    assert many["worker1"] < few["worker1"] + 4096, (few, many)
    # worker2 has 14 VMs more.
    assert many["worker2"] < few["worker2"] + 14 * 4096 + 4096, (few, many)


# What one call each of the modules runs, whatever a host has of the slice; modules are Python.
WORKER_TOOLS = {
    "deploy": {MODULE: 2, "qemu-img": 1, "ovs-vsctl": 2, "ovs-ofctl": 2, "ip": 2},
    "again": {MODULE: 2, "ovs-vsctl": 1, "ovs-ofctl": 1, "ip": 1},
    "delete": {MODULE: 2, "ovs-vsctl": 2, "ovs-ofctl": 2, "ip": 2},
}
NODE_TOOLS = {
    "deploy": {MODULE: 4, "ovs-vsctl": 3, "ovs-ofctl": 1, "ip": 5, "nft": 2, "dnsmasq": 1},
    "again": {MODULE: 4, "ovs-vsctl": 2, "ovs-ofctl": 1, "ip": 3, "nft": 2},
    "delete": {MODULE: 4, "ovs-vsctl": 3, "ovs-ofctl": 1, "ip": 6, "nft": 2},
}
# What a shell, sudo and Ansible's way to call them need.
AROUND = {"sh", "bash", "sleep", "sudo"}
TASKS = {"deploy": 5, "again": 5, "delete": 5}


@pytest.mark.parametrize("play", PLAYS)
def test_whoever_makes_the_constants_greater_should_know(costs: dict[str, dict[int, Cost]], play: str) -> None:
    cost = costs[play][3]
    assert len(cost.rounds) == TASKS[play], cost.rounds
    for host, tools in (("worker1", WORKER_TOOLS[play]), ("network1", NODE_TOOLS[play])):
        assert {name: count for name, count in cost.processes[host].items() if name not in AROUND | {QEMU}} == tools, (
            host
        )
    # Mostly the modules' code, and Ansible's own.
    assert cost.received["worker1"] < 600_000
    assert cost.received["network1"] < 1_200_000
