# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the registry what came of a run, and the user what the slices are: as text, as JSON, and as statistics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._report import render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable

display = Display()

# All is done but this: another try is cheaper than another run.
_TRIES = 3
_ANSWERS = "slices_realized"


class ActionModule(ActionBase):
    """Runs on the controller, and has ``slice_registry`` note the outcome where it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "slices": {"type": "list", "elements": "dict", "default": []},
                "outcome": {"type": "dict", "default": {}},
                "hosts": {"type": "list", "elements": "str", "default": []},
                "reason": {"type": "str", "default": ""},
                "warn_pending": {"type": "bool", "default": False},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "message": {"type": "str", "default": ""},
                "failure": {"type": "str", "default": ""},
            }
        )
        variables = task_vars or {}
        answers = {host: variables["hostvars"][host].get(_ANSWERS) or {} for host in args["hosts"]}
        outcome, failure = args["outcome"], printable(args["failure"])
        reason = args["reason"] or failures(answers)
        if reason:
            outcome = outcome and {**outcome, "status": "failed", "reason": reason}
            failure = printable(f"slice {args['slices'][0]['name']} failed: {reason}")
        told = self._tell_registry(outcome, variables) if outcome else {}
        if told.get("failed"):
            return {**told, "msg": "; ".join(filter(None, [failure, told.get("msg")]))}
        records = [told["record"]] if told.get("record") else args["slices"]
        if args["warn_pending"]:
            for text in [text for answer in answers.values() for text in answer.get("pending", ())]:
                display.warning(text)
        if failure:
            if records and not args["message"]:
                show(records, answers, args["output"], warn=False)
            # Nothing else: all of a failed result is printed.
            return {"failed": True, "msg": failure}
        return {
            **show(records, answers, args["output"], message=args["message"]),
            "changed": told.get("changed", False),
            **({"diff": told["diff"]} if "diff" in told else {}),
        }

    def _tell_registry(self, outcome: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        for left in reversed(range(_TRIES)):
            try:
                result = ask_registry(self, outcome, variables)
            except AnsibleConnectionFailure as error:
                result = {"failed": True, "msg": f"the registry can't be reached: {error}"}
            # Who holds the slice will hold it in a second, too.
            if not result.get("failed") or result.get("held") or not left:
                break
            time.sleep(1)
        return result


def failures(answers: Mapping[str, Mapping[str, Any]]) -> str:
    """Which hosts could not do their part, and why; empty if none.

    A deploy knows of those by itself, unless whoever called it had Ansible ignore errors.
    """
    return "; ".join(f"{host}: {_trouble(answer)}" for host, answer in answers.items() if _trouble(answer))


def _trouble(answer: Mapping[str, Any]) -> str:
    """What kept a host from what it was asked for."""
    if answer.get("unreachable"):
        return "is unreachable"
    return str(answer.get("msg", "it said nothing")) if answer.get("failed") else ""


def show(
    records: Sequence[Mapping[str, Any]],
    answers: Mapping[str, Mapping[str, Any]],
    output: str,
    passwords: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    message: str = "",
    warn: bool = True,
) -> dict[str, Any]:
    """Print slices, and make them an action's result.

    Args:
        records: as the registry has them.
        answers: what the hosts that have VMs of them said, by host. A warning names those that said nothing of VMs.
        output: ``text`` or ``json``.
        passwords: VNC passwords by slice and VM. They are printed, and neither logged nor returned: callbacks keep
            results, and workflows hand them on.
        message: is printed instead of the topology as text.
        warn: whether to warn.
    """
    for host, answer in answers.items():
        if warn and "vms" not in answer:
            why = _trouble(answer) or "was not asked (--limit?)"
            display.warning(printable(f"host {host} {why}: whether its VMs run is not known"))
    slices = with_processes(records, [vm for answer in answers.values() for vm in answer.get("vms", ())])
    shown = with_passwords(slices, passwords)
    printed = json.dumps({"slices": shown}, indent=2) if output == "json" else message or render(shown)
    display.display(printed, screen_only=bool(passwords))
    return {
        "changed": False,
        "slices": slices,
        "text": message or render(slices),
        # The form in which set_stats hands data to ansible-runner and AWX workflows.
        "ansible_stats": {"data": {"slices": slices}, "per_host": False, "aggregate": False},
    }


def with_passwords(
    slices: Sequence[Mapping[str, Any]], passwords: Mapping[str, Mapping[str, str]]
) -> Sequence[Mapping[str, Any]]:
    """The records with each VM's ``vnc_password``, if there is any password at all."""
    if not passwords:
        return slices
    return [
        {
            **record,
            "vms": [{**vm, "vnc_password": passwords.get(record["name"], {}).get(vm["name"])} for vm in record["vms"]],
        }
        for record in slices
    ]


def with_processes(slices: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records with each VM's ``pid``, ``state`` and ``console``, null where it was not seen.

    Who works on one slice does not say of which it is.
    """
    processes = {(vm.get("slice", slices[0]["name"]), vm["name"]): vm for vm in found} if slices else {}
    return [
        {
            **record,
            "vms": [
                {**vm, "pid": process.get("pid"), "state": process.get("status"), "console": process.get("console")}
                for vm in record["vms"]
                for process in [processes.get((record["name"], vm["name"]), {})]
            ],
        }
        for record in slices
    ]
