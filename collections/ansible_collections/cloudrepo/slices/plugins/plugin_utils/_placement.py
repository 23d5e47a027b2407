# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choose a worker for each VM, within what the workers have. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._schema import SpecError

# Errors about a thousand workers name this many of them.
_NAMED_IN_ERRORS = 5


class Room(NamedTuple):
    """An amount of what a worker has; ``disk_mb`` and ``memory_mb`` in MiB."""

    cores: float
    memory_mb: float
    disk_mb: float

    def minus(self, other: Room) -> Room:
        return Room(self.cores - other.cores, self.memory_mb - other.memory_mb, self.disk_mb - other.disk_mb)

    def times(self, ratios: Room) -> Room:
        return Room(self.cores * ratios.cores, self.memory_mb * ratios.memory_mb, self.disk_mb * ratios.disk_mb)

    def lack(self, need: Room) -> str:
        """What is missing for ``need``, in words; empty if it fits."""
        missing = (
            (need.cores - self.cores, "core(s)"),
            (need.memory_mb - self.memory_mb, "MB memory"),
            (need.disk_mb - self.disk_mb, "MB disk"),
        )
        return " and ".join(f"{math.ceil(amount)} {unit}" for amount, unit in missing if amount > 0)


NO_ROOM = Room(0, 0, 0)
DEFAULT_OVERCOMMIT = Room(4.0, 1.0, 1.0)


class Stamp(NamedTuple):
    """Something on a host: of which slice and VM (empty if it does not say), and its ID, if that is known."""

    slice: str
    vm: str
    name: str
    id: int = 0


@dataclass(frozen=True)
class Worker:
    """A host that runs VMs, as it was found.

    Attributes:
        name: its inventory name.
        address: how Ansible reaches it.
        problem: why it gets no new VMs, e.g. ``is unreachable``; empty if it can.
        room: its cores, memory and disk.
        images: virtual size in bytes of each base image in its cache.
        stamps: what it carries of slices.
    """

    name: str
    address: str
    problem: str = ""
    room: Room = NO_ROOM
    images: Mapping[str, int] = field(default_factory=dict)
    stamps: Sequence[Stamp] = ()


def vm_room(vm: Mapping[str, Any]) -> Room:
    """What a VM of a record takes."""
    return Room(vm["cores"], vm["memory_mb"], disk_mb(vm["disk_gb"]))


def disk_mb(disk_gb: float) -> int:
    """A disk's virtual size in MiB, as it is created: rounded up."""
    return math.ceil(disk_gb * 1024)


class Candidate(NamedTuple):
    """A worker that may have room: its rank, the lower the better, and its place in the inventory."""

    rank: float
    position: int


class Placement:
    """The room left on the workers, and the policy that chooses among them.

    Args:
        workers: all of the inventory's group, in its order.
        placed: VMs that are there already, with their ``worker``.
        overcommit: how many times over each kind of room may be promised.
        policy: ``round_robin``, ``packed`` or ``balanced``.
        last_worker: where round-robin placement stopped the last time.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        placed: Iterable[Mapping[str, Any]],
        overcommit: Room,
        policy: str,
        last_worker: str,
    ) -> None:
        self.workers = {worker.name: worker for worker in workers}
        self.last_worker = last_worker
        self._usable = [worker.name for worker in workers if not worker.problem]
        self._names = [worker.name for worker in workers]
        self._position = {name: index for index, name in enumerate(self._names)}
        self._left = {worker.name: worker.room.times(overcommit) for worker in workers}
        self._policy = policy
        # For each need, the usable workers that may have room for it, by rank and position. While VMs are placed room
        # only shrinks: who lacks some is never asked again, and a rank that is out of date is too good, never too bad.
        self._candidates: dict[Room, list[Candidate]] = {}
        for vm in placed:
            if vm["worker"] in self._left:
                self._left[vm["worker"]] = self._left[vm["worker"]].minus(vm_room(vm))

    def grow(self, worker: str, before: Room, after: Room, label: str) -> None:
        """Change the size of a VM where it is. What did not grow is never refused, even where room got short."""
        extra = after.minus(before)
        growth = Room(*(max(amount, 0) for amount in extra))
        lack = self._left[worker].lack(growth) if any(growth) else ""
        if lack:
            raise SpecError(f"{label}: no room to grow on {worker}: it lacks {lack}")
        self._left[worker] = self._left[worker].minus(extra)
        self._candidates.clear()

    def place(self, need: Room, label: str) -> str:
        """Choose a worker with room for a new VM."""
        if not self._usable:
            problems = (f"{worker.name} {worker.problem}" for worker in self.workers.values())
            raise SpecError(f"{label}: no worker can take VMs: {self._listed(problems)}")
        if need not in self._candidates:
            self._candidates[need] = []
            for name in self._usable:
                self._push(self._candidates[need], name)
        candidates = self._candidates[need]
        while candidates:
            name = self._pop(candidates)
            if not self._left[name].lack(need):
                self._left[name] = self._left[name].minus(need)
                self.last_worker = name
                self._push(candidates, name)
                return name
        lacks = (f"{name} lacks {self._left[name].lack(need)}" for name in self._usable)
        raise SpecError(f"{label}: no worker with room: {self._listed(lacks)}")

    def place_on(self, name: str, need: Room, label: str) -> str:
        """Take the worker that the spec names."""
        if name not in self.workers:
            raise SpecError(f"{label}: worker {name[:60]!r} is not in the inventory's group workers")
        if self.workers[name].problem:
            raise SpecError(f"{label}: worker {name} {self.workers[name].problem}")
        lack = self._left[name].lack(need)
        if lack:
            raise SpecError(f"{label}: no room on worker {name}: it lacks {lack}")
        self._left[name] = self._left[name].minus(need)
        return name

    def _push(self, candidates: list[Candidate], name: str) -> None:
        bisect.insort(candidates, Candidate(self._rank(name), self._position[name]))

    def _pop(self, candidates: list[Candidate]) -> str:
        """Take out the one whose turn it is: in a round the first after the last, else the first."""
        while True:
            last = self._position.get(self.last_worker, -1)
            turn = bisect.bisect(candidates, (0, last)) % len(candidates) if self._policy == "round_robin" else 0
            rank, position = candidates.pop(turn)
            name = self._names[position]
            if rank == self._rank(name):
                return name
            self._push(candidates, name)

    def _rank(self, name: str) -> float:
        """What comes before the order of the inventory: the emptiest first, if it matters."""
        return -self._left[name].memory_mb if self._policy == "balanced" else 0

    @staticmethod
    def _listed(texts: Iterable[str]) -> str:
        every = list(texts)
        rest = len(every) - _NAMED_IN_ERRORS
        return ", ".join(every[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
