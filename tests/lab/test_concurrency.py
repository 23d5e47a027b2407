# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many runs at the same time: all succeed, none is given what another has, and nothing is left."""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

ROOT = Path(__file__).parents[2]
HOSTS = ("worker1", "worker2", "worker3", "network1")
CROWD = [f"crowd{number}" for number in range(1, 9)]
BASE_DIR = "/var/lib/cloudrepo/vm_images"
# Asks the host itself, not our modules: stamped ports with their VLANs, devices, QEMU's cards and screens, and folders.
LOOK = r"""
import glob, json, os, re, subprocess
def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode()
ports = json.loads(run("ovs-vsctl", "--format=json", "--columns=name,tag,external_ids", "list", "Port"))["data"]
stamped = [[name, tag] for name, tag, ids in ports if any(key.startswith("cloudrepo-slice") for key, _ in ids[1])]
vms = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        words = open(path, "rb").read().decode().split("\0")
    except OSError:
        continue
    if os.path.basename(words[0]).startswith("qemu-system"):
        line = " ".join(words)
        vms.append({"macs": re.findall(r"mac=([0-9a-f:]+)", line), "vnc": re.search(r" -vnc \S*:(\d+)", line).group(1)})
print(json.dumps({
    "ports": sorted(stamped),
    "vms": sorted(vms, key=str),
    "devices": sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link")) if link.get("ifalias")),
    "namespaces": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
    "folders": sorted(path for kind in ("lib/cloudrepo/vm_images", "lib/cloudrepo/dnsmasq")
                      for path in glob.glob("/var/%s/*/" % kind)) + sorted(glob.glob("/run/cloudrepo/vms/*")),
}))
"""


