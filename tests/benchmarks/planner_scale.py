# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the planner takes for a very large slice, and how much memory.

Measured is all that the lookup ``slice_planner`` does with its options: from the plain dictionaries that it gets (spec,
flavors, settings, facts of hosts, registry) to the plan with every host's share, reading the schema's file included.
The time does not have Python's start, imports, and making the inputs. The memory is that of the process at its peak.

A real network has too few VLANs for this: the planner is given more of them than a tag can hold.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))

from ansible_collections.cloudrepo.slices.plugins.plugin_utils._planning import plan_from  # noqa: E402

Record = dict[str, Any]

# The rule for subnets makes valid ones up to VLAN 61,439.
VLANS = range(100, 60_000)
IMAGE = "cirros-0.6.2-x86_64-disk.img"
FLAVORS = [{"name": "cirros", "cores": 1, "memory_gb": 0.5, "disk_gb": 1, "image": IMAGE}]
SETTINGS = {"internet_subnet": "10.60.0.0/16", "quota": 100_000, "placement": "round_robin"}


def inputs(vms: int, workers: int = 1000, others: int = 1000) -> Record:
    """The spec and the other options that the lookup would get: plain data, as JSON brings it.

    Args:
        vms: the VMs of the slice to plan: a ring with a link for each, an address on each link.
        workers: how many hosts there are for them.
        others: how many slices of three VMs, two links and one internet address the registry holds.
    """
    hosts = [_host(f"worker{number}", number) for number in range(1, workers + 1)]
    node = _host("network1", workers + 1)
    common = {"owner": "benchmark", "flavors": FLAVORS, "images": {IMAGE: 2**20}, **SETTINGS}
    options: Record = {**common, "workers": hosts, "network_nodes": [node]}
    registry: Record = {"revision": 0, "next_id": 1000, "last_worker": "", "slices": []}
    for number in range(1, others + 1):
        planned = plan_from(_small(f"other{number}"), {**options, "registry": registry}, VLANS)
        registry["slices"].append({**planned["slice"], "status": "running", "has_run": True})
        registry = {**registry, "next_id": planned["next_id"], "last_worker": planned["last_worker"]}
    _stamp(hosts, node, registry["slices"])
    return {"spec": _ring(vms), "options": {**options, "registry": registry}}


def _host(name: str, number: int) -> Record:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    room = {"cores": 64, "memory_mb": 262_144, "disk_mb": 4_000_000}
    return {"name": name, "address": address, "problem": "", **room, "images": {IMAGE: 2**20}, "stamps": []}


def _small(name: str) -> Record:
    vms = [{"name": vm, "flavor": "cirros", "internet": vm == "a"} for vm in "abc"]
    return {"name": name, "vms": vms, "links": [{"endpoints": ["a", "b"]}, {"endpoints": ["b", "c"]}]}


def _ring(vms: int) -> Record:
    names = [f"vm{number}" for number in range(1, vms + 1)]
    return {
        "name": "ring",
        "vlan_pool_size": vms,
        "vms": [{"name": name, "flavor": "cirros", "interfaces": 2} for name in names],
        "links": [
            {"endpoints": [f"{one}:eth1", f"{other}:eth2"]}
            for one, other in zip(names, [*names[1:], names[0]], strict=True)
        ],
    }


def _stamp(workers: list[Record], node: Record, slices: list[Record]) -> None:
    """Have the hosts carry what the registry says, as ``slice_host_info`` finds it."""
    by_name = {worker["name"]: worker for worker in workers}
    for record in slices:
        namespace = f"slice-{record['id']}"
        node["stamps"].append({"slice": "", "vm": "", "name": namespace, "id": record["id"]})
        for vm in record["vms"]:
            stamp = {"slice": record["name"], "vm": vm["name"], "name": f"VM {record['name']}/{vm['name']}"}
            by_name[vm["worker"]]["stamps"].append({**stamp, "id": vm["id"]})


def measure(given: Mapping[str, Any]) -> tuple[float, int]:
    """Plan twice, each time in a process of its own.

    Returns:
        Seconds, and the most bytes that the process occupied, with Python and its inputs.
    """
    text = json.dumps(given)
    return float(_alone("seconds", text)), int(_alone("bytes", text))


def _alone(what: str, text: str) -> str:
    argv = [sys.executable, __file__, "--one", what]
    return subprocess.run(argv, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def _seconds(given: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    plan_from(given["spec"], given["options"], VLANS)
    return time.perf_counter() - start


def _peak_bytes(given: Mapping[str, Any]) -> int:
    plan_from(given["spec"], given["options"], VLANS)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0]) * 1024


def main() -> None:
    """Print the figures, or one of them for inputs on standard input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vms", type=int, nargs="+", default=[1000, 10_000], help="sizes of the slice (%(default)s)")
    parser.add_argument("--workers", type=int, default=1000, help="hosts (%(default)s)")
    parser.add_argument("--others", type=int, default=1000, help="other slices in the registry (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of which the medians are printed (%(default)s)")
    parser.add_argument("--one", choices=["seconds", "bytes"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print({"seconds": _seconds, "bytes": _peak_bytes}[options.one](json.load(sys.stdin)))
        return
    worlds = {vms: inputs(vms, options.workers, options.others) for vms in options.vms}
    runs = [{vms: measure(given) for vms, given in worlds.items()} for _run in range(options.runs)]
    for vms in worlds:
        seconds, peak = (statistics.median(run[vms][place] for run in runs) for place in (0, 1))
        print(f"{vms} VMs and links, {options.workers} workers, {options.others} other slices: ", end="")
        print(f"{seconds:.3f} s, {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
