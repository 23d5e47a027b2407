# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the registry what came of a run, and the user what the slices are: as text, as JSON, and as statistics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
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


class ActionModule(ActionBase):
    """Runs on the controller, and has ``slice_registry`` note the outcome where it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "slices": {"type": "list", "elements": "dict", "default": []},
                "registry": {"type": "dict", "default": {}},
                "outcome": {"type": "dict", "default": {}},
                "hosts": {"type": "list", "elements": "str", "default": []},
                "answers": {"type": "str", "default": "slices_host_info"},
                "pending": {"type": "list", "elements": "str", "default": []},
                "passwords": {"type": "dict", "default": {}, "no_log": True},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "message": {"type": "str", "default": ""},
                "failure": {"type": "str", "default": ""},
            }
        )
        variables = task_vars or {}
        answers = {host: variables["hostvars"][host].get(args["answers"]) or {} for host in args["hosts"]}
        if args["outcome"].get("status") == "running":
            refuse_failed(args, answers)
        told = self._tell_registry(args["outcome"], variables) if args["outcome"] else {}
        if told.get("failed"):
            return {**told, "msg": "; ".join(filter(None, [printable(args["failure"]), told.get("msg")]))}
        records = [told["record"]] if told.get("record") else args["registry"].get("slices", args["slices"])
        for host, answer in answers.items():
            if "vms" not in answer and not args["failure"]:
                why = _trouble(answer) or "was not asked (--limit?)"
                display.warning(printable(f"host {host} {why}: whether its VMs run is not known"))
        for text in args["pending"]:
            display.warning(text)
        slices = with_processes(records, [vm for answer in answers.values() for vm in answer.get("vms", ())])
        text = args["message"] or render(slices)
        if not args["failure"] or (slices and not args["message"]):
            # Passwords are printed, and neither logged nor returned: callbacks keep results, workflows hand them on.
            shown = with_passwords(slices, args["passwords"])
            said = args["message"] or render(shown)
            printed = json.dumps({"slices": shown}, indent=2) if args["output"] == "json" else said
            display.display(printed, screen_only=bool(args["passwords"]))
        if args["failure"]:
            # Nothing else: all of a failed result is printed.
            return {"failed": True, "msg": printable(args["failure"])}
        return {
            "changed": told.get("changed", False),
            "slices": slices,
            "text": text,
            **({"diff": told["diff"]} if "diff" in told else {}),
            # The form in which set_stats hands data to ansible-runner and AWX workflows.
            "ansible_stats": {"data": {"slices": slices}, "per_host": False, "aggregate": False},
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


def refuse_failed(args: dict[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Make a failure of an outcome that says that a slice runs, if a host could not do its part.

    A deploy knows of those by itself, unless whoever called it had Ansible ignore errors.
    """
    reasons = [f"{host}: {_trouble(answer)}" for host, answer in answers.items() if _trouble(answer)]
    if reasons:
        reason = printable("; ".join(reasons))
        args["outcome"] = {**args["outcome"], "status": "failed", "reason": reason}
        args["failure"] = f"slice {args['outcome']['slice']} failed: {reason}"


def _trouble(answer: Mapping[str, Any]) -> str:
    """What kept a host from what it was asked for."""
    if answer.get("unreachable"):
        return "is unreachable"
    return str(answer.get("msg", "it said nothing")) if answer.get("failed") else ""


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
