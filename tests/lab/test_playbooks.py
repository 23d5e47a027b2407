# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks as users call them: what they print, what a changed spec changes, and who wins a race."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .packets import LAB_RUN, lab_run

ROOT = Path(__file__).parents[2]
GOLDEN = """
======================================================================
Slice 1000 [design]: 2 VMs, 1 Links, VLAN pool: 100-119
  └─ VM 1001: web (VNC: 5901, Worker: 10.0.10.1, Disk: 1GB)
      eth0: MAC 52:54:00:03:e9:00, VLAN: 400, unconnected
      eth1: MAC 52:54:00:03:e9:01, VLAN: 100, Link: 1
  └─ VM 1002: db (VNC: 5902, Worker: 10.0.10.2, Disk: 2.2GB)
      eth0: MAC 52:54:00:03:ea:00, unconnected
      eth1: MAC 52:54:00:03:ea:01, VLAN: 100, Link: 1
  Link 1: VM1001.eth1 <-> VM1002.eth1 (VLAN 100)
======================================================================
"""


@pytest.fixture
def empty_registry() -> dict[str, str]:
    """A registry of the test's own, so that the numbers start at their beginning."""
    return {"slices_registry_path": f"/tmp/{uuid.uuid4()}/slices.sqlite"}


def slices_in(output: str) -> dict[str, dict[str, Any]]:
    """What `-e output=json` printed, by slice."""
    text = output[output.index("\n{\n") : output.index("\n}\n") + 3]
    return {record["name"]: record for record in json.loads(text)["slices"]}


def vms_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {vm["name"]: vm for vm in record["vms"]}


def test_golden_case(run_playbook: Any, empty_registry: dict[str, str]) -> None:
    assert run_playbook("design_slice", slice="web", **empty_registry).rc == 0
    shown = run_playbook("show_slices", **empty_registry)
    assert GOLDEN in shown.output
    again = run_playbook("design_slice", slice="web", **empty_registry)
    assert again.rc == 0 and again.total("changed") == 0
    deleted = run_playbook("delete_slice", slice="web", **empty_registry)
    assert deleted.rc == 0, deleted.output
    assert "No slices." in run_playbook("show_slices", **empty_registry).output


def test_check_mode_of_a_new_slice_changes_nothing(run_playbook: Any) -> None:
    before = slices_in(run_playbook("show_slices", output="json").output)
    run = run_playbook("deploy_slice", "--check", "--diff", slice="web")
    assert run.rc == 0, run.output
    assert run.total("changed") > 0
    assert slices_in(run_playbook("show_slices", output="json").output) == before


def test_lost_races_are_planned_again(run_playbook: Any, empty_registry: dict[str, str]) -> None:
    """Designs started at once all succeed, and none is given what another has."""
    names = ["red", "green", "blue", "grey"]

    def design(name: str) -> Any:
        spec = {"name": name, "topology": {"type": "line", "vms": 2, "flavor": "cirros"}, "owner": name}
        return run_playbook("design_slice", slice_spec=spec, **empty_registry)

    with ThreadPoolExecutor(len(names)) as pool:
        runs = list(pool.map(design, names))
    assert [run.rc for run in runs] == [0] * len(names), "\n".join(run.output for run in runs)
    found = slices_in(run_playbook("show_slices", output="json", **empty_registry).output)
    assert sorted(found) == sorted(names)
    vms = [vm for record in found.values() for vm in record["vms"]]
    for numbers in (
        [record["vlan_pool"]["first"] for record in found.values()],
        [vm["vnc_port"] for vm in vms],
        [vm["id"] for vm in vms] + [record["id"] for record in found.values()],
    ):
        assert len(set(numbers)) == len(numbers), numbers
    for name in names:
        assert run_playbook("delete_slice", slice=name, **empty_registry).rc == 0


def spec_of(names: str, *links: str) -> dict[str, Any]:
    return {
        "name": "grow",
        "vms": [{"name": name, "flavor": "cirros"} for name in names],
        "links": [{"endpoints": list(link)} for link in links],
    }


