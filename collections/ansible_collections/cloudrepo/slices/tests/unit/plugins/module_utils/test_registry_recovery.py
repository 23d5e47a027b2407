# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    RegistryError,
    opened,
    read,
    reserve,
    set_status,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_recovery import backup, rebuild

from ..records import small, web

FORK = multiprocessing.get_context("fork")
RECORDS = [dict(web(), status="running"), dict(small("b", 1010, 200), status="failed", reason="why")]
REGISTRY = {"revision": 1, "next_id": 1012, "last_worker": "worker1", "slices": RECORDS, "holds": []}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "registry.sqlite")


def content(path: str) -> dict[str, Any]:
    with opened(path, write=False) as connection:
        return read(connection)


def rebuilt(path: str, write: bool = True) -> Any:
    return rebuild(path, RECORDS, 1012, "worker1", write)


def test_a_missing_registry_is_made_anew(path: str) -> None:
    predicted = rebuilt(path, write=False)
    assert (predicted.changed, predicted.damaged, predicted.after) == (True, None, REGISTRY)
    assert not os.path.exists(path)

    assert rebuilt(path).after == REGISTRY
    assert content(path) == REGISTRY
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0 but no more", b"something else\n" * 500])
def test_a_damaged_registry_is_kept_and_made_anew(path: str, damage: bytes) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(damage)

    rebuilt(path, write=False)
    assert Path(path).read_bytes() == damage
    aside = rebuilt(path).damaged

    assert content(path) == REGISTRY
    assert aside.startswith(path + ".damaged-")
    assert Path(aside).read_bytes() == damage


def test_the_journal_of_a_lost_registry_is_kept_and_not_applied_to_the_new_one(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path + "-journal").write_bytes(b"of the lost one")

    aside = rebuilt(path).damaged

    assert content(path) == REGISTRY
    assert Path(aside + "-journal").read_bytes() == b"of the lost one"


def test_one_without_slices_is_filled_and_its_counter_never_goes_down(path: str) -> None:
    with opened(path, write=True) as connection:
        reserve(connection, small("gone", 2000, 300), "deploying", 0, 2002, "worker3")
        connection.execute("DELETE FROM slices")

    assert rebuilt(path).damaged is None
    assert content(path) == {**REGISTRY, "revision": 2, "next_id": 2002}


def test_one_with_slices_is_refused(path: str) -> None:
    rebuilt(path)
    before = Path(path).read_bytes()

    with pytest.raises(RegistryError, match=f"^registry {path}: it holds 2 slices.* move it away"):
        rebuilt(path)
    assert Path(path).read_bytes() == before


def test_nothing_found_changes_nothing(path: str) -> None:
    assert not rebuild(path, [], 1000, "", write=True).changed
    assert not os.path.exists(path)


def test_records_that_do_not_go_together_leave_the_registry_as_it_was(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).touch()

    with pytest.raises(RegistryError, match="slice b: VLAN 119 is already held by slice web"):
        rebuild(path, [web(), small("b", 1010, 119)], 1012, "", write=True)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert os.path.getsize(path) == 0


def _write(path: str, number: int, rounds: int) -> None:
    """Reserve slices, each in one transaction with its status: a sound copy never has one without its VMs."""
    for index in range(rounds):
        done = False
        while not done:
            registry = content(path)
            first = registry["next_id"]
            with opened(path, write=True) as connection:
                wanted = small(f"s{number}-{index}", first, first, vms=3)
                revision = registry["revision"]
                done = not reserve(connection, wanted, "deploying", revision, first + 4, "w").conflict
                if done:
                    set_status(connection, wanted["name"], "running", "")


def test_backups_are_sound_while_others_write(path: str, tmp_path: Path) -> None:
    writers, rounds = 4, 10
    with opened(path, write=True):
        pass
    processes = [FORK.Process(target=_write, args=(path, number, rounds)) for number in range(writers)]
    for process in processes:
        process.start()
    revisions = []
    while any(process.is_alive() for process in processes) or not revisions:
        dest = tmp_path / "copies" / f"{len(revisions)}.sqlite"
        revisions.append(backup(path, str(dest), write=True))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0

    assert content(path)["revision"] == 2 * writers * rounds
    assert len(set(revisions)) > 3, "nothing was written meanwhile"
    for number, revision in enumerate(revisions):
        dest = tmp_path / "copies" / f"{number}.sqlite"
        assert stat.S_IMODE(dest.stat().st_mode) == 0o600
        with sqlite3.connect(dest) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        copy = content(str(dest))
        assert copy["revision"] == revision
        # Each slice counts the revision up twice: reserved, running.
        states = Counter(record["status"] for record in copy["slices"])
        assert states["deploying"] + 2 * states["running"] == revision
        assert copy["next_id"] == 1000 + 4 * len(copy["slices"])
        assert {len(record["vms"]) for record in copy["slices"]} <= {3}
    assert sorted(os.listdir(tmp_path / "copies")) == sorted(f"{number}.sqlite" for number in range(len(revisions)))


def test_a_backup_needs_a_registry_and_a_free_place(path: str) -> None:
    with pytest.raises(RegistryError, match="does not exist: there is nothing to back up"):
        backup(path, path + ".copy", write=True)
    rebuilt(path)
    Path(path + ".copy").touch()
    with pytest.raises(RegistryError, match="it exists already"):
        backup(path, path + ".copy", write=True)
    Path(path).write_bytes(b"")
    with pytest.raises(RegistryError, match="is damaged"):
        backup(path, path + ".other", write=True)
    assert not os.path.exists(path + ".other")
