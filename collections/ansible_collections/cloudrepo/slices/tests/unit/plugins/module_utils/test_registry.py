# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _registry, _registry_schema
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    Actor,
    Change,
    HeldError,
    make_passwords,
    opened,
    read,
    read_passwords,
    remove,
    reserve,
    set_status,
    workers,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import (
    Connection,
    DamagedError,
    RegistryError,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ..plugin_utils.clusters import WEB, make_plan
from ..postgresql import PASSWORD, Server
from ..records import small, web

EMPTY = {"revision": 0, "next_id": 1000, "last_worker": "", "slices": [], "holds": []}
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "registry.sqlite")


@pytest.fixture
def connection(path: str) -> Iterator[Connection]:
    with opened(path, write=True) as connection:
        yield connection


def store(connection: Connection, record: dict[str, Any], status: str = "deploying") -> Change:
    """Reserve as a play does that nobody gets in the way of."""
    registry = read(connection)
    next_id = max([record["id"], *(vm["id"] for vm in record["vms"])]) + 1
    return reserve(connection, record, status, registry["revision"], next_id, "worker1")


def test_what_is_reserved_is_what_is_read(connection: Connection) -> None:
    change = reserve(connection, web(), "deploying", 0, 1003, "worker2")

    stored = dict(web(), status="deploying")
    assert change == Change(None, stored)
    assert read(connection) == {
        "revision": 1,
        "next_id": 1003,
        "last_worker": "worker2",
        "slices": [stored],
        "holds": [],
    }
    # 1 == 1.0 and 1 == True, but they print differently.
    assert repr(change.after["vms"][0]["disk_gb"]) == "1"
    assert change.after["links"][0]["gateway"] is True


def test_slices_come_in_the_order_of_their_ids(connection: Connection) -> None:
    for record in (small("b", 1000, 100), small("a", 1010, 110)):
        store(connection, record)
    set_status(connection, "b", "failed", "")

    assert [record["name"] for record in read(connection)["slices"]] == ["b", "a"]


def vm_names(record: dict[str, Any]) -> list[str]:
    return [vm["name"] for vm in record["vms"]]


# PostgreSQL has no text with a NUL, so the registry takes none.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Any record that the registry has to take, its lists in any order."""
    pool = draw(st.integers(1, 4000))
    links = [
        {
            "number": index + 1,
            "name": draw(texts),
            "vlan": pool + index,
            "subnet": draw(st.none() | texts),
            "gateway": draw(st.booleans()),
            "dhcp": draw(st.booleans()),
            "port_security": draw(st.booleans()),
            "server_address": draw(st.none() | st.just("10.0.0.1/24")),
            "endpoints": [{"vm": draw(texts), "interface": draw(texts)} for _end in range(draw(st.integers(0, 3)))],
        }
        for index in range(draw(st.integers(0, 3)))
    ]
    vms = [
        {
            "id": 1001 + index,
            "name": f"vm{index}",
            "flavor": draw(texts),
            "cores": draw(st.integers(1, 512)),
            "memory_mb": draw(st.integers(1, 2**31 - 1)),
            "disk_gb": draw(st.integers(1, 10**6) | st.floats(0.001, 10**6)),
            "image": draw(texts),
            "worker": draw(texts),
            "worker_address": draw(texts),
            "vnc_port": 5901 + index,
            "retired": draw(st.booleans()),
            "interfaces": draw(
                st.permutations([_interface(draw, index, number) for number in range(draw(st.integers(0, 3)))])
            ),
        }
        for index in range(draw(st.integers(0, 3)))
    ]
    return {
        "id": 1000,
        "name": "any",
        "owner": draw(st.from_regex(r"[A-Za-z0-9_.@+-]{1,150}", fullmatch=True)),
        "status": "running",
        "reason": "left over",
        "has_run": False,
        "network_node": draw(texts),
        "vlan_pool": {"first": pool, "size": draw(st.integers(3, 40))},
        "vms": draw(st.permutations(vms)),
        "links": draw(st.permutations(links)),
        "internet": draw(st.none() | st.just({"server_address": "10.60.7.254/24"})),
    }


def _interface(draw: st.DrawFn, vm: int, number: int) -> dict[str, Any]:
    return {
        "name": f"eth{number}",
        "mac": f"52:54:00:00:{vm:02x}:{number:02x}",
        "tap": f"tap_{vm}_eth{number}",
        "vlan": draw(st.none() | st.integers(1, 4094)),
        "link": draw(st.none() | st.integers(1, 3)),
        "address": draw(st.none() | st.just(f"192.168.{vm}.{10 + number}/24")),
        "default_route": draw(st.booleans()),
    }


