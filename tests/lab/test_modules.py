# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The twelve cases of every module that changes something, over SSH against hosts of the lab."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .twelve_cases import OPERATIONS, ROOT, STEPS, Operation, Outcome, Step, has_diff, load, run, step_name

CASES = sorted((Path(__file__).parent / "cases").glob("*.yml"))
MODULES = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices" / "plugins" / "modules"
WITHOUT_CASES = {
    # These change nothing.
    "dnsmasq_dhcp_info",
    "qemu_vm_info",
    "slice_audit",
    "slice_audit_info",
    "slice_host_info",
    "slice_probe",
    "slice_report",
    "slice_shares",
    "slice_show",
    "slice_spec",
    "slice_stamps_info",
    # These act through slice_registry.
    "slice_plan",
    "slice_rebuild",
    "slice_withdraw",
    # Only removes, and what nobody could have made with it: test_audit.py does that.
    "slice_orphans",
    # Changes the machine that the tests run on: taking its lab down would end all other tests.
    # `./bin/test lab` exercises it by bringing the lab up and its own down, and its parts have unit tests;
    # that a second call changes nothing and that check mode predicts is asserted nowhere.
    "lab_hosts",
}

Play = Callable[[Path], Outcome]


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory, inventory: Path) -> Play:
    """Plays a case when the first of its tests asks."""
    return cache(lambda path: run(load(path), tmp_path_factory.mktemp(path.stem), inventory))


def test_every_module_has_its_cases() -> None:
    modules = {path.stem for path in MODULES.glob("*.py")}
    assert modules >= WITHOUT_CASES
    assert {load(path)["module"] for path in CASES} == modules - WITHOUT_CASES


@pytest.mark.parametrize(
    ("path", "operation", "step"),
    [
        pytest.param(path, operation, step, id=f"{path.stem}-{step_name(operation, step)}")
        for path in CASES
        for operation in OPERATIONS
        for step in STEPS
    ],
)
def test_module(play: Play, path: Path, operation: Operation, step: Step) -> None:
    outcome = play(path)
    name = step_name(operation, step)

    assert name in outcome.results, f"the play did not get through {name}:\n{outcome.output}"
    result = outcome.results[name]
    assert result["changed"] is step.changed
    assert has_diff(result) is step.changed, f"changed is {result['changed']}, the diff {result['diff']}"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_module_cleans_up(play: Play, path: Path) -> None:
    outcome = play(path)

    assert outcome.rc == 0, outcome.output
