# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any sequence of writers leaves what a plain model says, and many at the same time lose nothing."""

from __future__ import annotations

import itertools
import multiprocessing
from contextlib import AbstractContextManager
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils._registry import (
    opened,
    read,
    remove,
    reserve,
    set_status,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import Connection, RegistryError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ..plugin_utils.clusters import make_plan
from ..plugin_utils.test_planning_properties import RESERVED, assert_unique
from ..postgresql import Server

PROCESSES, CYCLES = 4, 25
NAMES = st.sampled_from(["red", "green", "blue"])


def planned(registry: dict[str, Any], name: str, vms: int) -> dict[str, Any]:
    """A line of VMs, the first with internet."""
    names = [f"n{number}" for number in range(vms)]
    spec = {
        "name": name,
        "owner": name,
        "vms": [{"name": vm, "flavor": "cirros", "internet": vm == "n0"} for vm in names],
        "links": [{"endpoints": list(pair)} for pair in itertools.pairwise(names)],
        "vlan_pool_size": 5,
    }
    return make_plan(spec, registry, reserved_vlans=RESERVED)


def store(connection: Connection, plan: dict[str, Any], status: str, behind: int = 0) -> Any:
    return reserve(connection, plan["slice"], status, plan["revision"] - behind, plan["next_id"], plan["last_worker"])


class Writers(RuleBasedStateMachine):
    """The registry beside a dictionary of records and three counters."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.open()
        self.connection = self.opened.__enter__()
        self.slices: dict[str, dict[str, Any]] = {}
        self.revision, self.next_id, self.last_worker = 0, 1000, ""

    def open(self) -> AbstractContextManager[Connection]:
        return opened("/nonexistent/slices.sqlite", write=False)

    def teardown(self) -> None:
        self.opened.__exit__(None, None, None)

    @rule(name=NAMES, vms=st.integers(1, 4), status=st.sampled_from(["design", "deploying"]))
    def reserve(self, name: str, vms: int, status: str) -> None:
        plan = planned(read(self.connection), name, vms)
        change = store(self.connection, plan, status)
        before = self.slices.get(name)
        assert (change.before, change.conflict) == (before, False)
        if before and before["status"] in ("running", status) and plan["slice"] == before:
            assert change.after == before
            return
        has_run = bool(before and before["has_run"])
        self.slices[name] = {**plan["slice"], "status": status, "reason": "", "has_run": has_run}
        assert change.after == self.slices[name]
        self.revision += 1
        self.next_id, self.last_worker = plan["next_id"], plan["last_worker"]

    @rule(name=NAMES, vms=st.integers(1, 4), behind=st.sampled_from([-1, 1, 7]))
    def reserve_from_another_revision(self, name: str, vms: int, behind: int) -> None:
        assert store(self.connection, planned(read(self.connection), name, vms), "deploying", behind).conflict

    @rule(name=NAMES, status=st.sampled_from(["running", "failed", "deleting"]), reason=st.sampled_from(["", "why"]))
    def set_status(self, name: str, status: str, reason: str) -> None:
        before = self.slices.get(name)
        try:
            change = set_status(self.connection, name, status, reason)
        except RegistryError:
            assert before is None and status != "deleting"
            return
        assert change.before == before
        if before is None:
            return
        after = {**before, "status": status, "reason": reason, "has_run": before["has_run"] or status == "running"}
        if status == "running":
            after["vms"] = [vm for vm in before["vms"] if not vm["retired"]]
            if not any(interface["vlan"] == 400 for vm in after["vms"] for interface in vm["interfaces"]):
                after["internet"] = None
        self.slices[name] = after
        self.revision += after != before

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        before = self.slices.pop(name, None)
        assert remove(self.connection, name) == (before, None, False)
        self.revision += before is not None

    @invariant()
    def is_what_the_model_says(self) -> None:
        slices = sorted(self.slices.values(), key=lambda record: record["id"])
        counters = {"revision": self.revision, "next_id": self.next_id, "last_worker": self.last_worker}
        assert read(self.connection) == {**counters, "slices": slices, "holds": []}
        assert_unique(slices)


TestWriters = Writers.TestCase
TestWriters.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_writers_on_a_server(postgresql: Server) -> None:
    class WritersOnAServer(Writers):
        def open(self) -> AbstractContextManager[Connection]:
            return opened(postgresql.new_database(), write=True)

    run_state_machine_as_test(WritersOnAServer, settings=settings(max_examples=10, deadline=None))


def test_of_a_hundred_writers_none_is_lost(place: str) -> None:
    """Four processes read, plan and reserve in one registry, again where another was faster."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        logs = pool.starmap(write_many, [(place, f"p{number}") for number in range(PROCESSES)])
    with opened(place, write=False) as connection:
        registry = read(connection)
    acknowledged = [entry for log in logs for entry in log]
    assert sum(entry[0] == "reserved" for entry in acknowledged) == PROCESSES * CYCLES
    assert registry["revision"] == len(acknowledged)
    # Of a slice of one process the last word counts.
    last = {name: record for _kind, name, record in acknowledged}
    assert {record["name"]: record for record in registry["slices"]} == {
        name: record for name, record in last.items() if record is not None
    }
    assert_unique(registry["slices"])
    assert_ids_are_given_once([record for _kind, _name, record in acknowledged if record])


def write_many(place: str, mine: str) -> list[tuple[str, str, Any]]:
    """Reserve, start and now and then delete slices of one's own; every write that was acknowledged, in order."""
    log: list[tuple[str, str, Any]] = []
    for cycle in range(CYCLES):
        name = f"{mine}-{cycle % 6}"
        log.append(("reserved", name, reserve_until_first(place, name, 1 + cycle // 6)))
        with opened(place, write=True) as connection:
            log.append(("started", name, set_status(connection, name, "running", "").after))
        if cycle % 5 == 4:
            with opened(place, write=True) as connection:
                assert remove(connection, name).before is not None
            log.append(("removed", name, None))
    return log


def reserve_until_first(place: str, name: str, vms: int) -> Any:
    while True:
        with opened(place, write=False) as connection:
            plan = planned(read(connection), name, vms)
        with opened(place, write=True) as connection:
            change = store(connection, plan, "deploying")
        if not change.conflict:
            return change.after


def assert_ids_are_given_once(records: list[Any]) -> None:
    """To one slice, or to one VM of one slice, whatever was deleted meanwhile."""
    holders: dict[int, tuple[int, str]] = {}
    for record in records:
        assert holders.setdefault(record["id"], (record["id"], record["name"])) == (record["id"], record["name"])
        for vm in record["vms"]:
            assert holders.setdefault(vm["id"], (record["id"], vm["name"])) == (record["id"], vm["name"])
