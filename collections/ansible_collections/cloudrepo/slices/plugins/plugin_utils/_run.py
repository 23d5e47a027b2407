# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which run of Ansible this is, and whether another one on this controller is still there."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_STARTED = 19  # Its place in /proc/<pid>/stat, counted from the field after the program's name (proc(5)).


# AWX names no user for a job that nobody launched: a schedule's or a webhook's.
AWX = "awx"


def known_user(variables: Mapping[str, Any]) -> str:
    """The user where that is certain: AWX says who launched a job. Else empty."""
    user = str(variables.get("awx_user_name") or variables.get("tower_user_name") or "")
    in_awx = "awx_job_id" in variables or "tower_job_id" in variables
    return user or (AWX if in_awx else "")


def actor(variables: Mapping[str, Any], pid: int) -> dict[str, str]:
    """Who asks, as ``slice_registry`` wants to know it. ``pid`` is that of ansible-playbook itself."""
    user = known_user(variables)
    where = socket.gethostname()
    return {
        "run": run_id(pid),
        "holder": f"{user or getpass.getuser()} on {where} (PID {pid})",
        "user": user,
    }


def run_id(pid: int) -> str:
    """Identifies a process among those of all controllers: host, boot, PID namespace, PID and when it started."""
    return "/".join([socket.gethostname(), _boot_and_namespace(), str(pid), _started(pid)])


def has_died(run: str) -> bool:
    """Whether a run is known to be gone: one that is out of sight, such as another container's, is not."""
    try:
        where, pid, started = run.rsplit("/", 2)
    except ValueError:
        return False
    here = "/".join([socket.gethostname(), _boot_and_namespace()])
    if not started or where != here or not pid.isdecimal():
        return False
    now = _started(int(pid))
    return now != started and (bool(now) or not _exists(int(pid)))


def _boot_and_namespace() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return f"{file.read().strip()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # Not Linux: whether a run is still there can't be told for certain, and is not.
        return ""


def _exists(pid: int) -> bool:
    """Whether there is a process, also one of another user whose folder in /proc is hidden from us (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(pid) != ""


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if there is none, or just a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[_STARTED]