@pytest.fixture
def look(inventory: Path, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """What each host has of slices, by host."""

    def ask() -> dict[str, Any]:
        runner = ansible_runner.run(
            private_data_dir=str(tmp_path),
            host_pattern="workers:network_node",
            module="ansible.builtin.command",
            module_args=json.dumps({"argv": ["python3", "-c", LOOK]}),
            inventory=str(inventory),
            cmdline="--become",
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            quiet=True,
        )
        answers = [event["event_data"] for event in runner.events if event["event"] == "runner_on_ok"]
        assert len(answers) == len(HOSTS), runner.stdout.read()
        return {answer["host"]: json.loads(answer["res"]["stdout"]) for answer in answers}

    return ask


def slices_in(output: str) -> dict[str, dict[str, Any]]:
    text = output[output.index("\n{\n") : output.index("\n}\n") + 3]
    return {record["name"]: record for record in json.loads(text)["slices"]}


def at_once(run_playbook: Any, playbook: str, calls: list[dict[str, Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda extra: run_playbook(playbook, **extra), calls))


def assert_all_ended_well(runs: list[Any]) -> None:
    assert [run.rc for run in runs] == [0] * len(runs), "\n".join(run.output for run in runs if run.rc)


def crowd_spec(name: str) -> dict[str, Any]:
    """Two VMs on one link, one of them with internet."""
    return {
        "name": name,
        "owner": name,
        "vms": [{"name": "a", "flavor": "cirros", "internet": True}, {"name": "b", "flavor": "cirros"}],
        "links": [{"endpoints": ["a", "b"]}],
    }


def assert_unique(kind: str, values: list[Any]) -> None:
    assert len(set(values)) == len(values), f"{kind} twice in {sorted(values, key=str)}"


def assert_nothing_twice(records: list[dict[str, Any]], hosts: dict[str, Any]) -> None:
    """In the registry and on the hosts, which have what the registry says."""
    vms = [vm for record in records for vm in record["vms"]]
    cards = [card for vm in vms for card in vm["interfaces"]]
    pools = [record["vlan_pool"] for record in records]
    addresses = [(card["vlan"], card["address"]) for card in cards if card["address"]]
    addresses += [(400, record["internet"]["server_address"]) for record in records if record["internet"]]
    assert_unique("ID", [record["id"] for record in records] + [vm["id"] for vm in vms])
    assert_unique("VLAN", [pool["first"] + step for pool in pools for step in range(pool["size"])])
    assert_unique("MAC", [card["mac"] for card in cards])
    assert_unique("VNC port", [vm["vnc_port"] for vm in vms])
    assert_unique("address", addresses)
    found = [vm for host in hosts.values() for vm in host["vms"]]
    assert sorted(mac for vm in found for mac in vm["macs"]) == sorted(card["mac"] for card in cards)
    assert sorted(int(vm["vnc"]) + 5900 for vm in found) == sorted(vm["vnc_port"] for vm in vms)
    tags = dict(tuple(port) for host in hosts.values() for port in host["ports"])
    wanted = {card["tap"]: card["vlan"] for card in cards if card["vlan"]}
    assert wanted.items() <= tags.items()
    gateways = {f"gw_vlan{link['vlan']}": link["vlan"] for record in records for link in record["links"]}
    assert gateways.items() <= tags.items()


@pytest.mark.parametrize("turn", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_eight_at_once(turn: int, run_playbook: Any, look: Any, record_property: Any) -> None:
    before = look()
    known = slices_in(run_playbook("show_slices", output="json").output)
    try:
        started = time.monotonic()
        runs = at_once(run_playbook, "deploy_slice", [{"slice_spec": crowd_spec(name)} for name in CROWD])
        replans = sum(run.output.count("planning again") for run in runs)
        figures = {"turn": turn, "deploys_s": round(time.monotonic() - started, 1), "replans": replans}
        assert_all_ended_well(runs)
        slices = slices_in(run_playbook("show_slices", output="json").output)
        assert [slices[name]["status"] for name in CROWD] == ["running"] * len(CROWD)
        assert all(vm["state"] == "running" for name in CROWD for vm in slices[name]["vms"])
        assert_nothing_twice(list(slices.values()), look())
    finally:
        started = time.monotonic()
        runs = at_once(run_playbook, "delete_slice", [{"slice": name} for name in CROWD])
        figures["deletes_s"] = round(time.monotonic() - started, 1)
    record_property("figures", str(figures))
    print(figures)
    assert_all_ended_well(runs)
    assert slices_in(run_playbook("show_slices", output="json").output) == known
    assert look() == before


CACHE = Path("/var/cache/cloudrepo-lab/images")
IMAGE = "cirros-0.6.2-x86_64-disk.img"


def test_two_slices_that_need_the_same_missing_image(run_playbook: Any, run_module: Any, tmp_path: Path) -> None:
    """On one worker at one time: the image gets there whole, whichever run brings it."""
    shutil.copyfile(CACHE / IMAGE, tmp_path / "together.img")
    flavor = {"name": "own", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": "together.img"}
    common = {"slices_flavors": [flavor], "slices_image_dir": str(tmp_path)}
    vms = [{"name": "a", "flavor": "own", "worker": "worker1"}]
    names = ["one", "two"]
    try:
        runs = at_once(
            run_playbook, "deploy_slice", [{"slice_spec": {"name": name, "vms": vms}, **common} for name in names]
        )
        assert_all_ended_well(runs)
        assert 1 <= sum(run.output.count("sending together.img") for run in runs) <= 2
        there = run_module("worker1", "ansible.builtin.command", {"argv": ["sha256sum", f"{BASE_DIR}/together.img"]})
        assert there["stdout"].split()[0] == hashlib.sha256((tmp_path / "together.img").read_bytes()).hexdigest()
        found = run_module("worker1", "ansible.builtin.command", {"argv": ["ls", "-A", BASE_DIR]})["stdout"].split()
        assert not [name for name in found if name.endswith(".part")], found
        vms_there = run_module("worker1", "qemu_vm_info", {"base_dir": BASE_DIR})["vms"]
        assert {vm["slice"]: vm["status"] for vm in vms_there if vm["slice"] in names} == dict.fromkeys(
            names, "running"
        )
    finally:
        assert_all_ended_well(at_once(run_playbook, "delete_slice", [{"slice": name} for name in names]))
        for path in ("together.img", "together.img.json"):
            run_module("worker1", "ansible.builtin.file", {"path": f"{BASE_DIR}/{path}", "state": "absent"})


HELD = {"name": "held", "vms": [{"name": "a", "flavor": "cirros", "worker": "worker1"}]}
WHO_AND_WHEN = r"slice held is being deployed by \S+ on (\S+) \(PID (\d+)\) since [0-9-]+ [0-9:]+ UTC"
ELSEWHERE = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]

RESERVED = "Plan and reserve"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(run_playbook: Any) -> Iterator[Start]:
    """Start a deploy of HELD and return when it has reserved and begins to change the hosts."""
    started: list[subprocess.Popen[str]] = []

    def run(*prefix: str, **extra: Any) -> subprocess.Popen[str]:
        variables = json.dumps({"slice_spec": HELD, **extra})
        argv = [*prefix, "ansible-playbook", "playbooks/deploy_slice.yml", "--extra-vars", variables]
        run = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(run)
        assert run.stdout
        assert any(RESERVED in line for line in run.stdout)
        return run

    yield run
    for each in started:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
        each.wait()
    assert run_playbook("delete_slice", slice="held").rc == 0


def test_who_comes_second_is_told_who_is_first(run_playbook: Any, start: Start) -> None:
    first = start()
    # So that it is still at work, however slow this machine is.
    os.kill(first.pid, signal.SIGSTOP)
    for playbook, extra in (("deploy_slice", {"slice_spec": HELD}), ("delete_slice", {"slice": "held"})):
        second = run_playbook(playbook, **extra)
        said = re.search(WHO_AND_WHEN, second.output)
        assert second.rc != 0 and said and int(said[2]) == first.pid, second.output
        assert second.total("changed") == 0, second.output
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(timeout=300) == 0


def test_a_killed_run_of_the_same_controller_holds_nothing(run_playbook: Any, start: Start) -> None:
    first = start()
    os.killpg(first.pid, signal.SIGKILL)
    second = run_playbook("deploy_slice", slice_spec=HELD)
    assert second.rc == 0 and f"(PID {first.pid}) worked on it and has died" in second.output, second.output


def test_a_killed_run_of_another_controller_holds_for_the_stated_time_only(run_playbook: Any, start: Start) -> None:
    seconds = 30
    began = time.time()
    os.killpg(start(*ELSEWHERE, slices_hold_timeout=seconds).pid, signal.SIGKILL)
    second = run_playbook("deploy_slice", slice_spec=HELD)
    said = re.search(WHO_AND_WHEN + r"; .* free again at (\S+ \S+) UTC", second.output)
    assert second.rc != 0 and said and said[1] == "elsewhere", second.output
    free = calendar.timegm(time.strptime(said[3], "%Y-%m-%d %H:%M:%S"))
    assert began + seconds - 1 <= free <= time.time() + seconds
    time.sleep(max(0, free - time.time() + 1))
    third = run_playbook("deploy_slice", slice_spec=HELD)
    assert third.rc == 0, third.output


def test_a_run_that_was_overtaken_changes_nothing_any_more(run_playbook: Any, start: Start) -> None:
    first = start(*ELSEWHERE, slices_hold_timeout=2)
    os.killpg(first.pid, signal.SIGSTOP)
    time.sleep(4)
    second = run_playbook("deploy_slice", slice_spec=HELD)
    assert second.rc == 0, second.output
    os.killpg(first.pid, signal.SIGCONT)
    assert first.stdout
    late = first.stdout.read()
    assert first.wait(timeout=300) != 0 and "this run was silent for longer than slices_hold_timeout" in late, late
    audited = run_playbook("audit_slices", slice="held")
    assert audited.rc == 0, audited.output


def test_a_run_that_is_slow_but_alone_holds_on(start: Start) -> None:
    run = start(slices_hold_timeout=4)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(run.pid, signal.SIGCONT)
    assert run.stdout
    output = run.stdout.read()
    assert run.wait(timeout=300) == 0 and "Make sure that nobody else works on the slice by now" in output, output
