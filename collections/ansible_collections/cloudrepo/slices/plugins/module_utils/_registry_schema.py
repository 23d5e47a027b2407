# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry's tables, in SQL that SQLite and PostgreSQL understand alike, and what holds them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable, ContextManager, Optional, Protocol, Sequence, Tuple, Type

SCHEMA_VERSION = 3
FIRST_ID = 1000
BUSY_SECONDS = 30.0

_SCHEMA = (
    """CREATE TABLE meta (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        schema_version INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        next_id INTEGER NOT NULL,
        last_worker TEXT NOT NULL
    )""",
    """CREATE TABLE slices (
        id INTEGER NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('design', 'deploying', 'running', 'deleting', 'failed')),
        reason TEXT NOT NULL,
        has_run INTEGER NOT NULL,
        pool_first INTEGER NOT NULL,
        pool_size INTEGER NOT NULL,
        internet_server TEXT,
        network_node TEXT NOT NULL
    )""",
    """CREATE TABLE holds (
        slice TEXT NOT NULL PRIMARY KEY,
        run TEXT NOT NULL,
        holder TEXT NOT NULL,
        status TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL
    )""",
    """CREATE TABLE vlans (
        vlan INTEGER NOT NULL PRIMARY KEY CHECK (vlan BETWEEN 1 AND 4094),
        slice_id INTEGER NOT NULL REFERENCES slices (id) ON DELETE CASCADE,
        UNIQUE (slice_id, vlan)
    )""",
    """CREATE TABLE addresses (
        vlan INTEGER NOT NULL,
        address TEXT NOT NULL,
        slice_id INTEGER NOT NULL REFERENCES slices (id) ON DELETE CASCADE,
        PRIMARY KEY (vlan, address)
    )""",
    """CREATE TABLE vms (
        id INTEGER NOT NULL PRIMARY KEY,
        slice_id INTEGER NOT NULL REFERENCES slices (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        flavor TEXT NOT NULL,
        cores INTEGER NOT NULL,
        memory_mb INTEGER NOT NULL,
        disk_gb REAL NOT NULL,
        image TEXT NOT NULL,
        worker TEXT NOT NULL,
        worker_address TEXT NOT NULL,
        vnc_port INTEGER NOT NULL UNIQUE,
        retired INTEGER NOT NULL,
        UNIQUE (slice_id, name)
    )""",
    """CREATE TABLE interfaces (
        vm_id INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        mac TEXT NOT NULL UNIQUE,
        tap TEXT NOT NULL UNIQUE,
        vlan INTEGER,
        link INTEGER,
        address TEXT,
        default_route INTEGER NOT NULL,
        PRIMARY KEY (vm_id, name)
    )""",
    """CREATE TABLE links (
        slice_id INTEGER NOT NULL REFERENCES slices (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        vlan INTEGER NOT NULL UNIQUE,
        subnet TEXT,
        gateway INTEGER NOT NULL,
        dhcp INTEGER NOT NULL,
        port_security INTEGER NOT NULL,
        server_address TEXT,
        PRIMARY KEY (slice_id, number),
        FOREIGN KEY (slice_id, vlan) REFERENCES vlans (slice_id, vlan) ON DELETE CASCADE
    )""",
    """CREATE TABLE endpoints (
        slice_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        position INTEGER NOT NULL,
        vm TEXT NOT NULL,
        interface TEXT NOT NULL,
        PRIMARY KEY (slice_id, number, position),
        FOREIGN KEY (slice_id, number) REFERENCES links (slice_id, number) ON DELETE CASCADE
    )""",
    # Refers to no other table: a slice's rows are written anew with every change, and a secret is not part of them.
    """CREATE TABLE secrets (
        vm_id INTEGER NOT NULL PRIMARY KEY,
        vnc_password TEXT NOT NULL
    )""",
)

# What makes a registry of the version named one of the next.
_MIGRATIONS = {
    # The only network node that there was; slices of no name are on the first one.
    2: ("ALTER TABLE slices ADD COLUMN network_node TEXT NOT NULL DEFAULT ''",),
}

# Parents before what refers to them.
_TABLES = ("meta", "slices", "holds", "vlans", "addresses", "vms", "interfaces", "links", "endpoints", "secrets")


