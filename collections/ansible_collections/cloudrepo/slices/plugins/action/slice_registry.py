# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the registry who asks, which only the controller knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._run import actor, has_died

display = Display()

Execute = Callable[..., dict[str, Any]]


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return ask_registry(self._execute_module, self._task.args, task_vars or {})


def ask_registry(execute: Execute, args: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """Have the module do something; again if a hold of a run that died on this controller kept it from that.

    Again, too, if it was killed before it could answer: whatever it did by then, all of it can be asked for twice.

    Args:
        execute: the ``_execute_module`` of an action, which runs in a process that ansible-playbook forked.
        args: the module's options.
        variables: the task's variables.
    """
    asks = actor(variables, os.getppid())

    def execute_as(who: Mapping[str, str]) -> dict[str, Any]:
        wanted = {**args, "actor": dict(who)}
        return execute(module_name="cloudrepo.slices.slice_registry", module_args=wanted, task_vars=variables)

    result = execute_as(asks)
    if _was_killed(result):
        result = execute_as(asks)
    held = result.get("held")
    if held and has_died(held["run"]):
        display.display(f"slice {held['slice']}: {held['holder']} worked on it and has died; going on from there")
        result = execute_as({**asks, "dead_run": held["run"]})
    return result


def _was_killed(result: Mapping[str, Any]) -> bool:
    """Whether Ansible has what a module printed only, as that is no answer."""
    return "module_stdout" in result
