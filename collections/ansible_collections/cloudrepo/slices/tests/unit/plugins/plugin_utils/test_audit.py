# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._audit import is_unknown, merge, render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._audit_shares import all_shares
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._junit import junit
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._run import run_id
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, Settings

from .clusters import EMPTY, NETWORK_NODE, WEB, after, make_plan, workers

NOW = 1_800_000_000


def registry(status: str = "running", **fields: Any) -> dict[str, Any]:
    stored = after(EMPTY, make_plan(WEB), status)
    return {**stored, "slices": [{**record, **fields} for record in stored["slices"]], "holds": []}


def shares(known: dict[str, Any], only: str | None = None, count: int = 3) -> dict[str, Any]:
    return all_shares(known, Cluster(workers(count), [NETWORK_NODE]), Settings(), only, NOW)


def present(found: dict[str, Any]) -> list[str]:
    return [host for host, slices in found["hosts"].items() for share in slices if share["present"]]


def test_every_host_gets_its_share_in_the_modules_terms() -> None:
    found = shares(registry())
    assert present(found) == ["network1", "worker1", "worker2"] and found["findings"] == []
    [share] = found["hosts"]["worker1"]
    planned = make_plan(WEB)["hosts"]["worker1"]
    assert {key: share[key] for key in planned} == planned
    assert found["known"]["names"] == ["web"] and {"tap_1001_eth1", "gw_vlan100", "inet_1000"} <= {
        *found["known"]["ports"]
    }


def test_of_designs_and_of_what_is_being_deleted_nothing_should_be_there() -> None:
    assert present(shares(registry("design"))) == [] and shares(registry("design"))["findings"] == []
    found = shares(registry("deleting"))
    assert present(found) == [] and "run delete_slice again" in found["findings"][0]["message"]


def test_a_slice_that_is_worked_on_is_not_judged_but_known() -> None:
    hold = {"slice": "web", "run": "x", "holder": "alice on c1", "status": "deploying", "since": NOW, "until": NOW + 60}
    found = shares({**registry("deploying"), "holds": [hold]})
    assert found["slices"] == found["findings"] == [] and found["hosts"]["worker1"] == [] and found["probes"] == {}
    assert found["notes"][0]["message"] == "is deploying by alice on c1 since 2027-01-15 08:00:00 UTC: not judged"
    assert found["known"]["names"] == ["web"]
    # A hold that ended keeps nobody busy.
    over = shares({**registry("deploying"), "holds": [{**hold, "until": NOW - 1}]})
    assert "nobody works on it" in over["findings"][0]["message"]


def test_a_run_that_died_here_keeps_nobody_busy() -> None:
    hold = {"slice": "web", "holder": "alice", "status": "deploying", "since": NOW, "until": NOW + 60}
    over = shares({**registry("deploying"), "holds": [{**hold, "run": run_id(os.getpid()).rsplit("/", 1)[0] + "/1"}]})
    assert over["notes"] == [] and "nobody works on it" in over["findings"][0]["message"]


def test_of_a_first_deploy_that_failed_nothing_should_be_there() -> None:
    assert present(shares(registry("failed", has_run=False))) == []
    assert len(present(shares(registry("failed", has_run=True)))) == 3


def test_a_worker_that_left_the_inventory_is_named() -> None:
    [finding] = shares(registry(), count=1)["findings"]
    assert (finding["host"], finding["message"]) == ("worker2", "is not in the inventory and has db")


def test_links_are_probed_from_where_their_guests_and_gateways_are() -> None:
    found = shares(registry())
    assert {host: [each["vlan"] for each in networks] for host, networks in found["probes"].items()} == {
        "worker1": [100, 400],
        "worker2": [100],
        "network1": [100],
    }
    assert [guest["name"] for guest in found["probes"]["worker2"][0]["guests"]] == ["web/web eth1", "web/db eth1"]
    assert found["probes"]["worker1"][1]["guests"] == []
    assert shares(registry("failed"))["probes"] == {}


# --- the report ---------------------------------------------------------------------------------------------------

CHECKED = {"checked": {"web": {"port": 2, "vm": 1}}, "findings": [], "orphans": []}
FINDING = {"slice": "web", "kind": "port", "item": "tap", "message": "is \x1b<missing>", "commands": []}
ORPHAN = {"slice": "gone", "kind": "port", "item": "x y", "message": "is lost", "commands": [["ip", "del", "x y"]]}


def merged(
    removed: dict[str, Any] | None = None, probes: list[Any] | None = None, remove: bool = False, **hosts: Any
) -> dict[str, Any]:
    audited = {"network1": CHECKED, "worker1": CHECKED, "worker2": CHECKED, "worker3": CHECKED, **hosts}
    probed = {"worker1": {"probes": probes}} if probes else {}
    return merge(shares(registry()), shares(registry()), audited, probed, removed or {}, remove)


def test_nothing_off_is_one_line() -> None:
    audit = merged()
    assert render(audit) == "Audit: 1 slice, 12 resources checked on 4 hosts, nothing off." and audit["sound"]


