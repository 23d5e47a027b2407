# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folders that belong to one slice or one cache: locked while they are changed, files in them replaced whole."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import BinaryIO, Iterator, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils._caller import refuse_if_gone
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import PATH_RULE, is_path

_LOCKS = "/run/cloudrepo/lock"
# A leading dot, which no image, slice or VM may have: what a dead process leaves is never taken for the real thing.
_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")


def normal_path(option: str, path: str) -> str:
    """The path that a module's option names, in its one form.

    Raises:
        ValueError: it is relative to who knows what, or would end a line somewhere.
    """
    if not is_path(path):
        raise ValueError("%s: %r is not %s" % (option, path, PATH_RULE))
    return os.path.abspath(path)


def part_path(path: str) -> str:
    """A name in the folder of ``path`` that nobody else uses, for what will be renamed to ``path``."""
    folder, name = os.path.split(path)
    return os.path.join(folder, ".%s.%s.part" % (name, os.urandom(8).hex()))


def is_part(name: str) -> bool:
    """Whether this is the name of a file that was about to be renamed."""
    return _PART.fullmatch(name) is not None


def write_whole(path: str, text: str, mode: int) -> None:
    """Replace the file at ``path``: a reader sees the old text or the new, and so does a host after a crash."""
    part = part_path(path)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        remove_file(part)
        raise
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Make the renames in ``folder`` survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold ``folder`` alone; it is made if it is missing. The lock is on the folder itself and leaves no file."""
    while True:
        descriptor = _open(folder)
        if descriptor is None:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(folder, descriptor):
                refuse_if_gone()
                yield
                return
        finally:
            os.close(descriptor)


@contextmanager
def serialized(name: str) -> Iterator[None]:
    """Hold a name on this host alone, for what is in no folder. A run that died may still have a module at work."""
    folder = os.path.join(_LOCKS, name)
    with locked(folder):
        try:
            yield
        finally:
            tidy(folder)


def _open(folder: str) -> Optional[int]:
    """The folder, made if it is missing; None if somebody removed it in between."""
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    except FileExistsError:
        if _is_no_folder(folder):
            raise
        return None


def _is_no_folder(path: str) -> bool:
    """Whether something else is at ``path``: one look, as others may remove and make a folder there all the time."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_at(folder: str, descriptor: int) -> bool:
    """Whether the folder that we have locked is still there: its last holder may have removed it."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def held_part(path: str) -> Iterator[BinaryIO]:
    """A new file for what takes long to write, in the folder of ``path``, which others may hold and change meanwhile.

    It is removed at the end, unless it was renamed.
    """
    part = part_path(path)
    with locked(os.path.dirname(path)):
        remove_parts(os.path.dirname(path))
        file = open(part, "xb")  # noqa: SIM115  # Others wait for the folder, not for the file.
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        with file:
            yield file
    finally:
        remove_file(part)


def remove_parts(folder: str) -> None:
    """Remove what dead processes left in a folder that we hold."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if is_part(name) and not _is_held(path):
            remove_file(path)


def _is_held(part: str) -> bool:
    """Whether somebody is still writing this file, without holding its folder."""
    try:
        with open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # It is gone, or is no file that we write.
        return False


def tidy(folder: str) -> None:
    """Remove what dead processes left in a folder that we hold, and the folder too if it is empty then."""
    remove_parts(folder)
    if not os.listdir(folder):
        os.rmdir(folder)