@given(records())
def test_any_record_comes_back_as_it_went_in(record: dict[str, Any]) -> None:
    with opened("/nonexistent/registry.sqlite", write=False) as connection:
        _comes_back(connection, record)


def test_any_record_comes_back_from_a_server(postgresql: Server) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as connection:

        @settings(max_examples=30, deadline=None)
        @given(records())
        def comes_back(record: dict[str, Any]) -> None:
            _comes_back(connection, record)
            assert repr(_read(place)["slices"]) == repr(read(connection)["slices"])
            connection.execute("DELETE FROM slices")
            connection.execute("UPDATE meta SET revision = 0, next_id = 1000")

        comes_back()


def _comes_back(connection: Connection, record: dict[str, Any]) -> None:
    change = reserve(connection, record, "design", 0, 1001, "worker1")

    assert change.after == dict(record, status="design", reason="")
    assert read(connection)["slices"] == [change.after]


@pytest.mark.parametrize(
    ("stored", "wanted", "result"),
    [
        ("running", "deploying", "running"),
        ("running", "design", "running"),
        ("deploying", "deploying", "deploying"),
        ("failed", "deploying", None),
        ("deleting", "deploying", None),
        ("design", "deploying", None),
    ],
)
def test_an_unchanged_record_is_written_only_for_its_status(
    connection: Connection, stored: str, wanted: str, result: str | None
) -> None:
    store(connection, web(), "design")
    if stored != "design":
        set_status(connection, "web", stored, "why")
    before = read(connection)

    change = reserve(connection, web(), wanted, before["revision"], 2000, "worker3")

    if result is None:
        assert (change.after["status"], change.after["reason"]) == (wanted, "")
        assert read(connection)["revision"] == before["revision"] + 1
    else:
        assert change.after == change.before
        assert change.after["status"] == result
        assert read(connection) == before


def test_a_changed_record_of_a_running_slice_is_deployed_again(connection: Connection) -> None:
    store(connection, web())
    set_status(connection, "web", "running", "")
    record = web()
    del record["vms"][1]

    change = store(connection, record)

    assert change.before["status"] == "running"
    assert change.after == dict(record, status="deploying", has_run=True)
    assert read(connection)["slices"] == [change.after]


def test_a_plan_is_stored_as_the_planner_will_want_to_find_it(connection: Connection) -> None:
    planned = make_plan(WEB, read(connection))
    reserve(connection, planned["slice"], "deploying", 0, planned["next_id"], planned["last_worker"])
    set_status(connection, "web", "running", "")

    again = make_plan(WEB, read(connection))
    assert (again["changed"], again["revision"], again["next_id"]) == (False, 2, 1003)


def test_another_revision_is_a_conflict_and_writes_nothing(connection: Connection) -> None:
    store(connection, web())
    before = read(connection)

    change = reserve(connection, small("late", 1003, 200), "deploying", 0, 1005, "worker3")

    assert change == Change(None, None, conflict=True)
    assert read(connection) == before


def test_ids_are_never_given_out_again(connection: Connection) -> None:
    reserve(connection, web(), "deploying", 0, 1003, "worker1")
    remove(connection, "web")
    assert read(connection) == {"revision": 2, "next_id": 1003, "last_worker": "worker1", "slices": [], "holds": []}

    with pytest.raises(RegistryError, match="slice again: ID 1000 was given out before, the next is 1003"):
        reserve(connection, small("again", 1000, 100, vms=0), "deploying", 2, 1001, "worker1")
    assert read(connection)["revision"] == 2


def test_the_counter_never_goes_down(connection: Connection) -> None:
    for revision, owner, next_id, expected in (
        (0, "alice", 1000, 1003),
        (1, "bob", 1010, 1010),
        (2, "eve", 1003, 1010),
    ):
        reserve(connection, dict(web(), owner=owner), "deploying", revision, next_id, "worker1")
        assert read(connection)["next_id"] == expected


def other_web() -> dict[str, Any]:
    """A slice as large as the golden one that shares nothing with it."""
    record = web()
    record.update(id=1003, name="other", vlan_pool={"first": 120, "size": 20})
    for vm in record["vms"]:
        vm.update(id=vm["id"] + 3, vnc_port=vm["vnc_port"] + 3)
        for interface in vm["interfaces"]:
            interface["mac"] = interface["mac"].replace("52:54:00", "52:54:01")
            interface["tap"] = f"tap_{vm['id']}_{interface['name']}"
    for item in (record["vms"][0]["interfaces"][1], record["vms"][1]["interfaces"][1], record["links"][0]):
        item["vlan"] = 120
    record["vms"][0]["interfaces"][0]["address"] = "10.60.7.11/24"
    record["internet"] = {"server_address": "10.60.7.253/24"}
    return record