class RegistryError(Exception):
    """The registry cannot be used, or refuses what it was asked to store."""


class DamagedError(RegistryError):
    """There is something, but no registry that can be used: it is to be rebuilt, or replaced by a backup."""

    def __init__(self, name: str, reason: object) -> None:
        """Say what to do about it."""
        super().__init__(
            "registry %s is damaged (%s): run the playbook rebuild_registry, or put a backup in its place"
            % (name, reason)
        )


class LockedError(RegistryError):
    """Another run has it for too long."""

    def __init__(self, name: str, seconds: float) -> None:
        """Say for how long."""
        super().__init__("registry %s is locked: another run has held it for %g seconds" % (name, seconds))


class Connection(Protocol):
    """A database that holds a registry. Values stand for question marks in the statements, never in their text."""

    @property
    def IntegrityError(self) -> Type[Exception]:
        """What it raises when a constraint is violated."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Any:
        """Run a statement, and return its rows."""

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Any:
        """Run a statement once for each row of values."""

    def transaction(self) -> ContextManager[None]:
        """All or nothing. It begins by locking out other writers: nothing changes between reading and writing."""

    def close(self) -> None:
        """Undo what is not committed, and let go."""


class Store(Protocol):
    """Where a registry is: a file, or a schema of a PostgreSQL database."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def is_there(self) -> bool:
        """Whether there is anything, sound or not."""

    def open(self, timeout: float) -> Connection:
        """Open it to be changed; one that is missing is made first."""

    def copy(self, timeout: float) -> Connection:
        """A copy in memory, of one moment. That of a missing one is an empty registry."""

    def create(self, fill: Callable[[Connection], None]) -> bool:
        """Make one that nobody sees before it is whole; False if another run was faster."""

    def alone(self) -> ContextManager[None]:
        """Lock out others that would do this as well."""

    def aside(self, why: str) -> str:
        """A name for what is there, once it is no registry any more."""

    def set_aside(self, aside: str, connection: Optional[Connection]) -> None:
        """Rename what is there, in the connection's transaction if it is open."""

    def explained(self, timeout: float) -> ContextManager[None]:
        """Tell the database's errors as ours, which name the store and what to do."""


def make_tables(connection: Connection, integer: str = "INTEGER", real: str = "REAL") -> None:
    """Make an empty registry, of column types that hold 64 bits."""
    for statement in _SCHEMA:
        connection.execute(statement.replace("INTEGER", integer).replace("REAL", real))
    connection.execute(
        "INSERT INTO meta (id, schema_version, revision, next_id, last_worker) VALUES (1, ?, 0, ?, '')",
        (SCHEMA_VERSION, FIRST_ID),
    )


def check_version(name: str, version: int) -> int:
    """A registry's version, if it is one of which this version can be made."""
    if version > SCHEMA_VERSION:
        raise RegistryError(
            "registry %s has schema version %d, but this version of cloudrepo.slices knows %d at most"
            % (name, version, SCHEMA_VERSION)
        )
    if version < min(_MIGRATIONS):
        raise DamagedError(name, "it has schema version %d, which is older than %d" % (version, min(_MIGRATIONS)))
    return version


def migrate(connection: Connection) -> None:
    """Make it one of this version, within a transaction of the caller's."""
    (version,) = connection.execute("SELECT schema_version FROM meta").fetchone()
    for step in range(version, SCHEMA_VERSION):
        for statement in _MIGRATIONS[step]:
            connection.execute(statement)
    if version < SCHEMA_VERSION:
        connection.execute("UPDATE meta SET schema_version = ?", (SCHEMA_VERSION,))


def copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows into a registry that was just made."""
    target.execute("DELETE FROM meta")
    for table in _TABLES:
        cursor = source.execute("SELECT * FROM %s" % table)
        columns = [column[0] for column in cursor.description]
        insert(target, table, columns, cursor.fetchall())


def insert(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Tuple[Any, ...]]) -> None:
    """Insert rows, if there are any."""
    if rows:
        statement = "INSERT INTO %s (%s) VALUES (%s)" % (table, ", ".join(columns), ", ".join("?" * len(columns)))
        connection.executemany(statement, rows)


def now() -> str:
    """The time, for a name that nothing has yet."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
