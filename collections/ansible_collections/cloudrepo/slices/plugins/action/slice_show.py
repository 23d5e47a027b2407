# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show what the registry has, with what the workers say of their VMs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.action.slice_report import show
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._asked import (
    AskedError,
    answer,
    refuse_forgotten,
    registry_answer,
)
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._inventory import check_groups
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable


class ActionModule(ActionBase):
    """Runs on the controller, and has ``slice_registry`` say more where it is delegated to, if need be."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "slice": {"type": "str"},
                "registry_path": {"type": "path", "required": True},
                "registry_host": {"type": "str", "required": True},
                "passwords": {"type": "bool", "default": False, "no_log": False},
                "admins": {"type": "list", "elements": "str", "default": []},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
            }
        )
        variables = task_vars or {}
        hosts, workers = variables["hostvars"], variables["groups"].get("workers", [])
        try:
            check_groups(variables["groups"], args["registry_host"], ["network_node"])
            known = registry_answer(hosts, args["registry_host"])
            if not known["workers"] and workers:
                now = ask_registry(self, {"path": args["registry_path"], "state": "read"}, variables)
                if now.get("failed") or now.get("unreachable"):
                    return now
                in_run = {host: answer(hosts, host) for host in variables["ansible_play_hosts"]}
                refuse_forgotten(now["registry"], args["slice"], in_run)
        except (AskedError, SpecError) as error:
            raise AnsibleActionFail(printable(str(error))) from error
        if args["slice"] and not known["workers"]:
            raise AnsibleActionFail(printable(f"there is no slice {args['slice']}"))
        secrets: Mapping[str, Any] = {"passwords": {}}
        if args["passwords"]:
            with self._unlogged():
                asked = {"path": args["registry_path"], "state": "passwords", "admins": args["admins"]}
                secrets = ask_registry(self, asked, variables)
            if secrets.get("failed") or secrets.get("unreachable"):
                # Of what is no answer, the message has a part.
                why = "what the registry's host said is no answer" if "module_stdout" in secrets else secrets["msg"]
                return {"failed": True, "msg": f"the passwords can't be read: {why}"}
        having = dict.fromkeys(host for some in known["workers"].values() for host in some if host in workers)
        return show(
            json.loads(known["registry"])["slices"],
            {host: answer(hosts, host) for host in having},
            args["output"],
            secrets["passwords"],
        )

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """With -vvv the connection prints what a host says, unless a task is not logged. This one is, but for this."""
        context = self._connection._play_context
        before, context.no_log = context.no_log, True
        try:
            yield
        finally:
            context.no_log = before
