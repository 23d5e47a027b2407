# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the registry who asks, which only the controller knows, and where it is, which no task's arguments say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_registry
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, call
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._run import actor, has_died

display = Display()

MODULE = Module("slice_registry", _ensure_registry)


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return ask_registry(self, self._task.args, task_vars or {})


def ask_registry(action: ActionBase, args: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """Have the module do something; again if a hold of a run that died on this controller kept it from that.

    Again, too, if it was killed before it could answer: whatever it did by then, all of it can be asked for twice.

    Args:
        action: the one that asks. It runs in a process that ansible-playbook forked.
        args: the module's options.
        variables: the task's variables.
    """
    asks = actor(variables, os.getppid())
    url = registry_url(action, variables)
    # Not a task's argument: callbacks record those, and it may hold a password.
    args = {"url": url, **args} if url else args

    def execute_as(who: Mapping[str, str]) -> dict[str, Any]:
        return call(action, MODULE, {**args, "actor": dict(who)}, variables)

    result = execute_as(asks)
    if _was_killed(result):
        result = execute_as(asks)
    held = result.get("held")
    if held and has_died(held["run"]):
        display.display(f"slice {held['slice']}: {held['holder']} worked on it and has died; going on from there")
        result = execute_as({**asks, "dead_run": held["run"]})
    return result


def registry_url(action: ActionBase, variables: Mapping[str, Any]) -> str:
    """The URL of a registry that is no file, else empty."""
    return str(action._templar.template(variables.get("slices_registry_url")) or "")


def _was_killed(result: Mapping[str, Any]) -> bool:
    """Whether Ansible has what a module printed only, as that is no answer."""
    return "module_stdout" in result
