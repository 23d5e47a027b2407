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


def tasks_of(name: str) -> list[dict[str, Any]]:
    """The tasks of an entry point in the order they run, imports followed.

    What is included dynamically is rare, or for when something went wrong.
    """
    tasks: list[dict[str, Any]] = []
    for task in written(name):
        assert "loop" not in task, f"{task['name']}: would make rounds that are not counted"
        if "ansible.builtin.import_tasks" in task:
            tasks += tasks_of(task["ansible.builtin.import_tasks"])
        elif "ansible.builtin.include_tasks" in task:
            assert "when" in task, f"{task['name']}: would make rounds that are not counted"
        else:
            tasks.append(task)
    return tasks


def written(name: str) -> list[dict[str, Any]]:
    """The tasks in a file, blocks opened."""
    entries = yaml.safe_load((TASKS / name).read_text(encoding="utf-8"))
    return [task for entry in entries for task in entry.get("block", [entry])]


def rounds(playbook: str) -> list[dict[str, Any]]:
    (play,) = yaml.safe_load((COLLECTION / "playbooks" / playbook).read_text(encoding="utf-8"))
    assert play["gather_facts"] is False
    entries = [task["ansible.builtin.import_role"]["tasks_from"] for task in play["tasks"]]
    return [task for entry in entries for task in tasks_of(f"{entry}.yml")]


def is_optional(task: dict[str, Any]) -> bool:
    """Whether a task has an option among its conditions that is off by default."""
    when = task.get("when", [])
    conditions = [each.partition(" | ") for each in ([when] if isinstance(when, str) else when)]
    return any(truth == "bool" and DEFAULTS.get(option) is False for option, _filter, truth in conditions)


def test_the_rounds_of_a_deploy() -> None:
    tasks = rounds("deploy_slice.yml")
    assert [task["name"] for task in tasks if not is_optional(task)] == [
        "Read and check the spec",
        "Ask every host what it has",
        "Plan and reserve",
        "Create disks and ports, serve DHCP and NAT, start the VMs",
        "Record the outcome and show the slice",
    ]
    # What is rare has one condition, which costs a process for every host, and one that is looked at once.
    entries = [task for name in ("plan", "realize", "finish") for task in written(f"{name}.yml")]
    rare = [task["ansible.builtin.include_tasks"] for task in entries if "ansible.builtin.include_tasks" in task]
    assert rare == ["hold.yml", "{{ 'late.yml' if slices_late and not slices_any_failed else 'prove.yml' }}"]
    assert entries[[task["name"] for task in entries].index("Hold on to the slice")]["run_once"]
    assert not [task["name"] for task in tasks if is_optional(task)]


def test_the_rounds_of_a_delete_and_a_show() -> None:
    deleting, showing = rounds("delete_slice.yml"), rounds("show_slices.yml")
    assert [task["name"] for task in deleting] == [
        "Find out which slice is meant",
        "Ask every host what it has",
        "Note that the slice is being deleted",
        "Remove VMs and disks, NAT, DHCP and ports",
        "Forget the slice, and say what is left",
    ]
    assert [task["name"] for task in showing] == ["Ask every host what it has", "Show the slices"]
    for name in ("delete.yml", "show.yml"):
        assert not [task["name"] for task in written(name) if "ansible.builtin.include_tasks" in task]


def test_what_is_no_longer_wanted_goes_when_all_else_is_proved() -> None:
    wait, retire = yaml.safe_load((TASKS / "prove.yml").read_text(encoding="utf-8"))[:2]
    # In a block of its own: all hosts know by then whether one has waited in vain.
    assert "cloudrepo.slices.dnsmasq_dhcp_info" in wait["block"][0] and "rescue" in wait
    (last,) = retire["block"]
    assert last["ansible.builtin.include_tasks"] == "retire.yml"
    assert "slices_failed_hosts | length == 0" in last["when"]
    modules = [next(key for key in task if key.startswith("cloudrepo.")) for task in tasks_of("retire.yml")]
    # In this order: a guest must not lose its disk and cables while it runs.
    assert [module.rpartition(".")[2] for module in modules] == ["qemu_vm", "qcow_overlay", "ovs_vlan"]
