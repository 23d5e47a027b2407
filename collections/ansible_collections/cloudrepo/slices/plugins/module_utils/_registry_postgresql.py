# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry in a PostgreSQL database, as a schema of its own. Nothing here prints the URL: it may hold a password."""

from __future__ import annotations

import re
import socket
import sys
from contextlib import closing, contextmanager
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Type

from ansible_collections.cloudrepo.slices.plugins.module_utils._caller import refuse_if_gone
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import (
    BUSY_SECONDS,
    SCHEMA_VERSION,
    Connection,
    DamagedError,
    LockedError,
    RegistryError,
    check_version,
    copy_rows,
    make_tables,
    migrate,
    now,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_sqlite import SqliteConnection, empty

_SCHEMA = "cloudrepo_slices"
_CONNECT_SECONDS = 10

# Numbers that nobody else locks: to make the schema, and to rebuild or move the registry.
_MAKE, _ALONE = 0x5C1CE5, 0x5C1CE6

# What a URL is read as if a character of its password should have been written as %XX.
_ODD = {"port": r"[0-9,]*", "dbname": r"[^@/:?]+"}
# libpq ends the password at the first @, and would take the rest of it for a host, which is printed.
_TWO_ENDS = re.compile(r"[^/]*//[^/]*@[^/]*@")


def _psycopg() -> Any:
    # Not at the top: it takes longer to import than anything else here, and only a registry of this kind needs it.
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError:
        raise RegistryError(
            "Failed to import the required Python library (psycopg) on %s's Python %s. It is needed where the registry"
            " is reached from (slices_registry_host)." % (socket.gethostname(), sys.executable)
        ) from None
    return psycopg


class PostgresqlConnection:
    """A connection whose statements find the registry's tables."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._in_transaction = False
        # A run that hangs with the lock gives it back as late as others give up waiting for it.
        limit = "%dms" % (timeout * 1000)
        self.execute(
            "SELECT set_config('search_path', ?, false), set_config('lock_timeout', ?, false),"
            " set_config('idle_in_transaction_session_timeout', ?, false),"
            # Who waited for the lock has to see what was changed meanwhile, whatever the server's default is.
            " set_config('default_transaction_isolation', 'read committed', false)",
            (_SCHEMA, limit, limit),
        )

    @property
    def IntegrityError(self) -> Type[Exception]:
        """See ``Connection``."""
        error: Type[Exception] = self._connection.IntegrityError
        return error

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Any:
        """See ``Connection``."""
        return self._connection.execute(statement.replace("?", "%s"), values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Any:
        """See ``Connection``."""
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s"), rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Connection``."""
        if self._in_transaction:
            yield
            return
        with self.whole():
            self.execute("SELECT revision FROM meta FOR UPDATE")
            yield

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All or nothing, without a lock."""
        with self._connection.transaction():
            self._in_transaction = True
            try:
                yield
                refuse_if_gone()
            finally:
                self._in_transaction = False

    def close(self) -> None:
        """See ``Connection``."""
        self._connection.close()


class PostgresqlStore:
    """The schema of the registry in the database that a URL names."""

    def __init__(self, url: str) -> None:
        parts = _parts(url)
        host, port, database = (parts.get(key) for key in ("host", "port", "dbname"))
        self.name = "postgresql://%s%s/%s" % (host or "", ":%s" % port if port else "", database or "")
        self._parts = {"connect_timeout": _CONNECT_SECONDS, **parts, "client_encoding": "utf8"}

    def is_there(self) -> bool:
        """See ``Store``."""
        with self._connected() as connection:
            return _has_tables(connection)

    def open(self, timeout: float) -> PostgresqlConnection:
        """See ``Store``."""
        connection = self._connect(timeout)
        try:
            if not _has_tables(connection):
                _make(connection, lambda made: None)
            if self._version(connection) < SCHEMA_VERSION:
                with connection.transaction():
                    migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def copy(self, timeout: float) -> SqliteConnection:
        """See ``Store``."""
        with closing(self._connect(timeout)) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            copy = empty()
            if _has_tables(connection):
                self._version(connection)
                migrate(connection)  # For this transaction, which is not committed.
                copy_rows(connection, copy)
            return copy

    def create(self, fill: Callable[[Connection], None]) -> bool:
        """See ``Store``."""
        with self._connected() as connection:
            return _make(connection, fill)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See ``Store``."""
        with self._connected() as connection:
            connection.execute("SELECT pg_advisory_lock(?)", (_ALONE,))
            yield

    def aside(self, why: str) -> str:
        """See ``Store``."""
        return "schema %s_%s_%s" % (_SCHEMA, why, re.sub("[^0-9A-Z]", "_", now()).lower())

    def set_aside(self, aside: str, connection: Optional[Connection]) -> None:
        """See ``Store``."""
        if connection is None:
            with self._connected() as connection:
                self.set_aside(aside, connection)
        else:
            connection.execute("ALTER SCHEMA %s RENAME TO %s" % (_SCHEMA, aside.rpartition(" ")[2]))

    @contextmanager
    def explained(self, timeout: float) -> Iterator[None]:
        """See ``Store``."""
        errors = _psycopg().errors
        try:
            yield
        except errors.LockNotAvailable:
            raise LockedError(self.name, timeout) from None
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName) as error:
            raise DamagedError(self.name, self._reason(error)) from None
        except (errors.Error, OSError) as error:
            raise RegistryError("registry %s: %s" % (self.name, self._reason(error))) from None

    def _reason(self, error: Exception) -> str:
        """What PostgreSQL says, in one line."""
        diagnosis = getattr(error, "diag", None)
        text = " ".join(str((diagnosis and diagnosis.message_primary) or error).split())
        password = self._parts.get("password")
        return text.replace(password, "********") if password else text

    def _connect(self, timeout: float) -> PostgresqlConnection:
        psycopg = _psycopg()
        # Statements are not prepared: a connection is used for a few, and a pooler would lose them.
        return PostgresqlConnection(psycopg.connect(autocommit=True, prepare_threshold=None, **self._parts), timeout)

    @contextmanager
    def _connected(self) -> Iterator[PostgresqlConnection]:
        with closing(self._connect(BUSY_SECONDS)) as connection:
            yield connection

    def _version(self, connection: PostgresqlConnection) -> int:
        """The registry's version, if it is one of which this version can be made."""
        row = connection.execute("SELECT schema_version FROM meta").fetchone()
        if row is None:
            raise DamagedError(self.name, "it is empty")
        return check_version(self.name, row[0])


