# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recorded, printed and returned at the end of a run, whatever the registry says to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.cloudrepo.slices.plugins.action import slice_report

from ..plugin_utils.clusters import WEB, make_plan

RECORD = {**make_plan(WEB)["slice"], "status": "failed", "reason": "not deleted on worker2"}
OUTCOME = {"state": "status", "slice": "web", "status": "failed"}


class Run:
    """One run of the action with a registry whose answers are given."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, answers: list[Any], hostvars: Any = None, /, **args: Any
    ) -> None:
        self.asked, self.told, self.printed, self.warned = 0, {}, [], []

        def ask_registry(_action: Any, outcome: Any, _variables: Any) -> Any:
            self.asked += 1
            self.told = outcome
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        display = SimpleNamespace(
            display=lambda text, **_options: self.printed.append(text), warning=self.warned.append
        )
        monkeypatch.setattr(slice_report, "ask_registry", ask_registry)
        monkeypatch.setattr(slice_report, "display", display)
        monkeypatch.setattr(slice_report.time, "sleep", lambda seconds: None)
        task = SimpleNamespace(args=args, async_val=0, check_mode=False, diff=False, action="slice_report")
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
        action = slice_report.ActionModule(task, connection, None, None, None, None)
        self.result = action.run(None, {"hostvars": hostvars or {}})


def test_what_was_not_deleted_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(
        monkeypatch,
        [{"record": RECORD, "changed": True}],
        outcome=OUTCOME,
        message="deleted.",
        failure="not on worker2",
    )
    assert run.result == {"failed": True, "msg": "not on worker2"} and run.printed == []


def test_a_slice_that_failed_is_shown_and_then_why(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [{"record": RECORD, "changed": True}], outcome=OUTCOME, failure="slice web failed: x")
    assert run.result["failed"] and len(run.printed) == 1 and "[failed]" in run.printed[0]


def test_a_lost_connection_is_tried_again_and_hides_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = AnsibleConnectionFailure("no route")
    run = Run(monkeypatch, [lost, {"record": RECORD, "changed": True}], outcome=OUTCOME)
    assert run.asked == 2 and run.result["changed"]
    run = Run(monkeypatch, [lost, lost, lost], outcome=OUTCOME, failure="slice web failed: x")
    assert run.asked == 3
    assert run.result == {"failed": True, "msg": "slice web failed: x; the registry can't be reached: no route"}


def test_who_is_refused_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"failed": True, "msg": "bob works on it", "held": {"run": "r"}}
    run = Run(monkeypatch, [held], outcome=OUTCOME)
    assert run.asked == 1 and run.result["msg"] == "bob works on it"


def test_a_host_that_does_not_say_which_vms_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "worker1": {"unreachable": True, "msg": "x"},
        "worker2": {"failed": True, "msg": "no\x1b[31m sudo"},
        "worker3": {"vms": [{"slice": "web", "name": "db", "pid": 7, "status": "running"}]},
        "worker4": {},
    }
    printed, warned = [], []
    display = SimpleNamespace(display=lambda text, **_options: printed.append(text), warning=warned.append)
    monkeypatch.setattr(slice_report, "display", display)
    shown = slice_report.show([RECORD], answers, "text")
    assert [vm["pid"] for vm in shown["slices"][0]["vms"]] == [None, 7] and len(printed) == 1
    assert warned == [
        "host worker1 is unreachable: whether its VMs run is not known",
        "host worker2 no\\x1b[31m sudo: whether its VMs run is not known",
        "host worker4 was not asked (--limit?): whether its VMs run is not known",
    ]


def test_what_waits_for_a_restart_is_said_where_the_task_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hostvars = {"worker1": {"slices_realized": {"vms": [], "pending": ["vm db: cores needs a restart"]}}}
    for warn in (False, True):
        run = Run(monkeypatch, [], hostvars, slices=[RECORD], hosts=["worker1"], warn_pending=warn)
        assert run.warned == ["vm db: cores needs a restart"] * warn


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "no KVM\x1b[1m"}, {"unreachable": True}])
def test_a_host_whose_failure_was_ignored_leaves_no_slice_that_runs(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    """As after ``ignore_errors`` on a whole play, which keeps a failed task from its rescue."""
    hostvars = {"worker1": {"slices_realized": {"vms": []}}, "worker2": {"slices_realized": answer}}
    asked = {"outcome": {**OUTCOME, "status": "running"}, "slices": [RECORD], "hosts": list(hostvars)}
    run = Run(monkeypatch, [{"record": RECORD, "changed": True}], hostvars, **asked)
    assert (run.told["status"], run.told["reason"]) == ("failed", f"worker2: {answer.get('msg', 'is unreachable')}")
    why = "no KVM\\x1b[1m" if "msg" in answer else "is unreachable"
    assert run.result == {"failed": True, "msg": f"slice web failed: worker2: {why}"}
    # Nothing is reserved in check mode, so that nothing is recorded.
    run = Run(monkeypatch, [], hostvars, **asked | {"outcome": {}, "reason": "disk full"})
    assert run.result == {"failed": True, "msg": "slice web failed: disk full"} and run.asked == 0
