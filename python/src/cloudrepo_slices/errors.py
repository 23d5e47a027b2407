# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a run can fail."""

from __future__ import annotations

from .results import Result


class SliceError(Exception):
    """A run failed. Its text is the reason, in one line.

    Attributes:
        result: how far the run came: its steps, and the task that failed with its host and message.
        output: all that ansible-playbook printed.
    """

    def __init__(self, reason: str, result: Result, output: str) -> None:
        super().__init__(reason)
        self.result = result
        self.output = output


class SliceCancelled(SliceError):
    """A run was cancelled. What it left is for the next ``deploy`` to go on with, or for ``delete`` to remove."""
