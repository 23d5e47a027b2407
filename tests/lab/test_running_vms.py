# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of VMs that run while their slice changes: their cards, their disks, what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

DISKS = "/var/lib/cloudrepo/vm_images/live"
GIB = 2**30


def spec(*links: str, names: str = "ab") -> dict[str, Any]:
    """VM a is on worker1, b on worker2. Their eth0 is connected to nothing, so its link is down."""
    return {
        "name": "live",
        "vms": [{"name": name, "flavor": "own", "worker": f"worker{'ab'.index(name) + 1}"} for name in names],
        "links": [{"endpoints": list(link)} for link in links],
    }


Deploy = Callable[..., Any]


@pytest.fixture
def deploy(run_playbook: Any) -> Iterator[Deploy]:
    """Deploys a spec, which has to work. The slice is deleted in the end."""

    def run(wanted: dict[str, Any], *args: str, disk_gb: int = 1, **extra: Any) -> Any:
        own = {"name": "own", "cores": 1, "memory_gb": 0.25, "image": "cirros-0.6.2-x86_64-disk.img"}
        flavors = [{**own, "disk_gb": disk_gb}]
        played = run_playbook("deploy_slice", *args, slice_spec=wanted, slices_flavors=flavors, **extra)
        assert played.rc == 0, played.output
        return played

    yield run
    deleted = run_playbook("delete_slice", slice="live")
    assert deleted.rc == 0, deleted.output


@pytest.fixture
def pid_of(run_module: Any) -> Callable[[str], int]:
    def ask(worker: str) -> int:
        base_dir = DISKS.rpartition("/")[0]
        [vm] = run_module(worker, "qemu_vm_info", {"slice": "live", "base_dir": base_dir})["vms"]
        assert vm["status"] == "running"
        return int(vm["pid"])

    return ask


def test_a_card_that_lost_its_tap_is_seen_and_mended(deploy: Deploy, pid_of: Callable[[str], int]) -> None:
    deploy(spec("ab", "ab"))
    before = pid_of("worker2")
    # The TAP of b's second link goes, but not its card; then there is a TAP of that name again.
    assert "interfaces eth0 eth1 eth2 -> eth0 eth1" in deploy(spec("ab")).output
    again = deploy(spec("ab", "ab"))
    assert "vm b: eth2 lost its TAP" in again.output and "vm a: eth2 lost its TAP" in again.output, again.output
    again = deploy(spec("ab", "ab"))
    assert again.total("changed") == 0 and "vm b: eth2 lost its TAP" in again.output
    # eth0's link is down and eth1 has its TAP: neither is lost.
    assert "eth0 lost" not in again.output and "eth1 lost" not in again.output
    assert pid_of("worker2") == before

    restarted = deploy(spec("ab", "ab"), slices_allow_restart=True)
    assert restarted.total("changed") > 0 and "lost its TAP" not in restarted.output
    assert pid_of("worker2") != before
    after = deploy(spec("ab", "ab"))
    assert after.total("changed") == 0 and "lost its TAP" not in after.output


def test_a_vm_on_a_deleted_disk_is_seen_and_mended(
    deploy: Deploy, pid_of: Callable[[str], int], run_module: Any
) -> None:
    deploy(spec(names="a"))
    before = pid_of("worker1")
    removed = run_module("worker1", "ansible.builtin.file", {"path": f"{DISKS}/a_img.qcow2", "state": "absent"})
    assert removed["changed"]
    # This deploy makes a new disk in its place, which is not the one that the VM has.
    for expected in (1, 0):
        again = deploy(spec(names="a"))
        assert "vm a: lost its disk needs a restart" in again.output, again.output
        assert again.recap["worker1"]["changed"] == expected and pid_of("worker1") == before
    restarted = deploy(spec(names="a"), slices_allow_restart=True)
    assert "lost its disk" not in restarted.output and pid_of("worker1") != before
    assert deploy(spec(names="a")).total("changed") == 0


def test_the_disk_of_a_running_vm_grows(deploy: Deploy, pid_of: Callable[[str], int], run_module: Any) -> None:
    def size() -> int:
        argv = ["qemu-img", "info", "--force-share", "--output=json", f"{DISKS}/a_img.qcow2"]
        shown = run_module("worker1", "ansible.builtin.command", {"argv": argv})
        return int(json.loads(shown["stdout"])["virtual-size"])

    deploy(spec("ab"))
    before = pid_of("worker1")
    predicted = deploy(spec("ab"), "--check", disk_gb=2)
    assert predicted.recap["worker1"]["changed"] == 1 and size() == GIB, predicted.output
    grown = deploy(spec("ab"), disk_gb=2)
    assert grown.recap["worker1"]["changed"] == 1 and size() == 2 * GIB, grown.output
    assert "needs" not in predicted.output + grown.output
    assert deploy(spec("ab"), disk_gb=2).total("changed") == 0
    assert pid_of("worker1") == before


def test_a_worker_without_vms_keeps_no_folder(deploy: Deploy, run_module: Any) -> None:
    def folder(worker: str) -> bool:
        found = run_module(worker, "ansible.builtin.stat", {"path": DISKS})
        return bool(found["stat"]["exists"])

    deploy(spec("ab"))
    assert folder("worker1") and folder("worker2")
    deploy(spec(names="a"))
    assert folder("worker1") and not folder("worker2")
