# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._run import actor, has_died, run_id

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_run_has_died_once_its_process_is_gone_or_is_another_one() -> None:
    with subprocess.Popen(SLEEP) as process:
        run = run_id(process.pid)
        assert not has_died(run)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_died(run) is True
    assert has_died(run)
    here, _pid, _started = run_id(os.getpid()).rsplit("/", 2)
    assert has_died(f"{here}/{os.getpid()}/1")


@pytest.mark.parametrize("run", ["", "ctl", "elsewhere/boot:pid:[1]/1/5", "a/b/-1/5", "//1/"])
def test_of_a_run_that_is_out_of_sight_nothing_is_known(run: str) -> None:
    assert not has_died(run)


def test_only_awx_makes_it_certain_who_asks() -> None:
    assert actor({}, os.getpid())["user"] == ""
    assert actor({"awx_job_id": 7}, os.getpid())["user"] == "awx"
    asks = actor({"awx_user_name": "alice", "awx_job_id": 7}, os.getpid())
    assert asks["user"] == "alice"
    assert asks["holder"].startswith("alice on ") and f"(PID {os.getpid()})" in asks["holder"]
