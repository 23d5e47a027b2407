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
    Actor,
    HeldError,
    make_passwords,
    opened,
    read,
    remove,
    reserve,
    set_status,
    store,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_recovery import backup, move, rebuild
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import RegistryError

from ..postgresql import Server
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


def test_a_missing_registry_is_made_anew(place: str) -> None:
    predicted = rebuilt(place, write=False)
    assert (predicted.changed, predicted.damaged, predicted.after) == (True, None, REGISTRY)
    assert not store(place).is_there()

    assert rebuilt(place).after == REGISTRY
    assert content(place) == REGISTRY


def test_a_registry_that_was_made_anew_is_nobody_elses(path: str) -> None:
    rebuilt(path)
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


def test_a_damaged_schema_is_kept_and_made_anew(postgresql: Server) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as connection:
        connection.execute("DROP TABLE vms CASCADE")

    aside = rebuilt(place).damaged

    assert content(place) == REGISTRY
    with opened(place, write=True) as connection:
        query = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'slices'"
        assert connection.execute(query, (aside.removeprefix("schema "),)).fetchone()


def test_one_without_slices_is_filled_and_its_counter_never_goes_down(place: str) -> None:
    with opened(place, write=True) as connection:
        reserve(connection, small("gone", 2000, 300), "deploying", 0, 2002, "worker3")
        connection.execute("DELETE FROM slices")

    assert rebuilt(place).damaged is None
    assert content(place) == {**REGISTRY, "revision": 2, "next_id": 2002}


def test_one_with_slices_is_refused(place: str) -> None:
    rebuilt(place)

    with pytest.raises(RegistryError, match=f"^registry {store(place).name}: it holds 2 slices.* move it away"):
        rebuilt(place)
    assert content(place) == REGISTRY


def test_nothing_found_changes_nothing(place: str) -> None:
    assert not rebuild(place, [], 1000, "", write=True).changed
    assert not store(place).is_there()


def test_records_that_do_not_go_together_leave_the_registry_as_it_was(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).touch()

    with pytest.raises(RegistryError, match="slice b: VLAN 119 is already held by slice web"):
        rebuild(path, [web(), small("b", 1010, 119)], 1012, "", write=True)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert os.path.getsize(path) == 0


def _write(place: str, number: int, rounds: int) -> None:
    """Reserve slices, each in one transaction with its status: a sound copy never has one without its VMs."""
    for index in range(rounds):
        done = False
        while not done:
            registry = content(place)
            first = registry["next_id"]
            with opened(place, write=True) as connection:
                wanted = small(f"s{number}-{index}", first, first, vms=3)
                revision = registry["revision"]
                done = not reserve(connection, wanted, "deploying", revision, first + 4, "w").conflict
                if done:
                    set_status(connection, wanted["name"], "running", "")


def test_backups_are_sound_while_others_write(place: str, tmp_path: Path) -> None:
    writers, rounds = 4, 10
    with opened(place, write=True):
        pass
    processes = [FORK.Process(target=_write, args=(place, number, rounds)) for number in range(writers)]
    for process in processes:
        process.start()
    revisions = []
    while any(process.is_alive() for process in processes) or not revisions:
        dest = tmp_path / "copies" / f"{len(revisions)}.sqlite"
        revisions.append(backup(place, str(dest), write=True))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0

    assert content(place)["revision"] == 2 * writers * rounds
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


def test_a_backup_needs_a_registry(place: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="does not exist: there is nothing to back up"):
        backup(place, str(tmp_path / "copy"), write=True)
    assert not (tmp_path / "copy").exists()


def test_a_backup_needs_a_sound_registry_and_a_free_place(path: str) -> None:
    rebuilt(path)
    Path(path + ".copy").touch()
    with pytest.raises(RegistryError, match="it exists already"):
        backup(path, path + ".copy", write=True)
    Path(path).write_bytes(b"")
    with pytest.raises(RegistryError, match="is damaged"):
        backup(path, path + ".other", write=True)
    assert not os.path.exists(path + ".other")


ALICE = Actor(run="ctl/boot:ns/1/77", holder="alice on ctl (PID 1)")


def moving(path: str, postgresql: Server, to: str) -> tuple[str, str]:
    """From where and to where."""
    places = (path, postgresql.new_database())
    return places if to == "postgresql" else places[::-1]


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
def test_a_registry_is_moved_whole(path: str, postgresql: Server, to: str) -> None:
    source, target = moving(path, postgresql, to)
    rebuilt(source)
    with opened(source, write=True) as connection:
        passwords, _made = make_passwords(connection, web())

    predicted = move(source, target, write=False)
    assert predicted.changed and content(source) == REGISTRY and not store(target).is_there()
    moved = move(source, target, write=True)

    assert (moved.registry, content(target)) == (REGISTRY, REGISTRY)
    assert not store(source).is_there()
    with opened(target, write=True) as connection:
        assert make_passwords(connection, web()) == (passwords, False)
        # What is left behind is kept, the constraints are there, and so is the counter.
        with pytest.raises(RegistryError, match="VNC port 5901 is already held by slice web"):
            clash = small("c", 1012, 300)
            clash["vms"][0]["vnc_port"] = 5901
            reserve(connection, clash, "deploying", 1, 1014, "w")
    assert move(source, target, write=True) == (REGISTRY, None, False)
    # And back, with what happened since.
    with opened(target, write=True) as connection:
        remove(connection, "b")
    since = content(target)
    assert move(target, source, write=True).registry == content(source) == since


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
def test_a_registry_in_use_or_over_another_one_is_not_moved(path: str, postgresql: Server, to: str) -> None:
    source, target = moving(path, postgresql, to)
    with pytest.raises(RegistryError, match="does not exist: there is nothing to move"):
        move(source, target, write=True)
    with opened(source, write=True) as connection:
        reserve(connection, web(), "deploying", 0, 1003, "w", ALICE)
    with pytest.raises(HeldError, match="being deployed by alice"):
        move(source, target, write=True)
    assert content(source)["slices"] and not store(target).is_there()
    with opened(source, write=True) as connection:
        set_status(connection, "web", "running", "", ALICE)
    with opened(target, write=True):
        pass
    with pytest.raises(RegistryError, match="there is one"):
        move(source, target, write=True)
    assert content(source)["slices"] and not content(target)["slices"]


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
def test_a_move_that_was_cut_short_is_ended(
    path: str, postgresql: Server, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = moving(path, postgresql, to)
    rebuilt(source)
    with monkeypatch.context() as patched:
        patched.setattr(type(store(source)), "set_aside", None)
        with pytest.raises(TypeError):
            move(source, target, write=True)
    assert content(source) == content(target) == REGISTRY
    assert move(source, target, write=True).changed
    assert not store(source).is_there()


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
def test_who_opened_the_registry_before_it_was_moved_writes_nothing_into_what_was_left(
    path: str, postgresql: Server, to: str
) -> None:
    source, target = moving(path, postgresql, to)
    rebuilt(source)
    with pytest.raises(RegistryError, match=r"replaced meanwhile|damaged"), opened(source, write=True) as late:
        aside = move(source, target, write=True).aside
        remove(late, "b")
    if to == "postgresql":
        assert content(str(aside)) == REGISTRY
    assert content(target) == REGISTRY
