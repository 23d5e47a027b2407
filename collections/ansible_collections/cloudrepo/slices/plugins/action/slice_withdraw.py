# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find out who has something of a slice that is to be deleted, and note that it is being deleted."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._asked import (
    AskedError,
    answer,
    refuse_forgotten,
    registry_answer,
)
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable


class Holders(NamedTuple):
    """The hosts that have something of a slice: those that answered, those that did not, and those not in this run.

    Without those that are lost for good, ``silent`` and ``absent`` keep a slice from being deleted. ``unasked`` has
    the lost ones, too.
    """

    answering: list[str]
    silent: list[str]
    absent: list[str]
    unasked: list[str]


class ActionModule(ActionBase):
    """Runs on the controller, and has ``slice_registry`` make the note where it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "slice": {"type": "str", "required": True},
                "registry_path": {"type": "path", "required": True},
                "registry_host": {"type": "str", "required": True},
                "lost_hosts": {"type": "list", "elements": "str", "default": []},
                "admins": {"type": "list", "elements": "str", "default": []},
                "hold_timeout": {"type": "int", "default": 900},
            }
        )
        variables = task_vars or {}
        hosts, in_run = variables["hostvars"], variables["ansible_play_hosts_all"]
        try:
            known = registry_answer(hosts, args["registry_host"])
            record = next(
                (each for each in json.loads(known["registry"])["slices"] if each["name"] == args["slice"]), None
            )
            if record is None:
                now = ask_registry(self, {"path": args["registry_path"], "state": "read"}, variables)
                if now.get("failed") or now.get("unreachable"):
                    return now
                refuse_forgotten(now["registry"], args["slice"], {host: answer(hosts, host) for host in in_run})
                return {"changed": False, "known": False, "slice": {}, "hosts": [], "unasked": []}
            workers = known["workers"].get(args["slice"], [])
            node = record.get("network_node") or variables["groups"]["network_node"][0]
            answers = {host: answer(hosts, host) for host in (*workers, node) if host in in_run}
            found = holders([*workers, node], answers, in_run, args["lost_hosts"])
            refuse_incomplete(args["slice"], found, answers)
        except AskedError as error:
            raise AnsibleActionFail(str(error)) from error
        noted = ask_registry(
            self,
            {
                "path": args["registry_path"],
                "state": "status",
                "slice": args["slice"],
                "status": "deleting",
                "reason": "",
                "expected": {"id": record["id"], "workers": workers},
                "admins": args["admins"],
                "hold_timeout": args["hold_timeout"],
            },
            variables,
        )
        if noted.get("failed") or noted.get("unreachable"):
            return noted
        return {
            "changed": noted["changed"],
            "known": True,
            "slice": {"id": record["id"], "name": record["name"]},
            # Of a slice that another run has deleted meanwhile there may be a new one, which is not this run's.
            "hosts": found.answering if noted.get("record") else [],
            "unasked": found.unasked,
            **({"diff": noted["diff"]} if "diff" in noted else {}),
        }


def holders(
    hosts: Sequence[str], answers: Mapping[str, Mapping[str, Any]], in_run: Collection[str], lost: Iterable[str]
) -> Holders:
    """Who of the hosts that have something of a slice has said what it has."""
    ours = list(dict.fromkeys(hosts))
    answering = [host for host in ours if "host" in answers.get(host, {})]
    unasked = [host for host in ours if host not in answering]
    expected = [host for host in unasked if host not in set(lost)]
    return Holders(
        answering,
        [host for host in expected if host in in_run],
        [host for host in expected if host not in in_run],
        unasked,
    )


def refuse_incomplete(name: str, found: Holders, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """A slice that can't be deleted whole is not touched.

    Raises:
        AskedError: hosts that have something of it are not in this run, or gave no answer.
    """
    if found.absent:
        raise AskedError(
            printable(
                f"slice {name} has parts on {', '.join(found.absent)}, "
                "not in this run (removed from the inventory, or --limit?)"
            )
        )
    if found.silent:
        reasons = [f"{host}: {_reason(answers[host])}" for host in found.silent]
        raise AskedError(
            printable(
                f"slice {name} has parts on {', '.join(found.silent)}, which can't be reached, so nothing is deleted "
                f"(a worker that is gone for good is named in slices_lost_hosts): {'; '.join(reasons)}"
            )
        )


def _reason(answer: Mapping[str, Any]) -> str:
    return " ".join(str(answer.get("msg", "it gave no answer")).split())
