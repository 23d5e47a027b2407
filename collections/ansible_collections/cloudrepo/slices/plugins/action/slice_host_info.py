# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a host what it has; in the same round the registry, where that is no file on such a host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry, registry_url
from ansible_collections.cloudrepo.slices.plugins.module_utils import _host_info
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import as_text
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, call
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._preload import preload

MODULE = Module("slice_host_info", _host_info, "tell")

preload()  # Showing slices begins with this plugin.


class ActionModule(ActionBase):
    """Runs the module of the same name, and ``slice_registry`` if need be."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args, variables = dict(self._task.args), task_vars or {}
        is_slice_host = args.get("roles") != []
        read: dict[str, Any] = {}
        if args.get("registry_path") and (registry_url(self, variables) or not is_slice_host):
            answer = ask_registry(self, {"state": "read", "path": args.pop("registry_path")}, variables)
            if answer.get("failed"):
                return answer
            read = as_text(answer["registry"], args.get("slice"))
            if not is_slice_host:
                return {"changed": False, **read}
        return {**call(self, MODULE, args, variables), **read}
