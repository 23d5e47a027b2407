"""Look at a slice's disks and processes on a worker.

Usage: SLICE_RECORD=<JSON> inspect_worker.py WORKER
Prints JSON: how many VMs were looked at, and a line for each problem.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

IMAGES = Path("/var/lib/cloudrepo/vm_images")
RUN = Path("/run/cloudrepo/vms")
GIB = 1024**3
Record = dict[str, Any]


def backing_chain(disk: Path) -> list[Record]:
    argv = ["qemu-img", "info", "--force-share", "--backing-chain", "--output=json", str(disk)]
    chain: list[Record] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return chain


def disk_problems(slice_name: str, vm: Record) -> list[str]:
    overlay, *backing = backing_chain(IMAGES / slice_name / f"{vm['name']}_img.qcow2")
    problems = []
    if [image["filename"] for image in backing] != [str(IMAGES / vm["image"])]:
        problems.append(f"backing chain is {[image['filename'] for image in backing]}, not {vm['image']}")
    # QEMU rounds up to whole sectors, and a flavor's size need not be a whole number of them.
    if abs(overlay["virtual-size"] - vm["disk_gb"] * GIB) >= 1024**2:
        problems.append(f"virtual size is {overlay['virtual-size']}, not {vm['disk_gb']} GiB")
    return problems


def process_problems(slice_name: str, vm: Record) -> list[str]:
    pid = (RUN / slice_name / vm["name"] / "qemu.pid").read_text().strip()
    process = Path("/proc", pid)
    problems = []
    if vm["interfaces"][0]["mac"] not in (process / "cmdline").read_text():
        problems.append(f"PID {pid} is not its QEMU")
    if process.stat().st_uid == 0:
        problems.append("QEMU runs as root")
    return problems


def inspect(record: Record, worker: str) -> Record:
    vms = [vm for vm in record["vms"] if vm["worker"] == worker]
    problems = []
    for vm in vms:
        try:
            found = disk_problems(record["name"], vm) + process_problems(record["name"], vm)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            found = [str(error)]
        problems += [f"{vm['name']}: {problem}" for problem in found]
    return {"vms": len(vms), "problems": problems}


if __name__ == "__main__":
    print(json.dumps(inspect(json.loads(os.environ["SLICE_RECORD"]), sys.argv[1])))
