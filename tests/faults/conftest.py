# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases as tests of pytest: selected by -k or their IDs, resumed with --resume, and their table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import lab, table
from .cases import cases
from .slices import CACHE
from .world import World, counts

RESULTS = CACHE / "results.jsonl"
ALL = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resume", action="store_true", help="keep the results there are, and run the other cases")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        assert Path("/sys/class/net/slmgmt0").exists(), "the lab is down; ./bin/test --faults brings it up"
        found = cases(counts())
        metafunc.config.stash[ALL] = {case.id for case in found}
        metafunc.parametrize("case", found, ids=[case.id for case in found])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--resume") or not RESULTS.exists():
        return
    known = {json.loads(line)["id"] for line in RESULTS.read_text().splitlines()}
    done = [item for item in items if item.name.partition("[")[2][:-1] in known]
    config.hook.pytest_deselected(items=done)
    items[:] = [item for item in items if item not in done]


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> World:
    if not request.config.getoption("--resume"):
        RESULTS.unlink(missing_ok=True)
    return World()


@pytest.fixture(scope="session")
def note() -> Any:
    """Writes a result down at once: a run that is ended can be resumed, also on a later commit."""
    commit = table.commit()

    def write(row: dict[str, Any]) -> None:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "commit": commit}) + "\n")

    return write


def pytest_sessionfinish(session: pytest.Session) -> None:
    everything = session.config.stash.get(ALL, None)
    if everything is None or session.config.option.collectonly or not RESULTS.exists():
        return
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    whole = everything <= {row["id"] for row in rows}
    target = lab.ROOT / "tests/faults/RESULTS.md" if whole else CACHE / "RESULTS.md"
    target.write_text(table.render(rows, len(everything)))
    print(f"\nThe table is in {target}")