def test_whatever_is_off_is_told() -> None:
    probe = {"slice": "web", "name": "link 1", "message": "does not answer", "failed": True, "skipped": ""}
    off = {**CHECKED, "findings": [FINDING], "orphans": [ORPHAN]}
    audit = merged(probes=[probe], worker1=off, worker2={"unreachable": True}, worker3={})
    assert render(audit).splitlines() == [
        "Hosts",
        "  worker3 is not part of this run (--limit?)",
        "Slice web",
        "  worker2 is unreachable",
        "  worker1: port tap is \\x1b<missing>",
        "  worker1: probe link 1 does not answer",
        "Orphans",
        "  worker1: port x y of slice gone: is lost [ip del 'x y']",
        "Audit: 1 slice, 6 resources checked on 2 hosts, 1 probe: 3 drifts, 1 orphan, 1 failed probe.",
    ]
    root = ElementTree.fromstring(junit(audit))
    assert root.tag == "testsuites" and [suite.get("name") for suite in root] == ["slice web", "hosts", "orphans"]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases) and all(case.get("classname") for case in cases)
        assert int(suite.get("failures", "")) == sum(case.find("failure") is not None for case in cases)
    [failure] = root.findall("testsuite/testcase[@classname='slice web.worker1'][@name='port']/failure")
    assert failure.get("message") == failure.text == "worker1: port tap is ?<missing>"
    assert sum(int(suite.get("failures", "")) for suite in root) == int(root.get("failures", "")) == 5


@pytest.mark.parametrize("state", ["failed", "unreachable"])
def test_a_probe_that_could_not_be_made_has_failed(state: str) -> None:
    hosts = dict.fromkeys(("network1", "worker1", "worker2", "worker3"), CHECKED)
    audit = merge(shares(registry()), shares(registry()), hosts, {"worker1": {state: True, "msg": "boom"}}, {})
    assert not audit["sound"] and "worker1 could not probe: boom" in render(audit)
    assert "nothing off" not in render(audit) and "1 failed probe" in render(audit)


def test_what_is_newer_than_the_registry_says_that_it_was_lost() -> None:
    stamps = [{"slice": "red", "name": "VM red/a", "id": 1003}, {"slice": "web", "name": "VM web/db", "id": 1002}]
    audit = merged(worker1={**CHECKED, "stamps": stamps, "orphans": [ORPHAN]}, remove=True)
    [finding] = audit["drift"]
    assert finding["item"] == "VM red/a" and "run rebuild_registry" in finding["message"]
    # Nobody is told to remove what only the registry has forgotten.
    assert audit["orphans"][0]["commands"] == []
    assert "Not removed\n  anything: " in render(audit)


def test_a_slice_of_which_there_is_nothing_anywhere_is_unknown() -> None:
    here = shares(registry())
    assert is_unknown(merged(), here, "typo")
    assert not is_unknown(merged(), here, "web") and not is_unknown(merged(), here, None)
    orphan = {**CHECKED, "orphans": [ORPHAN]}
    assert not is_unknown(merged(worker1=orphan), here, "gone")
    removed = {"worker1": {"removed": [ORPHAN], "errors": []}}
    assert not is_unknown(merged(removed=removed, worker1=orphan), here, "gone")
    # Who knows what is on a host that does not answer.
    assert not is_unknown(merged(worker1={"unreachable": True}), here, "gone")


def test_what_was_removed_is_off_no_more() -> None:
    worker = {**CHECKED, "orphans": [ORPHAN]}
    audit = merged(removed={"worker1": {"removed": [ORPHAN], "errors": []}}, worker1=worker)
    assert audit["sound"] and audit["orphans"] == []
    assert "1 orphan removed, nothing off" in render(audit) and "Removed\n" in render(audit)
    would = {"worker1": {"removed": [ORPHAN]}}
    tried = merge(shares(registry()), shares(registry()), {"worker1": worker}, {}, would, True, check_mode=True)
    assert not tried["sound"] and "1 orphan would be removed" in render(tried, True)
    failed = merged(removed={"worker1": {"failed": True, "msg": "boom"}}, worker1=worker)
    assert not failed["sound"] and len(failed["orphans"]) == 1 and "  worker1: boom" in render(failed)


def test_a_host_that_is_broken_is_a_finding_for_each_slice_on_it() -> None:
    audit = merged(worker1={"failed": True, "msg": "no Python"})
    assert [(item["slice"], item["message"]) for item in audit["drift"]] == [
        ("web", "could not be looked at: no Python")
    ]


def test_what_changed_while_the_hosts_were_looked_at_is_not_judged() -> None:
    of_web = {**FINDING, "slice": "web", "host": ""}
    new = {**ORPHAN, "slice": "web"}
    stamps = [{"slice": "web", "name": "VM web/db", "id": 1002}]
    worker1 = {**CHECKED, "findings": [of_web], "orphans": [new], "stamps": stamps}
    before, after_it = ({**registry(), "slices": slices} for slices in ([], registry()["slices"]))
    # One that was made meanwhile is no orphan, and one that was deleted lacks nothing.
    made = merge(
        shares({**before, "next_id": 1000}), shares(after_it), {"worker1": {**worker1, "findings": []}}, {}, {}
    )
    assert made["orphans"] == [] and not any(item["kind"] == "registry" for item in made["drift"])
    deleted = merge(shares(after_it), shares(before), {"worker1": {**worker1, "orphans": []}}, {}, {})
    assert not any(item["slice"] == "web" and item["kind"] == "port" for item in deleted["drift"])
    assert [note["slice"] for note in deleted["notes"]] == ["web"]
