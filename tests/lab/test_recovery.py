# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry is lost under three running slices, and comes back from the hosts as it was."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .test_playbooks import slices_in

REGISTRY = "/var/lib/cloudrepo/registry/slices.sqlite"
# Every kind of character that an owner may have goes through the database of Open vSwitch.
ODD = "O.dd_us+er@example-1"


def vms(*names: str, **options: Any) -> list[dict[str, Any]]:
    return [{"name": name, "flavor": "cirros", **options} for name in names]


SPECS: dict[str, dict[str, Any]] = {
    "lost-a": {
        "owner": "alice",
        "vms": [*vms("web", internet=True), *vms("db", "new")],
        "links": [{"endpoints": ["web", "db"], "name": "lan"}, {"endpoints": ["db", "new"], "name": "back"}],
    },
    "lost-b": {
        "owner": "bob@example.org",
        "vlan_pool_size": 7,
        "vms": vms("a", "b"),
        "links": [
            {"endpoints": ["a", "b"], "gateway": False, "subnet": "10.9.0.0/24"},
            {"endpoints": ["b", "a"], "dhcp": False},
        ],
    },
    "lost-c": {"topology": {"type": "ring", "vms": 3, "flavor": "cirros"}},
}
# What is deployed first: the VM and link in the middle go, so that the numbers have holes.
FIRST = {
    "owner": "alice",
    "vms": [*vms("web", internet=True), *vms("old", "db")],
    "links": [{"endpoints": ["web", "old"]}, {"endpoints": ["web", "db"], "name": "lan"}],
}


@pytest.fixture
def deployed(run_playbook: Any) -> Iterator[Any]:
    """Deploys slices at once."""

    def deploy(name: str, spec: dict[str, Any]) -> Any:
        who = {} if "owner" in spec else {"awx_user_name": ODD}
        return run_playbook("deploy_slice", slice_spec={"name": name, **spec}, **who)

    def deploy_all(wanted: dict[str, dict[str, Any]]) -> dict[str, Any]:
        with ThreadPoolExecutor(len(wanted)) as pool:
            runs = dict(zip(wanted, pool.map(deploy, wanted, wanted.values()), strict=True))
        for run in runs.values():
            assert run.rc == 0, run.output
        return runs

    try:
        yield deploy_all
    finally:
        with ThreadPoolExecutor(len(SPECS)) as pool:
            list(pool.map(lambda name: run_playbook("delete_slice", slice=name), SPECS))


def test_a_lost_registry_comes_back_from_the_hosts(
    run_playbook: Any, run_module: Any, deployed: Any, tmp_path: Path
) -> None:
    def registry() -> dict[str, Any]:
        read = run_module("network1", "slice_registry", {})["registry"]
        return {key: value for key, value in read.items() if key != "revision"}

    def processes() -> dict[str, Any]:
        shown = slices_in(run_playbook("show_slices", output="json").output)
        return {name: {vm["name"]: (vm["pid"], vm["state"]) for vm in shown[name]["vms"]} for name in SPECS}

    deployed({**SPECS, "lost-a": FIRST})
    deployed({"lost-a": SPECS["lost-a"]})
    before, running = registry(), processes()
    assert {record["owner"] for record in before["slices"]} >= {"alice", "bob@example.org", ODD}
    assert {state for slice_vms in running.values() for _pid, state in slice_vms.values()} == {"running"}

    saved = run_playbook("backup_registry", backup_dir=str(tmp_path))
    assert saved.rc == 0, saved.output
    [copy] = tmp_path.glob("slices-*.sqlite")
    assert copy.stat().st_mode & 0o777 == 0o600

    run_module("network1", "ansible.builtin.file", {"path": REGISTRY, "state": "absent"})
    shown = run_playbook("show_slices")
    assert shown.rc != 0 and "The registry does not know any slice, but there is VM lost-" in shown.output, shown.output
    audited = run_playbook("audit_slices", remove_orphans=True)
    assert audited.rc != 0 and "was it lost? (run rebuild_registry)" in audited.output, audited.output
    assert "[kill " not in audited.output and "anything: the registry knows less than the hosts" in audited.output
    rebuilt = run_playbook("rebuild_registry")
    assert rebuilt.rc == 0, rebuilt.output
    assert f"{len(before['slices'])} slices (0 of them failed)" in rebuilt.output
    assert registry() == before

    run_module("network1", "ansible.builtin.command", {"argv": ["truncate", "--size=0", REGISTRY]})
    lost = run_module("network1", "slice_registry", {})
    assert lost["failed"] and "is damaged (it is empty): run the playbook rebuild_registry" in lost["msg"]
    partly = run_playbook("rebuild_registry", slices_lost_hosts=["worker3"])
    assert partly.rc == 0, partly.output
    # What may have been on worker3 can't be known: until a deploy says so, nothing is whole.
    after = registry()
    assert {r["status"] for r in after["slices"]} == {"failed"} and len(after["slices"]) == len(before["slices"])
    assert all("worker3 was not asked" in r["reason"] for r in after["slices"])

    run_module("network1", "ansible.builtin.command", {"argv": ["truncate", "--size=0", REGISTRY]})
    assert run_playbook("rebuild_registry").rc == 0
    assert registry() == before

    again = deployed(SPECS)
    for name, run in again.items():
        changed = {host: counters["changed"] for host, counters in run.recap.items() if counters["changed"]}
        assert not changed, (name, run.output)
    assert processes() == running
    assert registry() == before
