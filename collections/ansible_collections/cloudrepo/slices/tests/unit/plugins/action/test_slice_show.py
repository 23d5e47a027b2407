# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is shown, and what is said if there is nothing to be shown."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.cloudrepo.slices.plugins.action import slice_report, slice_show

from ..plugin_utils.clusters import WEB, make_plan

RECORD = {**make_plan(WEB)["slice"], "status": "running", "reason": ""}
GROUPS = {"workers": ["worker1", "worker2"], "network_node": ["network1"]}
KNOWN = {"registry": json.dumps({"slices": [RECORD]}), "workers": {"web": ["worker2", "gone"]}}
EMPTY = {"registry": json.dumps({"slices": []}), "workers": {}}
VMS = {"vms": json.dumps([{"slice": "web", "name": "db", "pid": 7, "status": "running"}])}


class Run:
    """One run of the action, with what the hosts said and with the registry's answers to what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, known: Any, *answers: Any, **args: Any) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.printed: list[str] = []
        left = list(answers)
        self.context = SimpleNamespace(no_log=False)

        def ask_registry(_action: Any, asked: Any, _variables: Any) -> Any:
            self.asked.append((asked["state"], self.context.no_log))
            return left.pop(0)

        display = SimpleNamespace(display=lambda text, **_options: self.printed.append(text), warning=lambda text: None)
        monkeypatch.setattr(slice_show, "ask_registry", ask_registry)
        monkeypatch.setattr(slice_report, "display", display)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"), _play_context=self.context)
        args = {"registry_path": "/r", "registry_host": "network1", **args}
        task = SimpleNamespace(args=args, async_val=0, check_mode=False, diff=False, action="slice_show")
        said = {"network1": known, "worker1": {"vms": "[]"}, "worker2": VMS}
        self.result = slice_show.ActionModule(task, connection, None, None, None, None).run(
            None,
            {
                "groups": GROUPS,
                "hostvars": {host: {"slices_host_info": answer} for host, answer in said.items()},
                "ansible_play_hosts": list(said),
            },
        )


def test_the_registry_is_not_asked_again_for_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, KNOWN)
    # A worker that the inventory no longer has is not waited for.
    assert [vm["pid"] for vm in run.result["slices"][0]["vms"]] == [None, 7]
    assert run.asked == [] and "[running]" in run.printed[0]


def test_passwords_are_read_unlogged_and_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, KNOWN, {"passwords": {"web": {"db": "kD3wZpT9"}}}, passwords=True)
    assert run.asked == [("passwords", True)] and run.context.no_log is False
    assert "Password: kD3wZpT9" in run.printed[0] and "kD3wZpT9" not in str(run.result)


def test_what_is_no_answer_may_have_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = '{"passwords": {"web": {"db": "kD3wZpT9"'
    killed = {"failed": True, "msg": f"The module gave no answer (rc=137): {cut}", "module_stdout": cut}
    run = Run(monkeypatch, KNOWN, killed, passwords=True)
    assert run.result["failed"] and "kD3wZpT9" not in str(run.result) and run.printed == []
    run = Run(monkeypatch, KNOWN, {"failed": True, "msg": "only bob may"}, passwords=True)
    assert run.result["msg"] == "the passwords can't be read: only bob may"


def test_who_knows_nothing_asks_whether_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"registry": {"slices": [], "next_id": 1000}}
    run = Run(monkeypatch, EMPTY, now)
    assert run.asked == [("read", False)] and run.printed == ["No slices."]
    with pytest.raises(AnsibleActionFail, match=r"^there is no slice no\\x1bsuch$"):
        Run(monkeypatch, EMPTY, now, slice="no\x1bsuch")
    stamps = {"host": {"stamps": json.dumps([{"name": "VM web/db", "id": 1002, "slice": "web"}])}}
    with pytest.raises(AnsibleActionFail, match=r"^The registry does not know any slice, but there is VM web/db"):
        Run(monkeypatch, {**EMPTY, **stamps}, now)
    with pytest.raises(AnsibleActionFail, match=r"^registry on network1: no route$"):
        Run(monkeypatch, {"unreachable": True, "msg": "no route"})
