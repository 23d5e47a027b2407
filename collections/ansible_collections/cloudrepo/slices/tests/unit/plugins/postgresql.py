# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PostgreSQL server of the tests' own: Debian's programs, run by an unprivileged user, reached by a socket only."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

USER = "slices"
# Each of these characters means something in a URL.
PASSWORD = "p@ss/w%rd:4?e"


class Server:
    """A server that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{quote(password, safe='')}@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self) -> str:
        """The URL of an empty database that belongs to an ordinary user."""
        name = f"registry{next(self._numbers)}"
        self.admin(f"CREATE DATABASE {name} OWNER {USER}")
        return self.url(name)

    def admin(self, statement: Any) -> None:
        with psycopg.connect(self._administrators(), autocommit=True) as connection:
            connection.execute(statement)

    def _administrators(self) -> str:
        return f"postgresql://admin:{quote(PASSWORD, safe='')}@/postgres?host={quote(str(self.folder), safe='')}"


@contextmanager
def running_server() -> Iterator[Server]:
    """A server in a folder of its own, which goes with it."""
    # Not below pytest's folders: a socket's path has 107 characters at most, and only root may enter those.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
    data = str(folder / "data")
    try:
        passwords = folder / "password"
        passwords.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(passwords, "postgres", "postgres")
        folder.chmod(0o755)
        _run("initdb", "--pgdata", data, "--username=admin", "--pwfile", str(passwords), "--auth=scram-sha-256",
             "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _run("pg_ctl", "start", "--wait", "--pgdata", data, "--log", str(folder / "log"), "--options", options)
        try:
            server = Server(folder)
            server.admin(psycopg.sql.SQL("CREATE ROLE slices LOGIN PASSWORD {}").format(PASSWORD))
            yield server
        finally:
            _run("pg_ctl", "stop", "--wait", "--mode=immediate", "--pgdata", data)
    finally:
        shutil.rmtree(folder)


def _run(name: str, *arguments: str) -> None:
    """Run one of the server's programs; it refuses to be run by root."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or [Path("/usr/bin")]
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(programs / name), *arguments], **who, cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{name}: {done.stdout}"
