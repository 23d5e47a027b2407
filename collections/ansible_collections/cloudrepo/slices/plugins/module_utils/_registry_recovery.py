# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry as a whole: copied while others write, moved, and made anew from what the hosts carry."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import part_path, remove_file, sync_folder
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    Record,
    opened,
    read,
    refuse_any_hold,
    restore,
    store,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import (
    BUSY_SECONDS,
    Connection,
    DamagedError,
    RegistryError,
    Store,
    copy_rows,
    now,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_sqlite import (
    SqliteStore,
    check_integrity,
    empty,
    save,
)


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
    return os.path.join(folder, "backups", "%s-%s%s" % (stem, now(), suffix))


def backup(place: str, dest: str, write: bool) -> int:
    """Copy the registry as it is at one moment, whoever writes at the same time, and return its revision.

    Args:
        place: the registry.
        dest: the file to make, of SQLite's, wherever the registry is; it gets its name once it was found sound.
        write: whether to make it.

    Raises:
        RegistryError: there is no sound registry, or there is something at ``dest`` already.
    """
    where = store(place)
    _expect(place, "back up")
    if os.path.lexists(dest):
        raise RegistryError("backup %s: it exists already" % dest)
    with opened(place, write=False) as copy:
        check_integrity(where.name, copy)
        revision: int = read(copy)["revision"]
        if write:
            with SqliteStore(dest).explained(BUSY_SECONDS):
                _write_copy(copy, dest)
    return revision


def is_there(place: str) -> bool:
    """Whether there is a registry, sound or not."""
    where = store(place)
    with where.explained(BUSY_SECONDS):
        return where.is_there()


def _expect(place: str, purpose: str) -> None:
    if not is_there(place):
        raise RegistryError("registry %s does not exist: there is nothing to %s" % (store(place).name, purpose))


def _write_copy(copy: Connection, dest: str) -> None:
    folder = os.path.dirname(os.path.abspath(dest))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    part = part_path(os.path.abspath(dest))
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        save(copy, part)
        os.fsync(descriptor)
        with opened(part, write=False) as written:
            check_integrity(part, written)
        os.link(part, dest)
    finally:
        os.close(descriptor)
        remove_file(part)
    sync_folder(folder)


def rebuild(place: str, records: Sequence[Record], next_id: int, last_worker: str, write: bool) -> Rebuilt:
    """Make a registry of ``records`` in the place of one that is missing, damaged or holds no slice.

    A damaged one is kept under another name. What is not to ``write`` is tried in memory.

    Raises:
        RegistryError: there is a registry with slices, or the records do not go together.
    """

    def fill(connection: Connection) -> None:
        restore(connection, records, next_id, last_worker)

    where = store(place)
    rebuilt = _tried(place, where, fill)
    if not write or not rebuilt.changed:
        return rebuilt
    with where.explained(BUSY_SECONDS), where.alone():  # Of two rebuilds, the second finds the first one's work.
        rebuilt = _tried(place, where, fill)
        if rebuilt.damaged is not None:
            where.set_aside(rebuilt.damaged, None)
        if where.is_there():
            with opened(place, write=True) as connection:
                fill(connection)
        elif not where.create(fill):
            raise RegistryError("registry %s: another run made one just now" % where.name)
    return rebuilt


def _tried(place: str, where: Store, fill: Callable[[Connection], None]) -> Rebuilt:
    """What becomes of the registry, found out in memory."""
    try:
        with opened(place, write=False) as copy:
            check_integrity(where.name, copy)
            return _filled(copy, where.name, fill, None)
    except DamagedError:
        with closing(empty()) as copy:
            return _filled(copy, where.name, fill, where.aside("damaged"))


def _filled(copy: Connection, name: str, fill: Callable[[Connection], None], damaged: Optional[str]) -> Rebuilt:
    before = read(copy)
    try:
        fill(copy)
    except RegistryError as error:
        raise RegistryError("registry %s: %s" % (name, error)) from error
    return Rebuilt(before, read(copy), damaged)


class Moved(NamedTuple):
    """The registry that was moved, the name that was given to what was left behind, and whether there was any to do."""

    registry: Dict[str, Any]
    aside: Optional[str]
    changed: bool


def move(source: str, target: str, write: bool) -> Moved:
    """Move the registry: copy it whole, and rename what is left behind, so that nobody goes on with that.

    Nothing changes it meanwhile. If it was moved before, or half moved, the rest is done.

    Raises:
        RegistryError: there is no registry to move, there is another one at the target, or a run works on a slice.
    """
    there, here = store(source), store(target)
    is_left, is_done = is_there(source), is_there(target)
    if not is_left:
        if not is_done:
            _expect(source, "move")
        return Moved(_content(target), None, False)
    aside = there.aside("moved")
    with there.explained(BUSY_SECONDS), _unchanging(source, write) as connection:
        registry = read(connection)
        refuse_any_hold(registry["holds"])
        if is_done and _content(target) != registry:
            raise RegistryError("registry %s cannot be moved to %s: there is one" % (there.name, here.name))
        if write:
            with here.explained(BUSY_SECONDS):
                if not is_done and not here.create(lambda made: copy_rows(connection, made)):
                    raise RegistryError("registry %s: another run made one just now" % here.name)
            there.set_aside(aside, connection)
    return Moved(registry, aside, True)


@contextmanager
def _unchanging(place: str, write: bool) -> Iterator[Connection]:
    """The registry, locked as long as this lasts; or, not to ``write``, a copy."""
    with opened(place, write) as connection, connection.transaction():
        yield connection


def _content(place: str) -> Dict[str, Any]:
    with opened(place, write=False) as copy:
        return read(copy)
