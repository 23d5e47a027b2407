# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-runner reports, as events while a run goes on and summed up at its end. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from .events import Event, Status
from .results import Failure, Result, Step

_LONGEST = 1000
_NO_REASON = "it gave no reason"
_ENDINGS: dict[str, Status] = {
    "runner_on_ok": "ok",
    "runner_on_skipped": "skipped",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(r"^(?:\[ERROR\]:|ERROR!) *(.+)", re.MULTILINE)


@dataclass
class _OpenStep:
    name: str
    began: datetime
    hosts: dict[str, float] = field(default_factory=dict)


class Recorder:
    """Takes in what a run reports, in its order.

    Attributes:
        pid: that of ansible-playbook, once it has reported anything.
        data: what the playbook handed to ``set_stats``.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self.data: Mapping[str, Any] = {}
        self._steps: list[_OpenStep] = []
        self._numbers: dict[str | None, int] = {}
        self._latest = datetime.min
        self._failures: list[Failure] = []
        self._lost: list[Failure] = []
        self._warnings: list[str] = []
        self._stats: Mapping[str, Any] = {}

    def add(self, raw: Mapping[str, Any]) -> Event | None:
        """What that tells about a step, if anything."""
        self.pid = raw.get("pid", self.pid)
        self._latest = datetime.fromisoformat(raw["created"]) if "created" in raw else self._latest
        kind, data = raw.get("event", ""), raw.get("event_data", {})
        if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            self._steps.append(_OpenStep(data["task"], self._latest))
            self._numbers[data.get("task_uuid")] = len(self._steps)
            return Event(data["task"], len(self._steps))
        if kind == "playbook_on_stats":
            self._stats, self.data = data, data.get("artifact_data", {})
        if kind in _ENDINGS and self._steps:
            return self._host_ended(_ENDINGS[kind], data)
        return None

    def _host_ended(self, status: Status, data: Mapping[str, Any]) -> Event:
        # Not always the latest: hosts may be at different tasks.
        number = self._numbers.get(data.get("task_uuid"), len(self._steps))
        step, host, seconds, answer = (
            self._steps[number - 1],
            data["host"],
            data.get("duration") or 0.0,
            data.get("res") or {},
        )
        if status == "ok" and answer.get("changed"):
            status = "changed"
        if status == "failed" and data.get("ignore_errors"):
            status = "ignored"
        if status != "skipped":
            step.hosts[host] = seconds
        message = ""
        if status in ("failed", "ignored", "unreachable"):
            failure = Failure(step.name, host, str(answer.get("msg", _NO_REASON)))
            message = one_line(failure.message)
            # Whether a lost host is put up with is only known at the end.
            {"failed": self._failures, "unreachable": self._lost}.get(status, []).append(failure)
        self._warnings += map(one_line, map(str, answer.get("warnings", [])))
        return Event(step.name, number, host, status, seconds, message)

    def result(self, seconds: float) -> Result:
        """How the run went."""
        failures = self._fatal()
        return Result(
            changed=any(self._stats.get("changed", {}).values()),
            seconds=seconds,
            steps=self._timed_steps(),
            warnings=tuple(dict.fromkeys(self._warnings)),
            failed=_told(failures[0], failures[-1]) if failures else None,
        )

    def reason(self, output: str) -> str:
        """Why the run failed, in one line: what failed last, which is what the playbook itself says of it."""
        failures = self._fatal()
        if failures:
            return one_line(failures[-1].message)
        said = _ERROR.search(_COLOURS.sub("", output).replace("\r", ""))
        return one_line(said.group(1) if said else output.strip().rpartition("\n")[2]) or _NO_REASON

    def _fatal(self) -> list[Failure]:
        lost = self._stats.get("dark", {})
        return [failure for failure in self._lost if failure.host in lost] + self._failures

    def _timed_steps(self) -> tuple[Step, ...]:
        moments = pairwise([*(step.began for step in self._steps), self._latest])
        return tuple(
            Step(step.name, (end - began).total_seconds(), step.hosts)
            for step, (began, end) in zip(self._steps, moments, strict=True)
        )


def _told(first: Failure, last: Failure) -> Failure:
    # What is censored says nothing, and the playbook's own failure says it at the end.
    return replace(first, message=last.message) if first.message == _NO_REASON else first


def one_line(text: str) -> str:
    """The text in one line that controls no terminal, cut where it is very long."""
    line = " ".join(text.split())
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