def test_a_changed_spec_changes_what_differs(run_playbook: Any) -> None:
    """Growing and shrinking a running slice: what stays keeps its process and its numbers."""

    def deploy(spec: dict[str, Any]) -> tuple[Any, dict[str, dict[str, Any]]]:
        run = run_playbook("deploy_slice", slice_spec=spec, output="json")
        assert run.rc == 0, run.output
        return run, vms_of(slices_in(run.output)["grow"])

    try:
        _run, small = deploy(spec_of("ab", "ab"))
        assert [vm["state"] for vm in small.values()] == ["running"] * 2
        _run, large = deploy({**spec_of("abc", "ab", "bc")})
        assert large["a"] == small["a"] and large["c"]["state"] == "running"
        assert large["b"]["pid"] == small["b"]["pid"] and large["b"]["id"] == small["b"]["id"]
        run, _vms = deploy(spec_of("abc", "ab", "bc"))
        # b runs with the one data interface it was started with: a second one waits for a restart that is allowed.
        assert run.total("changed") == 0 and "needs a restart" in run.output
        _run, less = deploy(spec_of("bc", "bc"))
        assert sorted(less) == ["b", "c"] and less["c"]["pid"] == large["c"]["pid"]
        run, _vms = deploy(spec_of("bc", "bc"))
        assert run.total("changed") == 0, run.output
    finally:
        deleted = run_playbook("delete_slice", slice="grow")
    assert deleted.rc == 0, deleted.output