def _parts(url: str) -> Dict[str, Any]:
    """What libpq makes of a URL."""
    psycopg = _psycopg()
    try:
        parts: Dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        parts = {"port": "none"}
    is_odd = any(re.fullmatch(rule, str(parts.get(key) or "0")) is None for key, rule in _ODD.items())
    if is_odd or _TWO_ENDS.match(url):
        # Whatever it quoted might be a part of the password.
        raise RegistryError(
            "slices_registry_url is no URL like postgresql://user:password@host/database"
            " (special characters of a password are written as %XX)"
        )
    return parts


def _has_tables(connection: PostgresqlConnection) -> bool:
    """A schema without tables is one that an administrator made for the registry."""
    query = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = ?)"
    return bool(connection.execute(query, (_SCHEMA,)).fetchone()[0])


def _make(connection: PostgresqlConnection, fill: Callable[[Connection], None]) -> bool:
    with connection.whole():
        connection.execute("SELECT pg_advisory_xact_lock(?)", (_MAKE,))
        if _has_tables(connection):
            return False
        # Asking with IF NOT EXISTS would need the right to create one.
        if not connection.execute("SELECT FROM pg_namespace WHERE nspname = ?", (_SCHEMA,)).fetchall():
            connection.execute("CREATE SCHEMA %s" % _SCHEMA)
        make_tables(connection, integer="BIGINT", real="DOUBLE PRECISION")
        fill(connection)
    return True
