# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it takes to get a base image to several workers, and what it takes when they have it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

BASE_DIR = "/var/lib/cloudrepo/vm_images"
IMAGE = Path("/var/cache/cloudrepo-lab/images/cirros-0.6.2-x86_64-disk.img")
WORKERS = ("worker1", "worker2", "worker3")


def test_an_image_is_sent_once_to_each_worker(run_playbook: Any, run_module: Any, tmp_path: Path) -> None:
    """The second deploy has no image to read on the controller: it can have neither sent nor hashed it."""
    image = tmp_path / "imgonce.img"
    shutil.copyfile(IMAGE, image)
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    flavor = {"name": "own", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": image.name}
    vms = [{"name": worker, "flavor": "own", "worker": worker} for worker in WORKERS]
    wanted = {
        "slice_spec": {"name": "imgonce", "vms": vms},
        "slices_flavors": [flavor],
        "slices_image_dir": str(tmp_path),
    }
    try:
        first = run_playbook("deploy_slice", **wanted)
        assert first.rc == 0, first.output
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
