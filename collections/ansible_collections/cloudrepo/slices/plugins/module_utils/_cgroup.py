# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a VM's QEMU may use of its host at most: one group of cgroups v2 for each VM, where the host has them."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import Dict, Iterator, List, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

Limits = Dict[str, str]  # The kernel's file names, and what it reads and writes there.

# Beside the groups of systemd. It never touches one that it did not make, and can't take a controller away from it.
FOLDER = "cloudrepo"
MOUNTS = "/proc/self/mountinfo"
_CONTROLLERS = ("cpu", "memory", "pids")
_FILES = ("cpu.max", "memory.max", "pids.max")

# Above the guest's memory: 256 MiB for the code that TCG has translated (_qemu.TCG_BUFFER_MB), and as much again for
# QEMU itself, its devices' memory (16 MiB for VGA), the disk's tables and some screens' worth of VNC for each viewer.
_OVERHEAD_MB = 512
# Beside its virtual CPUs a QEMU has one thread that serves its devices: half a core for it.
_PERIOD_US = 100000
_DEVICES_US = 50000
# Up to 64 threads that do a QEMU's disk I/O, its main threads, and as many again to be safe.
_THREADS = 128

_EMPTY_SECONDS = 2.0
_POLL_SECONDS = 0.02


def vm_limits(cores: int, memory_mb: int) -> Limits:
    """What a VM of this size may use."""
    return {
        "cpu.max": "%d %d" % (cores * _PERIOD_US + _DEVICES_US, _PERIOD_US),
        "memory.max": str((memory_mb + _OVERHEAD_MB) * 1024 * 1024),
        "pids.max": str(cores + _THREADS),
    }


def find(mounts: str = MOUNTS) -> Optional[str]:
    """The folder of our groups, which may not be there yet; None if the host gives us no groups with limits."""
    with open(mounts, encoding="utf-8") as file:
        usable = [mount for mount in cgroup2_mounts(file.read()) if _is_usable(mount)]
    return os.path.join(usable[0], FOLDER) if usable else None


def cgroup2_mounts(mountinfo: str) -> Iterator[str]:
    """Where cgroups v2 are mounted, from the text of /proc/self/mountinfo."""
    for line in mountinfo.splitlines():
        before, _dash, after = line.partition(" - ")
        if after.split(" ")[0] == "cgroup2":
            yield before.split(" ")[4]


def _is_usable(mount: str) -> bool:
    """Whether we may make groups with our controllers there. On most hosts with v1 too, v2 has no controllers."""
    if not os.access(mount, os.W_OK) or not _has_controllers(mount, "cgroup.controllers"):
        return False
    if _has_controllers(mount, "cgroup.subtree_control") or not os.path.exists(os.path.join(mount, "cgroup.type")):
        return True
    # Not the machine's root but a container's: the kernel lets no group of processes hand controllers down.
    return not _read(mount, "cgroup.procs").split()


def _has_controllers(group: str, file: str) -> bool:
    return set(_CONTROLLERS) <= set(_read(group, file).split())


def _read(group: str, file: str) -> str:
    with open(os.path.join(group, file), encoding="ascii") as opened:
        return opened.read()


def _write(group: str, file: str, text: str) -> None:
    path = os.path.join(group, file)
    try:
        with open(path, "w", encoding="ascii") as opened:
            opened.write(text)
    except OSError as error:
        # The kernel's own words name no file.
        raise ItemError("%s: %s" % (path, error.strerror)) from error


class Groups:
    """The groups of one slice's VMs on this host.

    Args:
        folder: what find() found.
        slice_name: the slice, whose name stands before the dot in its groups' names.
    """

    def __init__(self, folder: str, slice_name: str) -> None:
        self._folder = folder
        self._slice = slice_name

    def _group(self, name: str) -> str:
        return os.path.join(self._folder, "%s.%s" % (self._slice, name))

    def limits(self, name: str, pid: int) -> Optional[Limits]:
        """The limits of a VM's process; None if it is not in its group."""
        group = self._group(name)
        try:
            if str(pid) not in _read(group, "cgroup.procs").split():
                return None
            return {file: _read(group, file).strip() for file in _FILES}
        except FileNotFoundError:
            return None

    def limit(self, name: str, pid: int, limits: Limits) -> None:
        """Set a VM's limits, then put its process under them."""
        for parent in (os.path.dirname(self._folder), self._folder):
            os.makedirs(parent, 0o755, exist_ok=True)
            if not _has_controllers(parent, "cgroup.subtree_control"):
                _write(parent, "cgroup.subtree_control", " ".join("+" + name for name in _CONTROLLERS))
        group = self._group(name)
        os.makedirs(group, 0o755, exist_ok=True)
        for file, value in limits.items():
            _write(group, file, value)
        _write(group, "cgroup.procs", str(pid))

    def names(self) -> List[str]:
        """The VMs that have a group, running or not."""
        prefix = self._slice + "."
        with suppress(FileNotFoundError):
            return sorted(entry[len(prefix) :] for entry in os.listdir(self._folder) if entry.startswith(prefix))
        return []

    def remove(self, name: str) -> None:
        """Remove a VM's group, unless a process stays in it. One that was just killed has a moment to leave."""
        deadline = time.monotonic() + _EMPTY_SECONDS
        while time.monotonic() < deadline:
            try:
                os.rmdir(self._group(name))
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            time.sleep(_POLL_SECONDS)
