# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry in a file of SQLite's: its locks, journal and pragmas."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import Any, Callable, ContextManager, Iterator, Optional, Tuple
from urllib.parse import quote

from ansible_collections.cloudrepo.slices.plugins.module_utils._caller import refuse_if_gone
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    locked,
    part_path,
    remove_file,
    sync_folder,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import (
    BUSY_SECONDS,
    SCHEMA_VERSION,
    Connection,
    DamagedError,
    LockedError,
    RegistryError,
    check_version,
    make_tables,
    migrate,
    now,
)

_JOURNAL = "-journal"

# What SQLite keeps beside a database, and would apply to another one of that name.
_COMPANIONS = (_JOURNAL, "-wal", "-shm")

# What SQLite says of a file that is not as it was written.
_DAMAGE = ("not a database", "malformed", "unsupported file format", "no such table", "no such column")


class SqliteConnection(sqlite3.Connection):
    """A file, or memory. ``path`` is where the file has to be when it is written."""

    path = ""
    _inode: Optional[Tuple[int, int]] = None

    @classmethod
    def memory(cls) -> SqliteConnection:
        """An empty database in memory."""
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=cls)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @classmethod
    def file(cls, path: str, timeout: float) -> SqliteConnection:
        """The database in a file, which is there."""
        # Not to be created: to SQLite an empty file is a database, to us it is one that was lost.
        uri = "file:%s?mode=rw" % quote(os.path.abspath(path))
        connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, factory=cls)
        connection.path, connection._inode = path, _inode(path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Connection``."""
        if self.in_transaction:
            yield
            return
        self.execute("BEGIN IMMEDIATE")
        try:
            if self.path and _inode(self.path) != self._inode:
                raise RegistryError("registry %s was replaced meanwhile; run this again" % self.path)
            yield
            refuse_if_gone()
            self.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors, such as a full disk.
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise


def _inode(path: str) -> Optional[Tuple[int, int]]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def empty() -> SqliteConnection:
    """A new registry in memory."""
    connection = SqliteConnection.memory()
    make_tables(connection)
    return connection


class SqliteStore:
    """The file at ``name``, a path. Only its owner can read it."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = os.path.abspath(path)

    def is_there(self) -> bool:
        """See ``Store``.

        Raises:
            DamagedError: of one that was being written only the journal is left, which SQLite would apply to a new one.
            RegistryError: whether it is there can't be known.
        """
        try:
            # In this order: whoever writes a journal has the file before it.
            journal, file = _inode(self._path + _JOURNAL), _inode(self._path)
        except OSError as error:  # What may not be looked at is not what is not there.
            raise RegistryError("registry %s: %s" % (self.name, error.strerror)) from error
        if file:
            return True
        if journal:
            raise DamagedError(self.name, "it is gone, its journal is not")
        return False

    def open(self, timeout: float) -> SqliteConnection:
        """See ``Store``."""
        if not self.is_there():
            self.create(lambda connection: None)
        connection = SqliteConnection.file(self.name, timeout)
        try:
            self._check_size(connection)
            if self._version(connection) < SCHEMA_VERSION:
                with connection.transaction():
                    migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def copy(self, timeout: float) -> SqliteConnection:
        """See ``Store``."""
        if not self.is_there():
            return empty()
        copy = SqliteConnection.memory()
        with closing(SqliteConnection.file(self.name, timeout)) as source:
            # Only this waits for a lock no longer than the timeout: backup() waits for ever.
            source.execute("BEGIN")
            source.execute("SELECT COUNT(*) FROM sqlite_master")
            self._check_size(source)
            source.backup(copy)
        self._version(copy)
        migrate(copy)
        return copy

    def create(self, fill: Callable[[Connection], None]) -> bool:
        """See ``Store``."""
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        part = part_path(self._path)
        # SQLite would create it readable by all; its journal takes over the mode found here.
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with closing(SqliteConnection.file(part, BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = MEMORY")  # A part needs no journal: without us it is rubbish.
                with connection.transaction():
                    make_tables(connection)
                    fill(connection)
            try:
                os.link(part, self._path)
            except FileExistsError:
                return False
        finally:
            remove_file(part)
        sync_folder(os.path.dirname(self._path))
        return True

    def alone(self) -> ContextManager[None]:
        """See ``Store``."""
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        return locked(os.path.dirname(self._path))

    def aside(self, why: str) -> str:
        """See ``Store``."""
        return "%s.%s-%s" % (self._path, why, now())

    def set_aside(self, aside: str, connection: Optional[Connection]) -> None:
        """See ``Store``. What SQLite needs to repair it goes with it."""
        for suffix in ("", *_COMPANIONS):
            if os.path.lexists(self._path + suffix):
                os.rename(self._path + suffix, aside + suffix)
        sync_folder(os.path.dirname(self._path))

    @contextmanager
    def explained(self, timeout: float) -> Iterator[None]:
        """See ``Store``."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._explained(timeout, str(error)) from error
        except OSError as error:
            raise RegistryError("registry %s: %s" % (self.name, error.strerror)) from error

    def _explained(self, timeout: float, reason: str) -> RegistryError:
        if "is locked" in reason:
            return LockedError(self.name, timeout)
        if any(sign in reason for sign in _DAMAGE):
            return DamagedError(self.name, reason)
        return RegistryError("registry %s: %s" % (self.name, reason))

    def _check_size(self, connection: SqliteConnection) -> None:
        """Refuse a file that was cut off within its last page, of which SQLite says nothing."""
        (pages,), (size,) = (connection.execute("PRAGMA " + name).fetchone() for name in ("page_count", "page_size"))
        if os.path.getsize(self._path) < pages * size:
            raise DamagedError(self.name, "it was cut off")

    def _version(self, connection: SqliteConnection) -> int:
        """The registry's version. A file that is not ours, or was emptied, is refused."""
        columns = {row[1] for row in connection.execute("PRAGMA table_info(meta)")}
        row = connection.execute("SELECT schema_version FROM meta").fetchone() if "schema_version" in columns else None
        if row is None:
            raise DamagedError(self.name, "it is no registry" if os.path.getsize(self._path) else "it is empty")
        return check_version(self.name, row[0])


def check_integrity(name: str, connection: Connection) -> None:
    """Refuse a copy in memory that is not as SQLite wrote it."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise DamagedError(name, found)


def save(copy: Any, path: str) -> None:
    """Write a copy in memory, which is always of this kind, to a file."""
    with closing(sqlite3.connect(path)) as target:
        copy.backup(target)
