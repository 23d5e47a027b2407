# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A progress bar for terminals. Needs rich: ``pip install "cloudrepo-slices[progress]"``."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from .events import Event


class ProgressBar:
    """A line for each step, with the number of hosts that are done with it.

    ::

        with ProgressBar() as bar:
            deploy("web", on_event=bar)
    """

    def __init__(self, console: Console | None = None) -> None:
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[hosts]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._line: TaskID | None = None
        self._done = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._finish()
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show what the event tells."""
        if event.host is None:
            self._finish()
            self._line, self._done = self._progress.add_task(event.step, total=None, hosts=""), 0
        elif event.status != "skipped" and self._line is not None:
            self._done += 1
            self._progress.update(self._line, hosts=f"{self._done} host{'s' * (self._done > 1)}")
        if event.message:
            self._progress.console.print(f"{event.host}: {event.message}", style="red", markup=False)

    def _finish(self) -> None:
        """The step that was at work is over. One that no host had anything to do in is not worth a line."""
        if self._line is None:
            return
        if self._done:
            self._progress.update(self._line, total=1, completed=1)
        else:
            self._progress.remove_task(self._line)
        self._line = None
