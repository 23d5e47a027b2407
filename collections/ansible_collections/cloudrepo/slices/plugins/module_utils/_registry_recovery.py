# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry's file as a whole: copied while others write, and made anew from what the hosts carry."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    locked,
    part_path,
    remove_file,
    sync_folder,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    JOURNAL,
    DamagedError,
    Record,
    RegistryError,
    create,
    empty,
    explained,
    is_there,
    opened,
    read,
    restore,
)

# What SQLite keeps beside a database, and would apply to another one of that name.
_COMPANIONS = (JOURNAL, "-wal", "-shm")


class Rebuilt(NamedTuple):
    """The registry before, empty if it was missing or damaged, and after; and where a damaged file went."""

    before: Dict[str, Any]
    after: Dict[str, Any]
    damaged: Optional[str]

    @property
    def changed(self) -> bool:
        """Whether anything but the revision differs, or a damaged file is to go."""
        return self.damaged is not None or dict(self.before, revision=0) != dict(self.after, revision=0)


def backup_path(path: str) -> str:
    """Where a backup goes that nobody gave a place: ``backups/`` beside the registry, named after the time."""
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    return os.path.join(folder, "backups", "%s-%s%s" % (stem, _now(), suffix))


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def backup(path: str, dest: str, write: bool) -> int:
    """Copy the registry as it is at one moment, whoever writes at the same time, and return its revision.

    Args:
        path: the registry.
        dest: the file to make; it gets its name once it was read again and found sound.
        write: whether to make it.

    Raises:
        RegistryError: there is no sound registry, or there is something at ``dest`` already.
    """
    if not is_there(path):
        raise RegistryError("registry %s does not exist: there is nothing to back up" % path)
    if os.path.lexists(dest):
        raise RegistryError("backup %s: it exists already" % dest)
    with opened(path, write=False) as copy:
        _check_integrity(copy, path)
        revision: int = read(copy)["revision"]
        if write:
            with explained(dest):
                _write_copy(copy, dest)
    return revision


def _write_copy(copy: sqlite3.Connection, dest: str) -> None:
    folder = os.path.dirname(os.path.abspath(dest))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    part = part_path(os.path.abspath(dest))
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with closing(sqlite3.connect(part)) as target:
            copy.backup(target)
        os.fsync(descriptor)
        with opened(part, write=False) as written:
            _check_integrity(written, part)
        os.link(part, dest)
    finally:
        os.close(descriptor)
        remove_file(part)
    sync_folder(folder)


def _check_integrity(connection: sqlite3.Connection, path: str) -> None:
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise DamagedError(path, found)


def rebuild(path: str, records: Sequence[Record], next_id: int, last_worker: str, write: bool) -> Rebuilt:
    """Make a registry of ``records`` in the place of one that is missing, damaged or holds no slice.

    A damaged file is kept under another name. What is not to ``write`` is tried in memory.

    Raises:
        RegistryError: there is a registry with slices, or the records do not go together.
    """

    def fill(connection: sqlite3.Connection) -> None:
        restore(connection, records, next_id, last_worker)

    path = os.path.abspath(path)
    rebuilt = _tried(path, fill)
    if not write or not rebuilt.changed:
        return rebuilt
    with explained(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with locked(os.path.dirname(path)):  # Of two rebuilds, the second finds the first one's work.
            rebuilt = _tried(path, fill)
            if rebuilt.damaged is not None:
                _set_aside(path, rebuilt.damaged)
            if is_there(path):
                with opened(path, write=True) as connection:
                    fill(connection)
            elif not create(path, fill):
                raise RegistryError("registry %s: another run made one just now" % path)
    return rebuilt


def _tried(path: str, fill: Callable[[sqlite3.Connection], None]) -> Rebuilt:
    """What becomes of the registry, found out in memory."""
    try:
        with opened(path, write=False) as copy:
            _check_integrity(copy, path)
            return _filled(copy, path, fill, None)
    except DamagedError:
        with closing(empty()) as copy:
            return _filled(copy, path, fill, "%s.damaged-%s" % (path, _now()))


def _filled(
    copy: sqlite3.Connection, path: str, fill: Callable[[sqlite3.Connection], None], damaged: Optional[str]
) -> Rebuilt:
    before = read(copy)
    try:
        fill(copy)
    except RegistryError as error:
        raise RegistryError("registry %s: %s" % (path, error)) from error
    return Rebuilt(before, read(copy), damaged)


def _set_aside(path: str, aside: str) -> None:
    """Rename a damaged registry, and what SQLite needs to repair it."""
    for suffix in ("", *_COMPANIONS):
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    sync_folder(os.path.dirname(path))
