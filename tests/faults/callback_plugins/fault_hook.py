# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stops a play where the fault harness says so: before its n-th task, or before the task of a name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault_hook
type: aggregate
short_description: Hook of the fault harness
description: Counts tasks; at the one that E(FAULTS_TASK) names it signals its own play, or waits for the harness.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fault_hook"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.struck = False

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._boundary(task.get_name().rpartition(" : ")[2])

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._boundary(task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._boundary("the end")

    def _boundary(self, name: str) -> None:
        self.count += 1
        if "FAULTS_LOG" in os.environ:
            with open(os.environ["FAULTS_LOG"], "a", encoding="utf-8") as log:
                log.write(f"{name}\n")
        if os.environ.get("FAULTS_TASK") not in (str(self.count), name) or self.struck:
            return
        self.struck = True
        hit = Path(os.environ["FAULTS_HIT"])
        hit.write_text(name)
        kind = os.environ["FAULTS_DO"]
        if kind == "SIGINT":
            os.killpg(os.getpgrp(), signal.SIGINT)  # As a terminal does.
        elif kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            while hit.exists():
                time.sleep(0.02)
