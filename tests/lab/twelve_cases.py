# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module's twelve cases: create, modify, delete x check mode, real x first, second time.

A file in cases/ describes one module on one host of the lab:

    module: ovs_vlan          # ours, or another collection's in full
    host: worker1
    setup: [task, ...]        # optional; makes the state in which `absent` holds
    before: [task, ...]       # optional; runs before every call of the module
    create: {...}             # the module's arguments; they may refer to what `before` has registered
    modify: {...}
    delete: {...}
    present: [task, ...]      # fail unless what `create` asks for is really there
    modified: [task, ...]     # the same for `modify`
    absent: [task, ...]       # the same for `delete`
    cleanup: [task, ...]      # optional; runs in any case

All tasks run as root on that host. It becomes one playbook, which is played once.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]

Task = dict[str, Any]


class Operation(NamedTuple):
    """A call of the module, the state in which it is made, and the state that it leads to."""

    name: str
    before: str
    after: str


class Step(NamedTuple):
    """One run of an operation: whether in check mode, what it has to report, which state is looked for then."""

    name: str
    check: bool
    changed: bool
    verify: str | None


OPERATIONS = (
    Operation("create", "absent", "present"),
    Operation("modify", "present", "modified"),
    Operation("delete", "modified", "absent"),
)
STEPS = (
    Step("check-first", check=True, changed=True, verify="before"),
    Step("check-second", check=True, changed=True, verify=None),
    Step("real-first", check=False, changed=True, verify="after"),
    Step("real-second", check=False, changed=False, verify=None),
    Step("check-afterwards", check=True, changed=False, verify="after"),
)


@dataclass(frozen=True)
class Outcome:
    """How the playbook of a case went: its exit code, what it printed, and the result of each step it got through."""

    rc: int
    output: str
    results: dict[str, dict[str, Any]]


def load(path: Path) -> dict[str, Any]:
    """The case in a file, with everything that may be left out."""
    case = {"setup": [], "before": [], "cleanup": [], **yaml.safe_load(path.read_text())}
    wanted = {"module", "host", "setup", "before", "cleanup"}
    wanted |= {field for operation in OPERATIONS for field in operation}
    assert set(case) == wanted, f"{path.name}: has {sorted(set(case) - wanted)}, lacks {sorted(wanted - set(case))}"
    for state in ("present", "modified", "absent"):
        assert case[state], f"{path.name}: {state} is empty, so it would hold in any state"
    return case


def step_name(operation: Operation, step: Step) -> str:
    return f"{operation.name}-{step.name}"


def has_diff(result: dict[str, Any]) -> bool:
    """Whether a module's result shows what is different."""
    diffs = result["diff"] if isinstance(result["diff"], list) else [result["diff"]]
    return any(diff.get("prepared") or diff.get("before") != diff.get("after") for diff in diffs)


def run(case: dict[str, Any], folder: Path, inventory: Path) -> Outcome:
    """Play the case. A step whose verification failed, and all after it, have no result."""
    playbook, results = folder / "playbook.yml", folder / "results.json"
    playbook.write_text(yaml.safe_dump(_playbook(case, results), sort_keys=False))
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(inventory), str(playbook)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Outcome(done.returncode, done.stdout, json.loads(results.read_text()) if results.exists() else {})


def _playbook(case: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    steps = [task for operation in OPERATIONS for step in STEPS for task in _step(case, operation, step)]
    play = {
        "name": f"The twelve cases of {case['module']}",
        "hosts": case["host"],
        "gather_facts": False,
        "become": True,
        "vars": {"twelve_results": {}},
        "tasks": [{"block": case["setup"] + steps, "always": [_hand_over(results), *case["cleanup"]]}],
    }
    return [play]


def _step(case: dict[str, Any], operation: Operation, step: Step) -> list[Task]:
    name = step_name(operation, step)
    module = case["module"] if "." in case["module"] else f"cloudrepo.slices.{case['module']}"
    call = {
        "name": name,
        module: case[operation.name],
        "check_mode": step.check,
        "diff": True,
        "register": "twelve_result",
    }
    state = None if step.verify is None else getattr(operation, step.verify)
    result = {"changed": "{{ twelve_result.changed }}", "diff": "{{ twelve_result.diff | default({}) }}"}
    # Kept only once the verification has passed.
    keep = {
        "name": f"{name}: keep the result",
        "ansible.builtin.set_fact": {"twelve_results": "{{ twelve_results | combine({twelve_name: twelve_kept}) }}"},
        "vars": {"twelve_name": name, "twelve_kept": result},
    }
    return [*case["before"], call, *(case[state] if state else []), keep]


def _hand_over(results: Path) -> Task:
    return {
        "name": "Hand the results over",
        "ansible.builtin.copy": {"content": "{{ twelve_results | to_json }}", "dest": str(results), "mode": "0600"},
        "delegate_to": "localhost",
        "become": False,
    }
