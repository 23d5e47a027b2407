# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory of a command and all that it starts: the sum of their proportional shares (PSS), sampled while it runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

# A sample takes a few milliseconds, and a fork of Ansible lives longer than this.
_EVERY = 0.05


def peak_mb(process: subprocess.Popen[str]) -> tuple[float, str]:
    """The most that a process and its descendants had at once, in MB, until it ended; and what it said."""
    peak = 0
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(process.communicate)
        while not said.done():
            peak = max(peak, sum(map(_pss, _family(process.pid))))
            time.sleep(_EVERY)
    return peak * 1024 / 10**6, said.result()[0]


def _family(pid: int) -> Iterable[int]:
    """A process and its descendants; with threads that fork, the children of each."""
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))


def _pss(pid: int) -> int:
    """A process's proportional share of memory in KiB; of one that has ended, nothing."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
