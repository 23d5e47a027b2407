# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scripts in bin/: what they say of a run that did not come to its end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).parents[1] / "bin"
SETUP = BIN / "_setup"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_a_signal_ends_has_failed(number: signal.Signals, status: int) -> None:
    script = f"""
        . {SETUP}
        trap 'echo "status $?"; report_failed_step 2>&1' EXIT
        step "lint" true
        step "unit" sh -c 'echo begun; exec sleep 60'
    """
    with subprocess.Popen(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background ignores SIGINT, and bash can't trap what was ignored when it began.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "begun\n":
                break
        os.killpg(process.pid, number)
        said = process.stdout.read()
    assert f"status {status}\n" in said and "!!! FAILED: unit" in said
    assert process.returncode == status


@pytest.mark.parametrize(
    ("up", "bring_up", "played"),
    [
        (False, "bring_up_empty_lab", "lab_down lab_up prepare_hosts lab_down"),
        (True, "bring_up_empty_lab", "lab_down lab_up prepare_hosts lab_down"),
        (False, "bring_up_lab", "lab_up prepare_hosts lab_down"),
        (True, "bring_up_lab", "lab_up prepare_hosts"),
    ],
)
def test_a_lab_of_somebody_else_is_emptied_or_stays(up: bool, bring_up: str, played: str) -> None:
    script = f"""
        . {SETUP}
        . {BIN / "_lab"}
        up={"true" if up else "false"}
        lab_is_up() {{ $up; }}
        ansible-playbook() {{
            echo "played $(basename "$1" .yml)"
            [ "$1" != playbooks/lab_down.yml ] || up=false
        }}
        {bring_up}
        take_down_our_lab
    """
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert [line[7:] for line in done.stdout.splitlines() if line.startswith("played ")] == played.split()


def test_a_lab_that_does_not_go_down_is_a_failure() -> None:
    script = f"""
        . {SETUP}
        . {BIN / "_lab"}
        ansible-playbook() {{ false; }}
        lab_is_ours=yes
        take_down_our_lab || exit 7
    """
    assert subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE).returncode == 7
