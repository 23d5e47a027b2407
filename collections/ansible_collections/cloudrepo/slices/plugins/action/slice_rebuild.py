# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put the registry together from what every host carries, and have it stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._rebuild import Host, RebuildError, rebuild

display = Display()


class ActionModule(ActionBase):
    """Works on the controller, and has ``slice_registry`` write where it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "registry_path": {"type": "path", "required": True},
                "admins": {"type": "list", "elements": "str", "default": []},
                "lost_hosts": {"type": "list", "elements": "str", "default": []},
            }
        )
        variables = task_vars or {}
        groups = variables["groups"]
        everybody = dict.fromkeys([*groups["workers"], *groups["network_node"]])
        names = [name for name in everybody if name not in args["lost_hosts"]]
        try:
            rebuilt = rebuild([host_stamps(name, variables) for name in names], args["lost_hosts"])
        except RebuildError as error:
            raise AnsibleActionFail(f"the registry can't be rebuilt: {error}") from error
        wanted = {
            "path": args["registry_path"],
            "state": "rebuilt",
            "records": rebuilt.records,
            "next_id": rebuilt.next_id,
            "last_worker": rebuilt.last_worker,
            "for_admins": True,
            "admins": args["admins"],
        }
        stored = ask_registry(self, wanted, variables)
        if stored.get("failed") or stored.get("unreachable"):
            raise AnsibleActionFail(stored.get("msg", "the registry can't be reached"), result=stored)
        for warning in rebuilt.warnings:
            display.warning(warning)
        result = {"changed": stored["changed"], "slices": stored["registry"]["slices"], "damaged": stored["damaged"]}
        return {**result, "diff": stored["diff"]} if self._task.diff else result


def host_stamps(name: str, variables: Mapping[str, Any]) -> Host:
    """What ``slice_stamps_info`` found on a host. One that is not asked may carry what no other does.

    Raises:
        RebuildError: it found nothing out.
    """
    found = variables["hostvars"][name]
    info = found.get("slices_stamps") or {}
    if not info:
        raise RebuildError(f"host {name} is not part of this run (--limit?)")
    if info.get("unreachable"):
        raise RebuildError(f"host {name} is unreachable")
    if info.get("failed"):
        raise RebuildError(f"host {name} can't be read: {info.get('msg', 'it gave no reason')}")
    return Host(name, str(found.get("ansible_host", name)), info["stamps"])
