# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of a playbook by ansible-runner, in a private data directory of its own."""

from __future__ import annotations

import os
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any, TypedDict

from ansible_runner import interface

from ._extravars import render
from ._recorder import Recorder
from .errors import SliceCancelled, SliceError
from .events import Event
from .results import Result

_COLLECTION = "cloudrepo.slices"
_POLL = 0.2
_GRACE = 10.0


class Options(TypedDict, total=False):
    """What all calls take, by keyword.

    Attributes:
        inventory: the inventory's file. By default what ansible.cfg says.
        project_dir: the folder that Ansible runs in; an ansible.cfg in it counts. By default the current one.
        extra_vars: variables as with ``ansible-playbook -e``; templates in them are evaluated.
        environment: environment variables for Ansible, in addition to this process's own.
        on_event: called for each step that begins, and for each host that is done with it.
        cancel: asked several times a second; the run is ended once it says True.
    """

    inventory: str | os.PathLike[str] | None
    project_dir: str | os.PathLike[str] | None
    extra_vars: Mapping[str, Any] | None
    environment: Mapping[str, str] | None
    on_event: Callable[[Event], object] | None
    cancel: Callable[[], bool] | None


@dataclass(frozen=True)
class Played:
    """A run that ended: how, and what the playbook handed to ``set_stats``."""

    status: str
    result: Result
    data: Mapping[str, Any]
    reason: str
    output: str

    def check(self) -> Played:
        """The run itself if it came to its end and all went well.

        Raises:
            SliceError: it did not.
        """
        if self.status != "successful":
            raise self.error()
        return self

    def error(self) -> SliceError:
        """Why it failed."""
        error = SliceCancelled if self.status == "canceled" else SliceError
        return error(self.reason, self.result, self.output)


def play(playbook: str, data: Mapping[str, Any], options: Options) -> Played:
    """Run a playbook of the collection with ``data`` as variables, and whatever ends this ends it, too."""
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"unexpected keyword arguments: {', '.join(unknown)}")
    began = time.monotonic()
    recorder, reports, stop = Recorder(), queue.SimpleQueue[Mapping[str, Any] | None](), Flag()
    # Nothing of a run is found by the next one: ansible-runner would keep its variables.
    with tempfile.TemporaryDirectory(prefix="cloudrepo-slices-") as folder:
        arguments = _arguments(playbook, data, options, Path(folder))
        with ThreadPoolExecutor(1, "cloudrepo-slices") as pool:
            job = pool.submit(interface.run, **arguments, event_handler=_put_into(reports), cancel_callback=stop.is_set)
            job.add_done_callback(lambda _job: reports.put(None))
            try:
                cancelled = _follow(reports, recorder, options.get("on_event"), options.get("cancel"))
            finally:
                _end(job, recorder.pid, stop)
        runner = job.result()
        if cancelled and runner.status == "successful":
            # It was too late. The rest of what the run reported counts.
            cancelled = _follow(reports, recorder, options.get("on_event"), None)
        output = Path(runner.config.artifact_dir, "stdout").read_text(encoding="utf-8", errors="replace")
    return Played(
        "canceled" if cancelled else runner.status,
        recorder.result(time.monotonic() - began),
        recorder.data,
        "the run was cancelled" if cancelled else recorder.reason(output),
        output,
    )


def _arguments(playbook: str, data: Mapping[str, Any], options: Options, folder: Path) -> dict[str, Any]:
    """What ansible-runner is called with. Variables go by a file: they may be long, and concern nobody else."""
    inventory, project = options.get("inventory"), options.get("project_dir")
    if inventory is not None and not os.path.exists(inventory):
        raise FileNotFoundError(f"there is no inventory {os.fspath(inventory)}")
    (folder / "env").mkdir()
    (folder / "env" / "extravars").write_text(render(options.get("extra_vars") or {}, data), encoding="utf-8")
    return {
        "private_data_dir": str(folder),
        "project_dir": os.path.abspath(project or os.curdir),
        "playbook": f"{_COLLECTION}.{playbook}",
        "inventory": os.path.abspath(inventory) if inventory is not None else None,
        "envvars": {**_environment(project), **(options.get("environment") or {})},
        "settings": {"pexpect_timeout": 1},  # How often it asks whether to stop.
        "quiet": True,
    }


def _environment(project: str | os.PathLike[str] | None) -> dict[str, str]:
    # Unless somebody says otherwise ansible-runner has host keys not checked.
    environment = {"ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True")}
    beside = Path(sys.executable).parent
    if (beside / "ansible-playbook").exists():
        # Also where the virtual environment of this Python is not activated.
        environment["PATH"] = f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if project is not None and Path(project, "ansible.cfg").is_file():
        # Named outright: Ansible overlooks an ansible.cfg in a world-writable folder.
        environment["ANSIBLE_CONFIG"] = os.path.abspath(Path(project, "ansible.cfg"))
    return environment


def _put_into(reports: queue.SimpleQueue[Mapping[str, Any] | None]) -> Callable[[Mapping[str, Any]], bool]:
    def handle(report: Mapping[str, Any]) -> bool:
        reports.put(report)
        return False  # It need not be kept in a file.

    return handle


def _follow(
    reports: queue.SimpleQueue[Mapping[str, Any] | None],
    recorder: Recorder,
    on_event: Callable[[Event], object] | None,
    cancel: Callable[[], bool] | None,
) -> bool:
    """Whether the run was cancelled before it ended. The caller's functions are called in the caller's thread."""
    while True:
        if cancel is not None and cancel():
            return True
        try:
            report = reports.get(timeout=_POLL)
        except queue.Empty:
            continue
        if report is None:
            return False
        event = recorder.add(report)
        if event is not None and on_event is not None:
            on_event(event)


def _end(job: Future[Any], pid: int | None, stop: Flag) -> None:
    """See to it that the run is over. ansible-runner would only kill it, and what Ansible has started would go on."""
    if not job.done() and pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait([job], timeout=_GRACE)
    stop.set()
