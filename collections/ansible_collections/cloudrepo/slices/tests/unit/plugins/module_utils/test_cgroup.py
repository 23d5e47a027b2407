# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Groups on a tree of plain files. The real kernel's was seen by hand: no machine of the tests has its controllers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _cgroup

# Of a host with v1 and an empty v2, as seen; and of one with v2 alone.
MOUNTINFO = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""


def make_group(group: Path, controllers: str, handed_down: str = "", procs: str = "", root: bool = True) -> None:
    group.mkdir(exist_ok=True)
    (group / "cgroup.controllers").write_text(controllers + "\n")
    (group / "cgroup.subtree_control").write_text(handed_down + "\n")
    (group / "cgroup.procs").write_text(procs)
    if not root:
        (group / "cgroup.type").write_text("domain\n")


def find(tmp_path: Path) -> str | None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"41 31 0:38 / {tmp_path}/fs rw,relatime - cgroup2 cgroup2 rw\n")
    return _cgroup.find(str(mounts))


def test_the_mounts_of_v2_are_found() -> None:
    assert list(_cgroup.cgroup2_mounts(MOUNTINFO)) == ["/sys/fs/cgroup/unified"]


@pytest.mark.parametrize(
    ("controllers", "handed_down", "procs", "root", "usable"),
    [
        ("cpuset cpu io memory pids", "cpu memory pids", "1\n", True, True),
        ("cpuset cpu io memory pids", "", "1\n", True, True),  # The machine's root may have processes.
        ("hugetlb", "", "1\n", True, False),
        ("cpu pids", "", "", True, False),
        ("cpu memory pids", "", "1\n", False, False),  # A container's, where they keep us from handing down.
        ("cpu memory pids", "", "", False, True),
        ("cpu memory pids", "cpu memory pids", "", False, True),
    ],
)
def test_whether_a_host_gives_us_limits(
    tmp_path: Path, controllers: str, handed_down: str, procs: str, root: bool, usable: bool
) -> None:
    make_group(tmp_path / "fs", controllers, handed_down, procs, root)
    assert find(tmp_path) == (f"{tmp_path}/fs/cloudrepo" if usable else None)


def test_a_vm_is_put_under_its_limits(tmp_path: Path) -> None:
    folder, group = tmp_path / "fs" / "cloudrepo", tmp_path / "fs" / "cloudrepo" / "web.db"
    make_group(tmp_path / "fs", "cpu memory pids")
    make_group(folder, "cpu memory pids")
    groups, limits = _cgroup.Groups(str(folder), "web"), _cgroup.vm_limits(2, 512)
    assert groups.limits("db", 4711) is None and groups.names() == []
    groups.limit("db", 4711, limits)
    assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert limits == {"cpu.max": "250000 100000", "memory.max": str(1024 * 2**20), "pids.max": "130"}
    assert {file: (group / file).read_text() for file in limits} == limits
    assert groups.limits("db", 4711) == limits
    # The group is there, but another process is in it.
    assert groups.limits("db", 471) is None
    (folder / "web2.db").mkdir()
    assert groups.names() == ["db"] and _cgroup.Groups(str(folder), "web2").names() == ["db"]


def test_groups_of_the_dead_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cgroup, "_EMPTY_SECONDS", 0.1)
    groups = _cgroup.Groups(str(tmp_path), "web")
    groups.remove("db")
    (tmp_path / "web.db").mkdir()
    groups.remove("db")
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_is_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def busy(path: str) -> None:
        tried.append(path)
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(_cgroup, "_EMPTY_SECONDS", 0.1)
    monkeypatch.setattr(_cgroup.os, "rmdir", busy)
    before = time.monotonic()
    _cgroup.Groups(str(tmp_path), "web").remove("db")
    assert len(tried) > 1 and time.monotonic() - before < 1
