# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _lab_machine as machine
from ansible_collections.cloudrepo.slices.plugins.module_utils._lab import Host, LabError, start_time

HOSTS = [Host("worker1", "10.0.10.1")]


def me() -> dict[str, int]:
    """This process, as if it were a host's init."""
    started = start_time(Path("/proc/self/stat").read_text())
    assert started is not None
    return {"pid": os.getpid(), "start": started}


def lab_with(directory: Path, boot_id: str, init: dict[str, int]) -> machine.Lab:
    state = {"boot_id": boot_id, "hosts": {"worker1": init}, "ready": ["worker1"], "links": ["slmgmt0"]}
    (directory / "state.json").write_text(json.dumps(state))
    return machine.Lab(directory, HOSTS)


def test_a_recorded_host_is_running(tmp_path: Path) -> None:
    assert lab_with(tmp_path, machine.boot_id(), me()).running() == {"worker1": os.getpid()}


def test_a_reused_pid_is_not_our_host(tmp_path: Path) -> None:
    stranger = {"pid": os.getpid(), "start": me()["start"] + 1}
    assert lab_with(tmp_path, machine.boot_id(), stranger).running() == {}


def test_nothing_of_an_earlier_boot_is_ours(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, "an-earlier-boot", me())
    assert lab.running() == {}
    assert lab.state.links == []


def test_a_host_that_was_given_up_half_way_is_missing(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, machine.boot_id(), me())
    assert lab.missing_hosts() == ["internet"]
    lab.state.ready.clear()
    assert lab.missing_hosts() == ["internet", "worker1"]


def test_a_host_that_is_not_named_any_more_is_unwanted(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, machine.boot_id(), me())
    assert lab.unwanted_hosts() == []
    lab.hosts = [Host("worker2", "10.0.10.2")]
    assert lab.unwanted_hosts() == ["worker1"]


def test_a_broken_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(LabError, match="is not readable"):
        machine.Lab(tmp_path, HOSTS)


def test_down_leaves_files_that_are_not_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "hosts" / "worker1").mkdir(parents=True)
    (tmp_path / "mine").touch()
    lab = lab_with(tmp_path, "an-earlier-boot", me())
    with pytest.raises(OSError, match="not empty"):
        lab.down()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
