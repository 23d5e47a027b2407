# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-runner 2.4.3 reported of real runs of ansible-core 2.19.14, told as events and results."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ansible_runner import interface
from cloudrepo_slices import Event, Failure
from cloudrepo_slices._recorder import Recorder, one_line
from cloudrepo_slices.results import read_slice

REALIZE = "Create disks and ports, serve DHCP and NAT, start the VMs"


def recorded(name: str) -> list[dict[str, Any]]:
    """A run's reports: `failed` is a deploy that could not make its NAT, `lost` one without worker3."""
    reports: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded" / f"{name}.json").read_text())
    return reports


def take_in(reports: list[dict[str, Any]]) -> tuple[Recorder, list[Event]]:
    recorder = Recorder()
    events = [event for report in reports if (event := recorder.add(report))]
    return recorder, events


def test_a_failed_deploy_says_what_failed_first_and_what_the_playbook_says_of_it() -> None:
    recorder, events = take_in(recorded("failed"))
    result = recorder.result(1.5)
    assert result.failed == Failure(REALIZE, "network1", "uplink nosuch0 does not exist")
    assert (
        recorder.reason("") == "slice bad failed: network1: uplink nosuch0 does not exist; what it had made is removed"
    )
    assert (result.changed, result.seconds) == (True, 1.5)
    failed = [event for event in events if event.status == "failed"]
    assert [(event.step, event.host, event.message) for event in failed] == [
        (REALIZE, "network1", "uplink nosuch0 does not exist"),
        ("Show the slice", "localhost", recorder.reason("")),
    ]


def test_each_step_begins_once_and_ends_once_on_each_host() -> None:
    recorder, events = take_in(recorded("lost"))
    begun = [event for event in events if event.host is None]
    assert [event.number for event in begun] == list(range(1, len(begun) + 1))
    assert {event.status for event in begun} == {"started"}
    ended = [event for event in events if event.host is not None]
    assert set(Counter((event.number, event.host) for event in ended).values()) == {1}
    assert {event.host for event in ended} == {"localhost", "worker1", "worker2", "worker3", "network1"}
    steps = recorder.result(0).steps
    assert [step.name for step in steps] == [event.step for event in begun]
    [asked] = [step for step in steps if step.name == "Ask every host what it has"]
    # localhost was skipped.
    assert set(asked.hosts) == {"worker1", "worker2", "worker3", "network1"}
    assert 0 < max(asked.hosts.values()) <= asked.seconds


def test_hosts_that_are_at_different_tasks_are_told_apart(tmp_path: Path) -> None:
    """Reported by a run of this test's own: one host waits while the other is done with the task after it."""
    done = tmp_path / "done"
    wait = {"name": "Wait", "ansible.builtin.wait_for": {"path": str(done), "timeout": 30}, "when": "waits"}
    # Its result is in before `Touch` begins, which is what `Wait` waits for.
    ping = {"name": "Ping", "ansible.builtin.ping": {}, "when": "not waits"}
    touch = {"name": "Touch", "ansible.builtin.file": {"path": str(done), "state": "touch"}, "when": "not waits"}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    runner = interface.run(  # type: ignore[no-untyped-call]
        private_data_dir=str(tmp_path),
        playbook=[{"hosts": "all", "strategy": "free", "gather_facts": False, "tasks": [wait, ping, touch]}],
        inventory={"all": {"hosts": {"slow": {"waits": True}, "fast": {"waits": False}}, "vars": local}},
        quiet=True,
    )
    assert runner.status == "successful"
    recorder, events = take_in(list(runner.events))
    ended = [(event.step, event.host, event.status) for event in events if event.host is not None]
    assert ended.index(("Ping", "fast", "ok")) < ended.index(("Wait", "slow", "ok"))
    begun = {event.number: event.step for event in events if event.host is None}
    assert all(begun[event.number] == event.step for event in events)
    hosts = [(step.name, host) for step in recorder.result(0).steps for host in step.hosts]
    assert sorted(hosts) == [("Ping", "fast"), ("Touch", "fast"), ("Wait", "slow")]


def test_what_failed_unseen_has_the_reason_that_the_playbook_gives() -> None:
    """As where VNC passwords are about: the task is not logged."""
    reports = recorded("failed")
    [first, _last] = [report["event_data"] for report in reports if report["event"] == "runner_on_failed"]
    first["res"] = {"censored": "the output has been hidden", "changed": True}
    recorder, _events = take_in(reports)
    assert recorder.result(0).failed == Failure(REALIZE, "network1", recorder.reason(""))
    assert "uplink nosuch0 does not exist" in recorder.reason("")


def test_a_lost_host_that_is_done_without_is_a_warning_and_no_failure() -> None:
    reports = recorded("lost")
    recorder, events = take_in(reports)
    [lost] = [event for event in events if event.status == "unreachable"]
    assert lost.host == "worker3" and "No route to host" in lost.message
    result = recorder.result(0)
    assert result.failed is None
    assert result.warnings == ("worker worker3 is unreachable: it gets no new VMs",)
    [record] = recorder.data["slices"]
    assert read_slice(record).vms[0].addresses == ("10.60.7.10", "192.168.100.10")

    # The same host, lost for good: only the statistics differ.
    reports[-1]["event_data"]["dark"] = {"worker3": 1}
    failed = take_in(reports)[0].result(0).failed
    assert failed is not None and failed.host == "worker3"


def test_without_a_failed_task_the_reason_is_what_ansible_said() -> None:
    said = "\x1b[0;31m[ERROR]: the playbook: cloudrepo.slices.deploy_slice could not be found\x1b[0m\r\n"
    assert Recorder().reason(said) == "the playbook: cloudrepo.slices.deploy_slice could not be found"
    assert (
        Recorder().reason("The command was not found or was not executable: ansible-playbook.\n").endswith("playbook.")
    )
    assert Recorder().reason("") == "it gave no reason"


def test_a_reason_is_one_line_that_controls_no_terminal() -> None:
    assert one_line("a\n  b\x1b[2J\u202e") == "a b\\x1b[2J\\u202e"
    assert len(one_line("x" * 5000)) == 1000
