# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run reports while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["started", "ok", "changed", "skipped", "failed", "ignored", "unreachable"]


@dataclass(frozen=True)
class Event:
    """A step begins, or is over for one of its hosts.

    Attributes:
        step: what the playbook calls the step.
        number: which step it is, from 1.
        host: the inventory's name of the host, None when the step begins.
        status: ``started`` when the step begins, else what came of it on the host. ``ignored`` is a failure that the
            playbook goes on after.
        seconds: how long it took on the host.
        message: why it failed, in one line.
    """

    step: str
    number: int
    host: str | None = None
    status: Status = "started"
    seconds: float = 0.0
    message: str = ""
