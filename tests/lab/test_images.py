# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it takes to get a base image to several workers, and what it takes when they have it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

BASE_DIR = "/var/lib/cloudrepo/vm_images"
IMAGE = Path("/var/cache/cloudrepo-lab/images/cirros-0.6.2-x86_64-disk.img")
SMALL = "/var/lib/cloudrepo/small"
WORKERS = ("worker1", "worker2", "worker3")


@pytest.mark.parametrize("pipelining", [True, False])
def test_an_image_is_sent_once_to_each_worker(
    pipelining: bool, run_playbook: Any, run_module: Any, tmp_path: Path
) -> None:
    """With pipelining it follows the module's options, without it is a file of its own.

    The second deploy has no image to read on the controller: it can have neither sent nor hashed it.
    """
    image = tmp_path / "imgonce.img"
    shutil.copyfile(IMAGE, image)
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    flavor = {"name": "own", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": image.name}
    vms = [{"name": worker, "flavor": "own", "worker": worker} for worker in WORKERS]
    wanted = {
        "slice_spec": {"name": "imgonce", "vms": vms},
        "slices_flavors": [flavor],
        "slices_image_dir": str(tmp_path),
        "ansible_pipelining": pipelining,
    }
    try:
        first = run_playbook("deploy_slice", "-vvv", **wanted)
        assert first.rc == 0, first.output
        assert (f"/{image.name} TO /" in first.output) == (not pipelining), first.output
        if pipelining:  # The plan knows what is missing, so that nobody is asked for it.
            calls = [line for line in first.output.splitlines() if "EXEC" in line and "slices.qcow_overlay" in line]
            assert len(calls) == len(WORKERS), calls
        assert first.output.count("sending imgonce.img") == len(WORKERS)
        for worker in WORKERS:
            there = run_module(worker, "ansible.builtin.command", {"argv": ["sha256sum", f"{BASE_DIR}/{image.name}"]})
            assert there["stdout"].split()[0] == sha256
        image.unlink()
        second = run_playbook("deploy_slice", **wanted)
        assert second.rc == 0, second.output
        assert second.total("changed") == 0
        assert "sending" not in second.output
    finally:
        deleted = run_playbook("delete_slice", slice="imgonce")
        for worker in WORKERS:
            for name in (image.name, f"{image.name}.json"):
                run_module(worker, "ansible.builtin.file", {"path": f"{BASE_DIR}/{name}", "state": "absent"})
    assert deleted.rc == 0, deleted.output


def test_an_image_for_which_there_is_no_room(run_playbook: Any, run_module: Any, tmp_path: Path) -> None:
    """The module ends while the image is on its way, and what it said is what the user is told."""
    (tmp_path / "large.img").write_bytes(bytes(64 * 2**20))
    wanted = {
        "slice_spec": {"name": "noroom", "vms": [{"name": "a", "flavor": "own", "worker": "worker1"}]},
        "slices_flavors": [{"name": "own", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": "large.img"}],
        "slices_image_dir": str(tmp_path),
        "slices_base_dir": SMALL,
        "slices_overcommit": {"disk": 100},
    }
    run_module("worker1", "ansible.builtin.file", {"path": SMALL, "state": "directory"})
    mount = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", SMALL]
    assert not run_module("worker1", "ansible.builtin.command", {"argv": mount})["failed"]
    try:
        deployed = run_playbook("deploy_slice", **wanted)
        left = run_module("worker1", "ansible.builtin.command", {"argv": ["ls", "-A", SMALL]})["stdout"]
    finally:
        run_module("worker1", "ansible.builtin.command", {"argv": ["umount", SMALL]})
        run_module("worker1", "ansible.builtin.file", {"path": SMALL, "state": "absent"})
        deleted = run_playbook("delete_slice", slice="noroom")
    assert deployed.rc != 0
    assert "base image large.img can't be stored: No space left on device" in deployed.output, deployed.output
    assert left == ""
    assert deleted.rc == 0, deleted.output
