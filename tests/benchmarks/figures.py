# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the measurements come to: medians, ratios, and which goals are met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Seconds of each repetition, by kind ("floor", "ours", "loops"), what was done, and N.
Times = Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]

DEPLOY_OVER_FLOOR = 3.5
DELETE_OVER_FLOOR = 3.0
# Seconds of a play that does nothing on the machine for which the limits were set.
NOTHING = 0.4


class Figure(NamedTuple):
    """Repetitions of one measurement, in seconds."""

    median: float
    least: float
    most: float
    runs: int


class Goal(NamedTuple):
    """Something that was promised: no more than ``limit``, or with ``at_least`` no less."""

    text: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def in_plays(self, seconds: float) -> Goal:
        """The same in plays of nothing, of which one took ``seconds`` here: what a machine's speed does not change."""
        return self._replace(value=self.value / seconds, limit=self.limit / NOTHING, unit="plays")


def figure(seconds: Sequence[float]) -> Figure:
    """What repetitions come to; there has to be one."""
    return Figure(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def median(times: Times, kind: str, what: str, count: int) -> float | None:
    """The median of one measurement, if it was made."""
    seconds = times.get(kind, {}).get(what, {}).get(count)
    return statistics.median(seconds) if seconds else None


def ratio(times: Times, what: str, count: int, kind: str, to: str) -> float | None:
    """How many times longer one kind took than another, by their medians."""
    over, under = median(times, kind, what, count), median(times, to, what, count)
    return over / under if over is not None and under else None


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """All goals of which there are measurements."""
    return [
        *_goals_over_floor(results["times"]),
        *_goals_alone(results["times"]),
        *_goals_of_planner(results.get("planner", {})),
        *_other_goals(results),
    ]


def _goals_over_floor(times: Times) -> Iterator[Goal]:
    for what, most in (("deploy", DEPLOY_OVER_FLOOR), ("delete", DELETE_OVER_FLOOR)):
        for count in times.get("floor", {}).get(what, {}):
            own, floor = median(times, "ours", what, count), median(times, "floor", what, count)
            if own is not None and floor is not None:
                yield Goal(f"{what} of {count} VMs, over the floor", own - floor, most, "s")
    over = ratio(times, "deploy", 100, "ours", "floor")
    if over is not None:
        yield Goal("deploy of 100 VMs, to the floor", over, 1.6, "x")
    loops = ratio(times, "deploy", 30, "loops", "ours")
    if loops is not None:
        yield Goal("deploy of 30 VMs, loops to ours", loops, 10.0, "x", at_least=True)


def _goals_alone(times: Times) -> Iterator[Goal]:
    limits = {"redeploy": ("deploy of {} VMs with nothing to do", 3.5), "show": ("show with {} VMs running", 1.5)}
    limits["add"] = ("one VM and link more on {} running VMs", 4.0)
    for what, (text, most) in limits.items():
        for count, seconds in times.get("ours", {}).get(what, {}).items():
            yield Goal(text.format(count), statistics.median(seconds), most, "s")


def _goals_of_planner(planner: Mapping[int, Mapping[str, Sequence[float]]]) -> Iterator[Goal]:
    """``planner`` has ``seconds`` and ``megabytes`` by the number of VMs."""
    if 10_000 in planner:
        most = planner[10_000]
        yield Goal("plan of 10,000 VMs on 1,000 workers", statistics.median(most["seconds"]), 1.0, "s")
        yield Goal("memory of that process at its peak", statistics.median(most["megabytes"]), 200.0, "MB")
        if 1000 in planner:
            growth = statistics.median(most["seconds"]) / statistics.median(planner[1000]["seconds"])
            yield Goal("plan of 10,000 VMs, to one of 1,000", growth, 11.0, "x")


def _other_goals(results: Mapping[str, Any]) -> Iterator[Goal]:
    if "memory" in results:
        memory = results["memory"]
        over = _over(memory["deploy_mb"], memory["empty_mb"])
        yield Goal(f"controller's memory, deploy of {memory['count']} VMs, over an empty play", over, 150.0, "MB")
    if "images" in results:
        images = results["images"]
        sent = _over(images["first"], images["known"])
        for scp, text in (("scp", "scp"), ("scp_like_ansible", "scp with Ansible's ciphers")):
            what = f"deploy that sends an image of 500 MB to 3 workers, less one that need not, to {text}"
            yield Goal(what, sent / statistics.median(images[scp]), 1.3, "x")
        again = _over(images["known"], images["small"])
        yield Goal("the next deploy with it, over one with a small image", again, 0.2, "s")


def _over(these: Sequence[float], those: Sequence[float]) -> float:
    """How much longer these took, by the median over the runs: what is in a run was measured one after the other."""
    return statistics.median(one - other for one, other in zip(these, those, strict=True))
