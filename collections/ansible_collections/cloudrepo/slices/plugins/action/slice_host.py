# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have a host carry its share of a slice, in the quickest way that there is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_host
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, call

MODULE = Module("slice_host", _ensure_host, suboptions={"share": _ensure_host.SHARE})


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return call(self, MODULE, self._task.args, task_vars or {})