def test_two_slices_that_share_nothing_get_along(connection: Connection) -> None:
    store(connection, web())
    store(connection, other_web())

    assert [vm_names(record) for record in read(connection)["slices"]] == [["web", "db"], ["web", "db"]]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["name"], "web", "name web is already held by ID 1000"),
        (["id"], 1000, "slice ID 1000 is already held by slice web"),
        (["vms", 0, "id"], 1001, "VM ID 1001 is already held by slice web"),
        (["vms", 0, "id"], 1000, "ID 1000 was given out before"),
        (["vlan_pool"], {"first": 119, "size": 20}, "VLAN 119 is already held by slice web"),
        (["vms", 0, "vnc_port"], 5902, "VNC port 5902 is already held by slice web"),
        (
            ["vms", 0, "interfaces", 0, "mac"],
            "52:54:00:03:ea:01",
            "MAC address 52:54:00:03:ea:01 is already held by slice web",
        ),
        (["vms", 0, "interfaces", 0, "tap"], "tap_1002_eth0", "TAP tap_1002_eth0 is already held by slice web"),
        (
            ["vms", 0, "interfaces", 0, "address"],
            "10.60.7.10/16",
            "address 10.60.7.10 on VLAN 400 is already held by slice web",
        ),
        (
            ["internet", "server_address"],
            "10.60.7.10/24",
            "address 10.60.7.10 on VLAN 400 is already held by slice web",
        ),
        (
            ["vms", 0, "interfaces", 0, "address"],
            "10.60.7.254/24",
            "address 10.60.7.254 on VLAN 400 is already held by slice web",
        ),
    ],
)
def test_what_another_slice_holds_is_refused_by_name(
    connection: Connection, where: list[Any], value: Any, message: str
) -> None:
    store(connection, web())
    before = read(connection)
    record = other_web()
    put(record, where, value)

    with pytest.raises(RegistryError, match=f"^slice {record['name']}: {message}"):
        store(connection, record)
    assert read(connection) == before


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["name"], "../web", "slice ../web: a slice's name has"),
        (["vms", 1, "name"], "db;reboot", 'vms[1] "db;reboot": a VM\'s name has'),
        (["vms", 1, "name"], "web", "VM name web twice"),
        (["vms", 1, "id"], 1000, "ID 1000 twice"),
        (["vms", 1, "vnc_port"], 5901, "VNC port 5901 twice"),
        (["vms", 1, "interfaces", 0, "name"], "eth1", 'vms[1] "db": interface eth1 twice'),
        (["vms", 1, "interfaces", 0, "name"], "eth 0", "'eth 0' is not an interface's name"),
        (["vms", 1, "interfaces", 0, "tap"], "tap_1001_eth0", "TAP tap_1001_eth0 twice"),
        (["vms", 1, "interfaces", 0, "tap"], "-tap", "'-tap' is not a TAP's name"),
        (["vms", 1, "interfaces", 0, "mac"], "52:54:00:03:EA:00", "is not a MAC address in lower case"),
        (["vms", 1, "interfaces", 1, "address"], "192.168.100.1/24", "address 192.168.100.1 on VLAN 100 twice"),
        (["links", 0, "vlan"], 120, "link 1: VLAN 120 is not in the slice's own pool"),
    ],
)
def test_a_record_that_is_wrong_in_itself_is_refused(
    connection: Connection, where: list[Any], value: Any, message: str
) -> None:
    record = web()
    put(record, where, value)

    with pytest.raises(RegistryError) as raised:
        store(connection, record)
    assert message in str(raised.value)
    assert read(connection) == EMPTY


def put(record: Any, where: list[Any], value: Any) -> None:
    for step in where[:-1]:
        record = record[step]
    record[where[-1]] = value


def test_two_links_never_share_a_vlan_or_a_number(connection: Connection) -> None:
    for field, message in (("vlan", "link VLAN 100 twice"), ("number", "link number 1 twice")):
        record = web()
        record["links"].append(dict(record["links"][0], number=2, vlan=101, server_address=None))
        record["links"][1][field] = record["links"][0][field]
        with pytest.raises(RegistryError, match=message):
            store(connection, record)


