# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The number of task rounds of a deploy: Ansible's cost is per task, so it is what keeps a deploy fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

COLLECTION = Path(__file__).parents[2]
TASKS = COLLECTION / "roles" / "slice" / "tasks"
DEFAULTS = yaml.safe_load((COLLECTION / "roles" / "slice" / "defaults" / "main.yml").read_text(encoding="utf-8"))
# Reads the hosts' capacity, and is the round that connects.
CONNECTING = "cloudrepo.slices.slice_host_info"


def tasks_of(name: str) -> list[dict[str, Any]]:
    """The tasks of an entry point in the order they run, imports followed.

    What is included dynamically is for when something went wrong.
    """
    tasks: list[dict[str, Any]] = []
    for task in yaml.safe_load((TASKS / name).read_text(encoding="utf-8")):
        assert "block" not in task and "loop" not in task, f"{task['name']}: would make rounds that are not counted"
        imported = task.get("ansible.builtin.import_tasks")
        if "ansible.builtin.include_tasks" in task:
            assert "when" in task, f"{task['name']}: would make rounds that are not counted"
        else:
            tasks += tasks_of(imported) if imported else [task]
    return tasks


def rounds(playbook: str) -> list[dict[str, Any]]:
    (play,) = yaml.safe_load((COLLECTION / "playbooks" / playbook).read_text(encoding="utf-8"))
    assert play["gather_facts"] is False
    tasks = [task for entry in play["tasks"] for task in entry.get("block", [entry])]
    entries = [task["ansible.builtin.import_role"]["tasks_from"] for task in tasks]
    return [task for entry in entries for task in tasks_of(f"{entry}.yml")]


def is_optional(task: dict[str, Any]) -> bool:
    """Whether a task has nothing for its condition but an option, and that is off by default."""
    option, _filter, truth = str(task.get("when")).partition(" | ")
    return truth == "bool" and DEFAULTS.get(option) is False


def test_deploy_has_at_most_twelve_rounds_beyond_connecting() -> None:
    tasks = rounds("deploy_slice.yml")
    counted = [task for task in tasks if CONNECTING not in task and not is_optional(task)]
    # The passwords of VNC, for those who let others reach it.
    assert [task["name"] for task in tasks if is_optional(task)] == [
        "Read the passwords of the screens, and make those that are missing"
    ]
    assert len(tasks) - len(counted) == 2
    assert 8 <= len(counted) <= 12, [task["name"] for task in counted]


def test_each_kind_is_realized_by_one_call() -> None:
    always = [task for task in tasks_of("realize.yml") if not is_optional(task)]
    modules = [next(key for key in task if key.startswith("cloudrepo.")) for task in always]
    kinds = ["qcow_overlay", "ovs_vlan", "dnsmasq_dhcp", "slice_nat", "qemu_vm"]
    assert [module.rpartition(".")[2] for module in modules] == kinds


def test_what_is_no_longer_wanted_goes_when_all_else_is_proved() -> None:
    last = yaml.safe_load((TASKS / "prove.yml").read_text(encoding="utf-8"))[-1]
    assert last["ansible.builtin.include_tasks"] == "retire.yml"
    assert "slices_failed_hosts | length == 0" in last["when"]
    modules = [next(key for key in task if key.startswith("cloudrepo.")) for task in tasks_of("retire.yml")]
    # In this order: a guest must not lose its disk and cables while it runs.
    assert [module.rpartition(".")[2] for module in modules] == ["qemu_vm", "qcow_overlay", "ovs_vlan"]
