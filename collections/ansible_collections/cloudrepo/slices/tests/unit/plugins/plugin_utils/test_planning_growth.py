# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan's work grows with what is planned, not with its square: ten times as much of it runs ten times as many lines.

Lines are counted, not seconds: the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Room

from .clusters import EMPTY, WEB, after, make_plan, workers

SMALL, LARGE = 60, 600
MOST = 11


def ring(count: int, prefix: str = "vm") -> dict[str, Any]:
    names = [f"{prefix}{number}" for number in range(count)]
    return {
        "name": "ring",
        "vlan_pool_size": 2 * LARGE,  # Of those that leave, the links are in use until the others run.
        "vms": [{"name": name, "flavor": "cirros", "internet": True} for name in names],
        "links": [
            {"endpoints": [f"{one}", f"{other}"]} for one, other in zip(names, names[1:] + names[:1], strict=True)
        ],
    }


def planned(spec: dict[str, Any], registry: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return make_plan(spec, registry, **{"hosts": workers(10), "internet_subnet": "10.60.0.0/16", **settings})


def lines_run(work: Callable[[], object]) -> int:
    """How many lines, and turns of loops, it runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def new(count: int) -> Callable[[], object]:
    return lambda: planned(ring(count))


def unchanged(count: int) -> Callable[[], object]:
    registry = after(EMPTY, planned(ring(count)))
    return lambda: planned(ring(count), registry)


def replaced(count: int) -> Callable[[], object]:
    registry = after(EMPTY, planned(ring(count)))
    return lambda: planned(ring(count, prefix="new"), registry)


def beside_others(count: int) -> Callable[[], object]:
    (record,) = after(EMPTY, planned(WEB))["slices"]
    registry = {**EMPTY, "next_id": 10**6, "slices": [{**record, "name": f"other{n}"} for n in range(10 * count)]}
    return lambda: planned(WEB, registry)


def on_workers(policy: str) -> Callable[[int], Callable[[], object]]:
    """Over as many workers as are full in the end, so that every policy has to leave some out."""

    def world(count: int) -> Callable[[], object]:
        hosts = workers(count // 4, Room(1, 10**6, 10**6))
        return lambda: planned(ring(count), hosts=hosts, placement=policy)

    return world


@pytest.mark.parametrize(
    "world",
    [new, unchanged, replaced, beside_others, *map(on_workers, ("round_robin", "packed", "balanced"))],
    ids=["new", "unchanged", "replaced", "beside others", "round_robin", "packed", "balanced"],
)
def test_ten_times_as_much_takes_at_most_eleven_times_as_many_lines(
    world: Callable[[int], Callable[[], object]],
) -> None:
    planned(WEB)  # Reads the schema.
    assert lines_run(world(LARGE)) <= MOST * lines_run(world(SMALL))