@contextmanager
def taken(worker: str, port: int) -> Iterator[None]:
    """Somebody listens on a port of a worker's loopback."""
    listen = f"s = socket.create_server(('127.0.0.1', {port})); print(1, flush=True); sys.stdin.read()"
    argv = [sys.executable, str(LAB_RUN), worker, "/usr/bin/python3", "-c", f"import socket, sys; {listen}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout and listener.stdout.readline() == "1\n"
        yield  # It ends with its standard input.


def play_with_errors_ignored(folder: Path, *specs: dict[str, Any]) -> str:
    """Deploy slices in one play that goes on whatever happens. What it says."""
    deploys = [
        {
            "ansible.builtin.import_role": {"name": "cloudrepo.slices.slice", "tasks_from": entry},
            "vars": {"slice_spec": spec, "slices_target_status": "deploying"},
        }
        for spec in specs
        for entry in ("plan", "realize", "finish")
    ]
    play = {"hosts": "localhost,workers,network_node", "gather_facts": False, "ignore_errors": True, "tasks": deploys}
    path = folder / "ignoring.yml"
    path.write_text(json.dumps([play]), encoding="utf-8")
    argv = ["ansible-playbook", str(path)]
    return subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def test_a_failed_change_leaves_what_ran_before_running(run_playbook: Any, tmp_path: Path) -> None:
    """Another VM takes one's place, on another link: the old one and its gateway go once the new one runs."""

    def spec(name: str) -> dict[str, Any]:
        vms = [{"name": "a", "worker": "worker1"}, {"name": name, "worker": "worker2", "internet": True}]
        links = [{"endpoints": ["a", name]}]
        return {"name": "swap", "vms": [{**vm, "flavor": "cirros"} for vm in vms], "links": links}

    def assert_kept(before: dict[str, str], after: dict[str, str]) -> None:
        for what, lines in before.items():
            assert set(lines.split()) <= set(after[what].split()), (what, lines, after[what])

    def look() -> dict[str, str]:
        """What the hosts have of the slice, and its VMs' processes."""
        commands = {
            "processes": "cd /run/cloudrepo/vms/swap && grep -H . */qemu.pid",
            "disks": "ls /var/lib/cloudrepo/vm_images/swap",
            "ports": "ovs-vsctl --bare --columns=name find port external_ids:cloudrepo-slice=swap",
        }
        found = {
            f"{worker} {what}": lab_run(worker, "sh", "-c", command)
            for worker in ("worker1", "worker2")
            for what, command in commands.items()
        }
        return {**found, "gateways": lab_run("network1", "sh", "-c", commands["ports"])}

    try:
        run = run_playbook("deploy_slice", slice_spec=spec("old"), output="json")
        assert run.rc == 0, run.output
        before = look()
        known = slices_in(run_playbook("show_slices", output="json").output).values()
        ports = {vm["vnc_port"] for record in known for vm in record["vms"]}
        with taken("worker2", next(port for port in range(5901, 6000) if port not in ports)):
            failed = run_playbook("deploy_slice", slice_spec=spec("new"))
            # Nor does it go where whoever calls the role has Ansible go on.
            ignoring = play_with_errors_ignored(tmp_path, spec("new"), spec_of("a"))
        assert failed.rc != 0 and "slice swap failed: worker2: " in failed.output, failed.output
        assert "slice swap failed: worker2: " in ignoring and "grow failed" not in ignoring, ignoring
        records = slices_in(run_playbook("show_slices", output="json").output)
        assert (records["swap"]["status"], records["grow"]["status"]) == ("failed", "running")
        assert_kept(before, look())
        # All of it runs, but not as it should: no guest has its address in so short a time.
        failed = run_playbook(
            "deploy_slice", slice_spec=spec("new"), slices_wait_for_leases=True, slices_lease_timeout=1
        )
        assert failed.rc != 0 and "slice swap failed: network1: " in failed.output, failed.output
        assert_kept(before, look())

        run = run_playbook("deploy_slice", slice_spec=spec("new"), output="json")
        assert run.rc == 0, run.output
        record = slices_in(run.output)["swap"]
        assert [(vm["name"], vm["state"]) for vm in record["vms"]] == [("a", "running"), ("new", "running")]
        now = look()
        assert now["worker1 processes"] == before["worker1 processes"]
        assert "old" not in now["worker2 processes"] + now["worker2 disks"]
        taps = {interface["tap"] for interface in record["vms"][1]["interfaces"]}
        assert set(now["worker2 ports"].split()) == taps
        gateways = {f"gw_vlan{record['links'][0]['vlan']}", f"inet_{record['id']}"}
        assert set(now["gateways"].split()) == gateways
        again = run_playbook("deploy_slice", slice_spec=spec("new"))
        assert again.rc == 0 and again.total("changed") == 0, again.output
    finally:
        deleted = [run_playbook("delete_slice", slice=name) for name in ("swap", "grow")]
    assert [run.rc for run in deleted] == [0, 0], deleted


def test_show_names_what_it_cannot_see(run_playbook: Any, tmp_path: Path) -> None:
    assert run_playbook("design_slice", slice="web").rc == 0
    missing = run_playbook("show_slices", slice="nosuch")
    assert missing.rc != 0 and "there is no slice nosuch" in missing.output
    assert run_playbook("show_slices", slice="").rc == 0
    assert run_playbook("delete_slice", slice="web").rc == 0


def test_a_slice_that_cannot_be_deleted_whole_is_not_touched(run_playbook: Any) -> None:
    spec = {"name": "kept", "vms": [{"name": "a", "flavor": "cirros", "worker": "worker3"}]}
    assert run_playbook("deploy_slice", slice_spec=spec).rc == 0
    try:
        refused = run_playbook("delete_slice", "--limit", "localhost,network1,worker1", slice="kept")
        assert refused.rc != 0 and "slice kept has parts on worker3, not in this run" in refused.output
        assert refused.total("changed") == 0 and "is deleted" not in refused.output
        # A worker that can't be reached: said by name, and what the registry knows is shown all the same.
        shown = run_playbook(
            "show_slices", "-e", "{ansible_port: \"{{ 9 if inventory_hostname == 'worker3' else 22 }}\"}"
        )
        assert shown.rc == 0 and "host worker3 is unreachable" in shown.output, shown.output
        assert "[running]" in shown.output
    finally:
        assert run_playbook("delete_slice", slice="kept").rc == 0


def test_a_worker_that_was_given_up_comes_back(run_playbook: Any) -> None:
    without_worker3 = ("-e", "{ansible_port: \"{{ 9 if inventory_hostname == 'worker3' else 22 }}\"}")
    there, elsewhere = (
        {"name": "moved", "vms": [{"name": "a", "flavor": "cirros", "worker": worker}]}
        for worker in ("worker3", "worker2")
    )
    try:
        assert run_playbook("deploy_slice", slice_spec=there).rc == 0
        refused = run_playbook("delete_slice", *without_worker3, slice="moved")
        assert refused.rc != 0 and refused.total("changed") == 0
        assert "slice moved has parts on worker3, which can't be reached" in refused.output
        assert "gone for good is named in slices_lost_hosts" in refused.output
        given_up = run_playbook("delete_slice", *without_worker3, slice="moved", slices_lost_hosts=["worker3"])
        assert given_up.rc == 0 and "Not on worker3, which may still have something of it" in given_up.output
        assert run_playbook("deploy_slice", *without_worker3, slice_spec=elsewhere).rc == 0
        # Now it is there again, with a VM of the same name.
        audited = run_playbook("audit_slices", slice="moved")
        assert audited.rc != 0 and "worker3: vm a should not be there" in audited.output, audited.output
        mended = run_playbook("deploy_slice", slice_spec=elsewhere)
        assert mended.rc == 0 and mended.recap["worker3"]["changed"] > 0 and mended.recap["worker2"]["changed"] == 0
        assert run_playbook("audit_slices", slice="moved").rc == 0
    finally:
        assert run_playbook("delete_slice", slice="moved").rc == 0
