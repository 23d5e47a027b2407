# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry in PostgreSQL, reached from the controller: moved there under a running slice, lost, and moved back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ansible_runner
import psycopg
import pytest
import yaml
from ansible_collections.cloudrepo.slices.tests.unit.plugins.postgresql import PASSWORD, Server, running_server

from .test_playbooks import slices_in

ROOT = Path(__file__).parents[2]
NAMES = ("pg-a", "pg-b", "pg-c")


def spec(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "owner": "pg",
        "vms": [{"name": "a", "flavor": "cirros", "internet": True}, {"name": "b", "flavor": "cirros"}],
        "links": [{"endpoints": ["a", "b"]}],
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def inventory_with(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Callable[..., Path]:
    """The lab's inventory, with a registry that is reached from the controller: a file, or with `url` the database."""
    folder = tmp_path_factory.mktemp("registry")
    url = server.new_database()

    def make(with_url: bool) -> Path:
        inventory = folder / ("postgresql" if with_url else "sqlite")
        if not inventory.exists():
            shutil.copytree(ROOT / "inventories" / "lab", inventory)
            settings = inventory / "group_vars" / "all.yml"
            more = {
                "slices_registry_host": "localhost",
                "slices_registry_path": str(folder / "state" / "slices.sqlite"),
            }
            more["slices_registry_url"] = url if with_url else ""
            settings.write_text(settings.read_text() + yaml.safe_dump(more))
        return inventory / "hosts.yml"

    return make


def test_a_registry_is_moved_to_postgresql_shared_lost_and_moved_back(
    run_playbook: Any, inventory_with: Callable[..., Path], tmp_path: Path, server: Server
) -> None:
    printed: list[str] = []

    def play(name: str, url: bool = True, rc: int = 0, **extravars: Any) -> Any:
        played = run_playbook(name, "-i", str(inventory_with(url)), "-vvv", **extravars)
        printed.append(played.output)
        assert played.rc == rc, played.output
        return played

    def registry(url: bool = True) -> dict[str, Any]:
        return slices_in(play("show_slices", url, output="json").output)

    def delete_all(url: bool) -> bool:
        with ThreadPoolExecutor(len(NAMES)) as pool:
            inventory = str(inventory_with(url))
            runs = list(pool.map(lambda name: run_playbook("delete_slice", "-i", inventory, "-vvv", slice=name), NAMES))
        printed.extend(run.output for run in runs)
        return all(run.rc == 0 for run in runs)

    try:
        play("deploy_slice", url=False, slice_spec=spec("pg-a"))
        before = registry(url=False)
        # With the URL set and nothing moved yet, nobody begins anew.
        refused = play("deploy_slice", rc=2, slice_spec=spec("pg-b"))
        assert "which the registry has not given out yet: was it lost" in refused.output
        moved = play("migrate_registry", registry_to="postgresql")
        assert "The registry is moved to postgresql" in moved.output and "slices.sqlite.moved-" in moved.output
        assert play("migrate_registry", registry_to="postgresql").total("changed") == 0
        assert registry() == before
        refused = play("delete_slice", url=False, rc=2, slice="pg-a")
        assert "but there is VM pg-a/" in refused.output
        again = play("deploy_slice", slice_spec=spec("pg-a"))
        assert again.total("changed") == 0, again.output

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: play("deploy_slice", slice_spec=spec(name)), NAMES[1:]))
        assert sorted(registry()) == sorted(NAMES)
        assert "nothing off" in play("audit_slices").output

        play("backup_registry", backup_dir=str(tmp_path / "copies"))
        (copy,) = (tmp_path / "copies").glob("slices-*.sqlite")
        with sqlite3.connect(copy) as connection:
            assert connection.execute("SELECT COUNT(*) FROM slices").fetchone() == (3,)

        before = registry()
        _drop_registry(server)
        refused = play("show_slices", rc=2)
        assert "The registry does not know any slice, but there is VM pg-" in refused.output
        assert "3 slices (0 of them failed)" in play("rebuild_registry").output
        assert registry() == before

        moved = play("migrate_registry", registry_to="sqlite")
        assert "renamed to schema cloudrepo_slices_moved_" in moved.output
        assert registry(url=False) == before
    finally:
        # What fails above leaves the slices in the one registry or in the other.
        deleted = delete_all(url=False) or delete_all(url=True)
    assert deleted, printed[-1]
    for text in printed:
        assert PASSWORD not in text and quote(PASSWORD, safe="") not in text


def _drop_registry(server: Server) -> None:
    with psycopg.connect(server.url("registry0"), autocommit=True) as connection:
        connection.execute("DROP SCHEMA cloudrepo_slices CASCADE")


@pytest.mark.parametrize("playbook", ["design_slice", "audit_slices"])
def test_what_ansible_runner_records_has_no_password(
    inventory_with: Callable[..., Path], tmp_path: Path, playbook: str
) -> None:
    """AWX shows these to everybody who may see the job."""
    runner = ansible_runner.run(
        private_data_dir=str(tmp_path),
        project_dir=str(ROOT / "playbooks"),
        playbook=f"{playbook}.yml",
        inventory=str(inventory_with(True)),
        extravars={"slice_spec": spec("pg-a")},
        envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        verbosity=4,
        quiet=True,
    )
    assert runner.rc == 0, runner.stdout.read()
    recorded = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(recorded) > 20
    assert [text for text in recorded if PASSWORD in text or quote(PASSWORD, safe="") in text] == []