def test_a_change_reads_no_other_slice(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    store(connection, small("other", 2000, 300, vms=5))
    revision = read(connection)["revision"]
    names = []
    item = _registry._item
    monkeypatch.setattr(_registry, "_item", lambda *args: names.append(item(*args).get("name")) or item(*args))
    reserve(connection, small("mine", 3000, 400), "deploying", revision, 3002, "worker1")
    set_status(connection, "mine", "running", "")
    remove(connection, "mine")
    assert {*names} == {"mine", "vm3001", "eth0"}


def test_a_reason_may_be_whatever_a_program_printed(connection: Connection) -> None:
    store(connection, web())
    assert set_status(connection, "web", "failed", "a\0b").after == read(connection)["slices"][0]


def test_a_status_is_written_only_if_it_differs(connection: Connection) -> None:
    store(connection, web())

    change = set_status(connection, "web", "failed", "worker2: no room")
    assert change.after == dict(web(), status="failed", reason="worker2: no room")
    assert read(connection)["revision"] == 2
    again = set_status(connection, "web", "failed", "worker2: no room")
    assert again.before == again.after
    assert read(connection)["revision"] == 2


def test_running_lets_go_of_retired_vms_and_their_numbers(connection: Connection) -> None:
    record = web()
    record["vms"][0]["retired"] = True
    store(connection, record)

    set_status(connection, "web", "failed", "")
    assert vm_names(read(connection)["slices"][0]) == ["web", "db"]
    change = set_status(connection, "web", "running", "")
    assert [vm_names(change.before), vm_names(change.after)] == [["web", "db"], ["db"]]
    # Nobody else of the slice has internet.
    assert change.before["internet"] and change.after["internet"] is None
    assert read(connection)["slices"] == [change.after]

    heir = small("heir", 1003, 200)
    heir["vms"][0]["vnc_port"] = 5901
    heir["vms"][0]["interfaces"][0].update(vlan=400, address="10.60.7.10/24")
    store(connection, heir)


def test_a_running_slice_with_a_retired_vm_is_not_settled(connection: Connection) -> None:
    record = web()
    store(connection, record)
    set_status(connection, "web", "running", "")
    record["vms"][0]["retired"] = True
    store(connection, record)

    assert vm_names(set_status(connection, "web", "running", "").after) == ["db"]


def test_an_unknown_slice_can_only_be_deleted(connection: Connection) -> None:
    with pytest.raises(RegistryError, match="slice web is not in the registry"):
        set_status(connection, "web", "running", "")

    assert set_status(connection, "web", "deleting", "") == Change(None, None)
    assert remove(connection, "web") == Change(None, None)
    assert read(connection) == EMPTY


def test_removing_leaves_no_row_behind(connection: Connection) -> None:
    store(connection, web())
    make_passwords(connection, web())

    assert remove(connection, "web") == Change(dict(web(), status="deploying"), None)

    rows = {
        table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in _registry_schema._TABLES
    }
    assert rows.pop("meta") == 1
    assert len(rows) == 9
    assert set(rows.values()) == {0}


def test_passwords_stay_as_long_as_their_vm(connection: Connection) -> None:
    store(connection, web())
    store(connection, small("other", 1010, 200))
    made, changed = make_passwords(connection, web())
    assert changed and sorted(made["web"]) == ["db", "web"] and len(set(made["web"].values())) == 2
    assert all(re.fullmatch("[a-zA-Z2-9]{8}", password) for password in made["web"].values())
    revision = read(connection)["revision"]
    assert make_passwords(connection, web()) == (made, False) and read(connection)["revision"] == revision

    # Each of these writes all rows of the slice anew.
    set_status(connection, "web", "failed", "why")
    store(connection, web())
    set_status(connection, "other", "failed", "why")
    assert make_passwords(connection, web()) == (made, False) and read_passwords(connection, Actor()) == made

    web_vm, db_vm = web()["vms"]
    retired = {**web(), "vms": [web_vm, {**db_vm, "retired": True}], "links": []}
    store(connection, retired)
    assert read_passwords(connection, Actor()) == made
    set_status(connection, "web", "running", "")
    assert read_passwords(connection, Actor()) == {"web": {"web": made["web"]["web"]}}
    assert "password" not in str(read(connection))
    # Where it is certain who asks, others' screens are none of their business.
    owner = web()["owner"]
    assert list(read_passwords(connection, Actor(user=owner))) == ["web"]
    assert list(read_passwords(connection, Actor(user="mallory"))) == []
    assert list(read_passwords(connection, Actor(user="mallory", admins=("mallory",)))) == ["web"]


def _race(path: str, name: str, rounds: int, barrier: Any, results: Any) -> None:
    """Reserve one slice per round; in each, both writers have read before either writes."""
    conflicts = 0
    for number in range(rounds):
        barrier.wait(30)
        planned = _read(path)
        barrier.wait(30)
        while _reserve_next(path, f"{name}{number}", planned).conflict:
            conflicts += 1
            planned = _read(path)
    results.put(conflicts)


def _read(path: str) -> dict[str, Any]:
    with opened(path, write=False) as connection:
        return read(connection)


def _reserve_next(path: str, name: str, planned: dict[str, Any]) -> Change:
    first = planned["next_id"]
    with opened(path, write=True) as connection:
        return reserve(connection, small(name, first, first, vms=3), "deploying", planned["revision"], first + 4, name)


def test_of_two_processes_that_planned_alike_one_plans_again(place: str) -> None:
    rounds = 8
    barrier, results = FORK.Barrier(2), FORK.Queue()
    writers = [FORK.Process(target=_race, args=(place, name, rounds, barrier, results)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    conflicts = sum(results.get(timeout=60) for _writer in writers)
    for writer in writers:
        writer.join(60)

    registry = _read(place)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert conflicts == rounds
    assert (registry["revision"], registry["next_id"]) == (2 * rounds, 1000 + 2 * rounds * 4)
    assert [record["id"] for record in registry["slices"]] == list(range(1000, 1000 + 2 * rounds * 4, 4))


def _die_writing(place: str) -> None:
    """Reserve so much that half of it is in the file already, and die then."""
    insert = _registry.insert

    def insert_or_die(connection: Connection, table: str, *rest: Any) -> None:
        if table == "links":
            os.kill(os.getpid(), signal.SIGKILL)
        insert(connection, table, *rest)

    _registry.insert = insert_or_die
    with opened(place, write=True) as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA cache_size = 1")
        store(connection, small("big", 1003, 200, vms=500))


def test_a_crash_in_the_middle_undoes_everything(place: str) -> None:
    with opened(place, write=True) as connection:
        store(connection, web())
    before, file = _read(place), Path(place)
    content = file.read_bytes() if file.exists() else b""

    writer = FORK.Process(target=_die_writing, args=(place,))
    writer.start()
    writer.join(60)

    assert writer.exitcode == -signal.SIGKILL
    if file.exists():
        assert file.read_bytes() != content, "the crash came before anything reached the file"
        assert stat.S_IMODE(os.stat(place + "-journal").st_mode) == 0o600
    assert _read(place) == before
    with opened(place, write=True) as connection:
        store(connection, small("big", 1003, 200, vms=500))


def test_an_error_in_the_middle_undoes_everything(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    store(connection, web())
    before = read(connection)
    monkeypatch.setattr(_registry, "_advance", None)

    with pytest.raises(TypeError):
        remove(connection, "web")
    assert read(connection) == before


def test_only_its_owner_can_read_it(path: str) -> None:
    umask = os.umask(0)
    try:
        with opened(path, write=True) as connection:
            store(connection, web())
    finally:
        os.umask(umask)

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with opened(str(tmp_path / "registry.sqlite"), write=True):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_reading_what_is_missing_creates_nothing(place: str, tmp_path: Path) -> None:
    assert _read(place) == EMPTY
    assert list(tmp_path.iterdir()) == []
    assert not _registry.store(place).is_there()


def test_a_copy_is_changed_for_nobody_else(place: str) -> None:
    with opened(place, write=True) as connection:
        store(connection, web())
    before = _read(place)

    with opened(place, write=False) as connection:
        remove(connection, "web")
        assert read(connection)["slices"] == []
    assert _read(place) == before


@pytest.mark.parametrize("write", [True, False])
def test_a_locked_registry_says_so(path: str, write: bool) -> None:
    with opened(path, write=True) as holder:
        store(holder, web())
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        message = f"^registry {path} is locked: another run has held it for 0.3 seconds"
        with pytest.raises(RegistryError, match=message), opened(path, write, timeout=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < 5
        holder.execute("ROLLBACK")


@pytest.mark.parametrize("write", [True, False])
def test_what_is_no_registry_is_left_alone(tmp_path: Path, write: bool) -> None:
    text, foreign = tmp_path / "text", tmp_path / "foreign.sqlite"
    text.write_text("no database\n" * 100)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE meta (key TEXT)")
    connection.close()

    for file, reason in ((text, "file is not a database"), (foreign, "it is no registry")):
        content = file.read_bytes()
        message = rf"^registry {file} is damaged \({reason}\): run the playbook rebuild_registry"
        with pytest.raises(DamagedError, match=message), opened(str(file), write):
            pass
        assert file.read_bytes() == content


@pytest.mark.parametrize("write", [True, False])
def test_a_registry_that_was_emptied_is_not_a_new_one(tmp_path: Path, write: bool) -> None:
    path = tmp_path / "registry.sqlite"
    path.touch()

    with pytest.raises(DamagedError, match=rf"^registry {path} is damaged \(it is empty\)"), opened(str(path), write):
        pass
    assert path.stat().st_size == 0


def test_a_registry_that_was_cut_off_is_damaged_wherever_that_was(path: str) -> None:
    with opened(path, write=True) as connection:
        store(connection, web())
    content = Path(path).read_bytes()

    for size in range(0, len(content), 1024):
        Path(path).write_bytes(content[:size])
        with pytest.raises(DamagedError, match="run the playbook rebuild_registry"):
            _read(path)


@pytest.mark.parametrize("write", [True, False])
def test_the_journal_of_a_lost_registry_is_not_given_to_a_new_one(path: str, write: bool) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path + "-journal").touch()

    with pytest.raises(DamagedError, match="it is gone, its journal is not"), opened(path, write):
        pass
    assert not os.path.exists(path)


def make_older(connection: Connection) -> None:
    """As the version before this one left it."""
    connection.execute("ALTER TABLE slices DROP COLUMN network_node")
    connection.execute("UPDATE meta SET schema_version = 2")


def test_an_older_registry_is_read_as_it_is_and_made_a_newer_one_by_the_first_change(place: str) -> None:
    with opened(place, write=True) as connection:
        store(connection, web())
        make_older(connection)

    expected = dict(web(), status="deploying", network_node="")
    for _time in range(2):
        assert _read(place)["slices"] == [expected]
    with opened(place, write=True) as connection:
        assert set_status(connection, "web", "running", "").before == expected
        (version,) = connection.execute("SELECT schema_version FROM meta").fetchone()
    assert version == _registry_schema.SCHEMA_VERSION


@pytest.mark.parametrize("write", [True, False])
def test_a_schema_that_is_too_old_is_to_be_rebuilt(place: str, write: bool) -> None:
    with opened(place, write=True) as connection:
        connection.execute("UPDATE meta SET schema_version = 1")

    message = r"schema version 1, .* run the playbook rebuild_registry"
    with pytest.raises(DamagedError, match=message), opened(place, write):
        pass


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_schema_is_refused(place: str, write: bool) -> None:
    with opened(place, write=True) as connection:
        connection.execute("UPDATE meta SET schema_version = schema_version + 1")

    message = "has schema version 4, but this version of cloudrepo.slices knows 3 at most"
    with pytest.raises(RegistryError, match=message), opened(place, write):
        pass


@pytest.mark.parametrize("write", [True, False])
def test_a_schema_that_lost_a_table_is_damaged(postgresql: Server, write: bool) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as connection:
        connection.execute("DROP TABLE meta")

    message = r"^registry postgresql:///.*/registry\d+ is damaged .*rebuild_registry"
    with pytest.raises(DamagedError, match=message), opened(place, write):
        pass


def test_a_server_that_is_locked_says_so(postgresql: Server) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as holder, opened(place, write=True, timeout=0.3) as other:
        store(holder, web())
        with holder.transaction():
            with pytest.raises(psycopg.errors.LockNotAvailable):
                remove(other, "web")
            with pytest.raises(RegistryError, match=r"another run has held it for 0\.2 seconds"):
                _remove_soon(place)
            # Reading waits for nobody.
            assert _read(place)["slices"] == read(holder)["slices"]


def _remove_soon(place: str, timeout: float = 0.2) -> None:
    with opened(place, write=True, timeout=timeout) as connection:
        remove(connection, "web")


def test_a_run_that_hangs_with_the_lock_loses_it(postgresql: Server) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as connection:
        store(connection, web())
    hangs = opened(place, write=True, timeout=0.3)
    with pytest.raises(RegistryError, match="idle-in-transaction"), hangs as holder, holder.transaction():
        holder.execute("DELETE FROM slices")
        time.sleep(0.6)
    with opened(place, write=True, timeout=0.3) as connection:
        assert remove(connection, "web").before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: url.replace("p%40ss", "p%41ss"), "password authentication failed"),
        (lambda url: url.replace("/registry", "/nowhere"), 'database "nowhere'),
        (lambda url: url + "%2Fgone", "connection failed|No such file"),
        (lambda url: url.replace("%2F", "/", 1), "is no URL like postgresql://"),
        (lambda url: url.replace("%25rd", "%rd"), "is no URL like postgresql://"),
        (lambda url: "postgresql://slices:12/3@4@localhost/db", "is no URL like postgresql://"),
        (lambda url: "postgresql://slices:x@localhost:none/db", "is no URL like postgresql://"),
        (lambda url: url.replace("%40", "@"), "is no URL like postgresql://"),
        (lambda url: "postgresql://slices:3@4@localhost/db", "is no URL like postgresql://"),
        (lambda url: "postgresql://slices:x?3@4@localhost/db", "is no URL like postgresql://"),
        (lambda url: "postgresql://slices:pw@x,3@4@localhost/db", "is no URL like postgresql://"),
    ],
)
def test_no_error_tells_the_password(postgresql: Server, change: Any, message: str) -> None:
    url = change(postgresql.new_database())
    with pytest.raises(RegistryError, match=message) as caught:
        _read(url)
    for part in (PASSWORD, "p@ss", "w%rd", "4?e", "p%40ss", "3@4", "4@"):
        assert part not in str(caught.value)


def test_who_waited_for_the_lock_sees_what_was_changed_meanwhile(postgresql: Server) -> None:
    place = postgresql.new_database()
    name = place.rpartition("?")[0].rpartition("/")[2]
    postgresql.admin(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    with ThreadPoolExecutor() as pool, opened(place, write=True) as holder:
        store(holder, web())
        with holder.transaction():
            waits = pool.submit(_remove_soon, place, 10)
            time.sleep(0.3)
            assert not waits.done()
            holder.execute("UPDATE meta SET revision = revision + 1")
        waits.result()
        assert read(holder)["slices"] == []


def test_a_library_that_is_missing_is_named(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RegistryError, match=r"Failed to import the required Python library \(psycopg\)"):
        _read(postgresql.url("registry0"))


def test_nobody_else_can_read_it(postgresql: Server) -> None:
    place = postgresql.new_database()
    with opened(place, write=True) as connection:
        store(connection, web())
        query = "SELECT has_schema_privilege('stranger', 'cloudrepo_slices', 'USAGE')"
        postgresql.admin("CREATE ROLE stranger LOGIN")
        assert connection.execute(query).fetchone() == (False,)


@pytest.mark.parametrize("write", [False, True])
def test_what_may_not_be_looked_at_is_not_what_is_not_there(tmp_path: Path, write: bool) -> None:
    # To root no folder is closed: one that is none stands for that.
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "registry.sqlite")

    with pytest.raises(RegistryError, match=f"^registry {path}: Not a directory"), opened(path, write=write):
        pass


# A run of the same controller would have to die before anybody else goes on, so these two are on different ones.
ALICE = Actor(run="ctl/boot:ns/1/77", holder="alice on ctl (PID 1)")
BOB = Actor(run="other/boot:ns/2/78", holder="bob on ctl (PID 2)")


def reserve_as(connection: Connection, actor: Actor, record: dict[str, Any], status: str = "deploying") -> Change:
    return reserve(connection, record, status, read(connection)["revision"], 1100, "worker1", actor)


def holders(connection: Connection) -> dict[str, str]:
    return {hold["slice"]: hold["holder"] for hold in read(connection)["holds"]}


def test_who_deploys_holds_the_slice_until_it_is_done(connection: Connection) -> None:
    reserve_as(connection, ALICE, web())
    refused = r"^slice web is being deployed by alice on ctl \(PID 1\) since 20.* UTC; .* free again at 20"
    for change in (
        lambda: reserve_as(connection, BOB, web()),
        lambda: reserve_as(connection, BOB, web(), "design"),
        lambda: set_status(connection, "web", "deleting", "", BOB),
        lambda: set_status(connection, "web", "running", ""),
        lambda: remove(connection, "web", BOB),
    ):
        before = read(connection)
        with pytest.raises(HeldError, match=refused):
            change()
        assert read(connection) == before
    # Others go on with theirs, and the holder with its own.
    reserve_as(connection, BOB, small("lan", 1200, 200))
    set_status(connection, "web", "running", "", ALICE)
    assert holders(connection) == {"lan": BOB.holder}
    set_status(connection, "web", "deleting", "", BOB)
    with pytest.raises(HeldError, match=r"^slice web is being deleted by bob on ctl"):
        reserve_as(connection, ALICE, web())
    remove(connection, "web", BOB)
    assert holders(connection) == {"lan": BOB.holder}


def test_an_unchanged_running_slice_is_held_while_it_is_deployed(connection: Connection) -> None:
    reserve_as(connection, ALICE, web())
    set_status(connection, "web", "running", "", ALICE)
    assert reserve_as(connection, ALICE, web()).after["status"] == "running"
    assert holders(connection) == {"web": ALICE.holder}


def test_a_holder_that_died_holds_nothing(connection: Connection) -> None:
    reserve_as(connection, ALICE, web())
    reserve_as(connection, BOB._replace(dead_run=ALICE.run), web())
    assert holders(connection) == {"web": BOB.holder}
    # Nothing was heard of it for as long as a hold lasts.
    reserve_as(connection, BOB._replace(hold_seconds=-1), web())
    reserve_as(connection, ALICE, web())
    assert holders(connection) == {"web": ALICE.holder}


def test_a_run_that_is_still_there_is_not_overtaken_on_its_own_controller(connection: Connection) -> None:
    neighbour = ALICE._replace(run="ctl/boot:ns/3/79")
    reserve_as(connection, ALICE._replace(hold_seconds=-1), web())
    with pytest.raises(HeldError, match="that run is still there"):
        reserve_as(connection, neighbour, web())
    set_status(connection, "web", "running", "", ALICE)
    reserve_as(connection, neighbour, web())


def test_a_design_and_a_lost_race_hold_nothing(connection: Connection) -> None:
    reserve_as(connection, ALICE, web(), "design")
    reserve(connection, web(), "deploying", 0, 1100, "worker1", ALICE)
    assert holders(connection) == {}


def test_where_it_is_certain_who_asks_only_owners_and_admins_change_a_slice(connection: Connection) -> None:
    eve = Actor(run="awx/1", holder="eve", user="eve")
    with pytest.raises(RegistryError, match=r"^slice web belongs to alice: eve may not change it"):
        reserve_as(connection, eve, web())
    reserve_as(connection, eve._replace(user="alice"), web())
    for change in (
        lambda: reserve_as(connection, eve, dict(web(), owner="eve")),
        lambda: set_status(connection, "web", "deleting", "", eve),
        lambda: remove(connection, "web", eve),
    ):
        with pytest.raises(RegistryError, match=r"^slice web belongs to alice: eve may not change it"):
            change()
    remove(connection, "web", eve._replace(admins=["eve"]))


def test_a_slice_that_is_elsewhere_by_now_is_not_deleted(connection: Connection) -> None:
    store(connection, web())
    (now,) = read(connection)["slices"]
    here = {"id": now["id"], "workers": workers(now)}
    for seen in (dict(here, workers=["worker9"]), dict(here, id=now["id"] + 1), dict(here, workers=[])):
        with pytest.raises(RegistryError, match=r"^slice web has been changed meanwhile"):
            set_status(connection, "web", "deleting", "", expected=seen)


def test_a_slice_that_a_dying_run_says_to_be_running_is_deleted(connection: Connection) -> None:
    store(connection, web())
    (seen,) = read(connection)["slices"]
    set_status(connection, "web", "running", "")
    assert (
        set_status(connection, "web", "deleting", "", expected={"id": seen["id"], "workers": workers(seen)}).after[
            "status"
        ]
        == "deleting"
    )


def test_an_outcome_that_was_written_can_be_written_again(connection: Connection) -> None:
    reserve_as(connection, ALICE, web())
    for _attempt in range(2):
        assert set_status(connection, "web", "running", "", ALICE._replace(goes_on=True)).after["status"] == "running"


def test_that_a_slice_ever_ran_is_kept(connection: Connection) -> None:
    for status, has_run in (("failed", False), ("running", True), ("deleting", True), ("failed", True)):
        store(connection, web())
        set_status(connection, "web", status, "")
        assert read(connection)["slices"][0]["has_run"] is has_run


def test_a_run_that_lost_its_hold_changes_nothing_any_more(connection: Connection) -> None:
    reserve_as(connection, ALICE._replace(hold_seconds=-1), web())
    # Nobody came in between: it goes on.
    set_status(connection, "web", "deploying", "", ALICE._replace(goes_on=True, hold_seconds=-1))
    reserve_as(connection, BOB, web())
    set_status(connection, "web", "running", "", BOB)
    before = read(connection)
    for change in (
        lambda: set_status(connection, "web", "running", "", ALICE._replace(goes_on=True)),
        lambda: set_status(connection, "web", "failed", "late", ALICE._replace(goes_on=True)),
        lambda: remove(connection, "web", ALICE._replace(goes_on=True)),
    ):
        with pytest.raises(RegistryError, match=r"^slice web: this run was silent for longer"):
            change()
    assert read(connection) == before
