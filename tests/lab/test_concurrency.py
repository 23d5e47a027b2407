# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many runs at the same time: all succeed, none is given what another has, and nothing is left."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

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
def look(run_module: Any) -> Any:
    """What each host has of slices, by host."""

    def ask() -> dict[str, Any]:
        return {
            host: json.loads(run_module(host, "ansible.builtin.command", {"argv": ["python3", "-c", LOOK]})["stdout"])
            for host in HOSTS
        }

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
