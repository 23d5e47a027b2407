# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    NOBODY,
    is_url,
    opened,
    read,
    read_passwords,
    store,
)
from ansible_collections.cloudrepo.slices.plugins.modules import slice_registry

from ..postgresql import PASSWORD, Server
from ..records import web


class Registry:
    """The module, run against one registry."""

    def __init__(self, place: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self._where = {"url": place, "path": str(folder / "unused")} if is_url(place) else {"path": place}
        self._capsys = capsys

    def run(self, check: bool = False, **args: Any) -> dict[str, Any]:
        internal = {"_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args({**self._where, **args, **internal}), pytest.raises(SystemExit):
            slice_registry.main()
        printed = self._capsys.readouterr().out
        assert not is_url(self.place) or self.place not in printed
        result: dict[str, Any] = json.loads(printed)
        return result

    def reserve(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        args = {"record": web(), "status": "deploying", "revision": 0, "next_id": 1003, "last_worker": "worker2"}
        return self.run(check, state="reserved", **{**args, **changes})

    def is_there(self) -> bool:
        return store(self.place).is_there()

    def content(self) -> Any:
        with opened(self.place, write=False) as connection:
            return self.is_there(), read(connection), read_passwords(connection, NOBODY)


@pytest.fixture
def registry(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Registry:
    return Registry(place, tmp_path, capsys)


STORED = dict(web(), status="deploying")


def test_read_returns_everything(registry: Registry) -> None:
    registry.reserve()

    result = registry.run()

    assert result["changed"] is False
    counters = {"revision": 1, "next_id": 1003, "last_worker": "worker2"}
    assert result["registry"] == {**counters, "slices": [STORED], "holds": []}


def test_reserving_tells_before_and_after(registry: Registry) -> None:
    result = registry.reserve()

    assert (result["changed"], result["conflict"]) == (True, False)
    assert result["record"] == STORED
    assert result["diff"] == {"before": {}, "after": {"web": STORED}}


def test_the_same_again_is_no_change(registry: Registry) -> None:
    registry.reserve()
    content = registry.content()

    result = registry.reserve(revision=1)

    assert (result["changed"], result["conflict"], result["record"]) == (False, False, STORED)
    assert result["diff"] == {"before": {}, "after": {}}
    assert registry.content() == content


def test_a_lost_race_is_no_failure(registry: Registry) -> None:
    registry.reserve()

    result = registry.reserve(record=dict(web(), owner="bob"))

    assert (result["changed"], result["conflict"], result["record"]) == (False, True, STORED)


def test_a_conflict_creates_no_file(registry: Registry) -> None:
    assert registry.reserve(revision=7)["conflict"] is True
    assert not registry.is_there()


STEPS: list[dict[str, Any]] = [
    {"state": "reserved"},
    {"state": "status", "slice": "web", "status": "running"},
    {"state": "absent", "slice": "web"},
]


def test_check_mode_predicts_and_writes_nothing(registry: Registry) -> None:
    for step in STEPS:
        run = registry.reserve if step["state"] == "reserved" else lambda check, step=step: registry.run(check, **step)
        content = registry.content()
        predicted = run(check=True)
        assert registry.content() == content
        assert predicted["changed"] is True
        assert predicted == run(check=False)


def test_check_mode_predicts_what_would_be_refused(registry: Registry) -> None:
    registry.reserve()

    result = registry.reserve(check=True, record=dict(web(), name="other"), revision=1)

    assert result["msg"] == "slice other: slice ID 1000 is already held by slice web"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"state": "absent", "slice": "../web"}, "slice: '../web' is not a name"),
        ({"state": "absent"}, "slice"),
        ({"state": "status", "slice": "web", "status": "design"}, "status: only a reservation sets design"),
        ({"state": "status", "slice": "web", "status": "running"}, "slice web is not in the registry"),
        ({"state": "reserved"}, "record, status, revision, next_id, last_worker"),
    ],
)
def test_bad_arguments_fail_and_create_nothing(registry: Registry, args: dict[str, Any], message: str) -> None:
    result = registry.run(**args)

    assert result["failed"] is True
    assert message in result["msg"]
    assert not registry.is_there()


def test_a_reservation_is_not_running(registry: Registry) -> None:
    result = registry.reserve(status="running")

    assert result["msg"] == "status: a reservation is design or deploying, not running"


def test_passwords_are_made_once_and_in_check_mode_not_at_all(registry: Registry) -> None:
    registry.reserve()
    before = registry.content()
    predicted = registry.run(check=True, state="passwords", record=web())
    assert predicted["changed"] is True and sorted(predicted["passwords"]["web"]) == ["db", "web"]
    assert registry.content() == before and registry.run(state="passwords")["passwords"] == {}

    made = registry.run(state="passwords", record=web())
    assert made["changed"] is True
    again = registry.run(state="passwords", record=web())
    assert (again["changed"], again["passwords"]) == (False, made["passwords"])
    everything = registry.run(state="passwords")
    assert (everything["changed"], everything["passwords"]) == (False, made["passwords"])


def test_a_move_names_both_places_and_no_password(
    tmp_path: Path, postgresql: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = str(tmp_path / "slices.sqlite"), postgresql.new_database()
    registry = Registry(here, tmp_path, capsys)
    registry.reserve()
    registry.run(state="status", slice="web", status="running")
    wanted = {"state": "moved", "url": there}
    predicted = registry.run(check=True, to="postgresql", **wanted)
    moved = registry.run(to="postgresql", **wanted)
    name = store(there).name
    assert predicted["diff"] == moved["diff"] == {"before": {"registry": here}, "after": {"registry": name}}
    assert PASSWORD not in json.dumps(moved) and not registry.is_there()
    assert registry.run(to="postgresql", **wanted)["changed"] is False
    assert registry.run(to="sqlite", **wanted)["changed"] is True and registry.is_there()


def test_what_is_no_url_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(str(tmp_path / "slices.sqlite"), tmp_path, capsys)
    result = registry.run(url="mysql://root:secret@host/db")
    assert result["msg"] == "slices_registry_url is no URL like postgresql://user:password@host/database"
