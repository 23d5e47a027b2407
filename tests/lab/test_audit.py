# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit finds what was broken by hand, by its name; a deploy mends it; what belongs to nobody is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

REGISTRY = "/var/lib/cloudrepo/registry/slices.sqlite"
SPEC = {
    "name": "aud",
    "vms": [
        {"name": "a", "flavor": "cirros", "worker": "worker1", "internet": True},
        {"name": "b", "flavor": "cirros", "worker": "worker2"},
        {"name": "c", "flavor": "cirros", "worker": "worker1"},
        {"name": "d", "flavor": "cirros", "worker": "worker3"},
    ],
    "links": [{"endpoints": ["a", "b", "d"]}, {"endpoints": ["b", "c"]}],
}
GHOST = {"name": "ghost", "vms": [{"name": "g", "flavor": "cirros", "worker": "worker1", "internet": True}]}

PAUSE = """
import json, socket
link = socket.socket(socket.AF_UNIX)
link.connect("/run/cloudrepo/vms/aud/a/qmp.sock")
stream = link.makefile("rw")
stream.readline()
for command in ("qmp_capabilities", "stop"):
    print(json.dumps({"execute": command}), file=stream, flush=True)
    stream.readline()
"""


def audit_in(output: str) -> dict[str, Any]:
    """What `-e output=json` printed."""
    text = output[output.index("\n{\n") : output.index("\n}\n") + 3]
    return dict(json.loads(text)["audit"])


def found(audit: dict[str, Any], kind: str = "drift") -> dict[tuple[str, str, str], str]:
    """The messages of the findings, by host, kind and item."""
    messages: dict[tuple[str, str, str], str] = {}
    for item in audit[kind]:
        key = (item["host"], item["kind"], item["item"])
        messages[key] = "; ".join([messages[key], item["message"]] if key in messages else [item["message"]])
    return messages


@pytest.fixture(scope="module")
def record(run_playbook: Any) -> Iterator[dict[str, Any]]:
    """The slice `aud` whose guests have their addresses. Each test leaves it as it was."""
    deployed = run_playbook("deploy_slice", slice_spec=SPEC, output="json", slices_wait_for_leases=True)
    assert deployed.rc == 0, deployed.output
    text = deployed.output[deployed.output.index("\n{\n") : deployed.output.index("\n}\n") + 3]
    yield json.loads(text)["slices"][0]
    for name in ("aud", "ghost"):
        deleted = run_playbook("delete_slice", slice=name)
        assert deleted.rc == 0, deleted.output


@pytest.fixture
def script(run_module: Any) -> Any:
    """`script("worker1", "ip link")` runs lines in a shell on a host, as root, and wants each of them to succeed."""

    def run(host: str, lines: str) -> str:
        done = run_module(host, "ansible.builtin.command", {"argv": ["sh", "-ec", lines]})
        assert not done["failed"], done
        return str(done["stdout"])

    return run


def test_faults_are_found_by_name_and_mended_by_a_deploy(
    record: dict[str, Any], run_playbook: Any, run_module: Any, script: Any, tmp_path: Path
) -> None:
    vms = {vm["name"]: {card["name"]: card for card in vm["interfaces"]} for vm in record["vms"]}
    link1, link2 = (link["vlan"] for link in record["links"])
    namespace = f"slice-{record['id']}"

    sound = run_playbook("audit_slices", slice="aud", probe=True)
    assert sound.rc == 0 and "nothing off" in sound.output and " probes" in sound.output, sound.output

    tap_a, tap_b, tap_c, tap_d = (vms[name]["eth1"]["tap"] for name in "abcd")
    guest = vms["a"]["eth0"]["address"].partition("/")[0]
    script(
        "worker1",
        f"python3 -c '{PAUSE}'; ovs-vsctl set port {tap_c} tag={link1}; ovs-vsctl del-port {tap_a};"
        f"ovs-ofctl del-flows br-int cookie=0xc10d5ec0{record['id']:08x}/-1",
    )
    image = "/var/lib/cloudrepo/vm_images/cirros-0.6.2-x86_64-disk.img"
    disks = "/var/lib/cloudrepo/vm_images/aud"
    script(
        "worker2",
        f"kill -KILL $(cat /run/cloudrepo/vms/aud/b/qemu.pid); rm {disks}/b_img.qcow2 {image}.json {image};"
        f"sed -i s/{vms['b']['eth1']['mac']}/52:54:00:00:00:99/ {disks}/b.json; ip link delete {tap_b}",
    )
    # The disk goes while its VM runs, and is another one when it comes back.
    script(
        "worker3",
        f"rm {disks}/d_img.qcow2; qemu-img create -q -f qcow2 {disks}/d_img.qcow2 1G; ip link delete {tap_d}",
    )
    script(
        "network1",
        f"kill -KILL $(cat /run/cloudrepo/dnsmasq/aud.pid); echo port=5 >>/var/lib/cloudrepo/dnsmasq/aud/dnsmasq.conf;"
        f"ip -n {namespace} address delete {record['links'][0]['server_address']} dev gw_vlan{link1};"
        f"nft delete element inet cloudrepo_slices guests '{{ {guest} . {vms['a']['eth0']['mac']} }}'",
    )
    status = {"path": REGISTRY, "state": "status", "slice": "aud", "status": "failed", "reason": "by hand"}
    assert not run_module("network1", "slice_registry", status)["failed"]

    report = tmp_path / "audit.xml"
    off = run_playbook("audit_slices", slice="aud", output="json", junit=str(report))
    audit = audit_in(off.output)
    messages = found(audit)
    expected = {
        ("", "status", "aud"): "is failed (by hand), and nobody works on it: run deploy_slice or delete_slice again",
        ("worker1", "vm", "a"): "status is paused, should be running",
        ("worker1", "port", tap_a): "is not on bridge br-int",
        ("worker1", "port", vms["a"]["eth0"]["tap"]): "flows lacks",
        ("worker1", "port", tap_c): f"vlan is {link1}, should be {link2}",
        ("worker2", "vm", "b"): f"eth1.mac is 52:54:00:00:00:99, should be {vms['b']['eth1']['mac']}",
        ("worker2", "disk", "b"): "is missing",
        ("worker2", "image", "cirros-0.6.2-x86_64-disk.img"): "is missing",
        ("worker2", "port", tap_b): "its device is missing",
        ("worker3", "disk", "d"): "image is none, should be cirros-0.6.2-x86_64-disk.img",
        ("worker3", "vm", "d"): "runs on a disk that was deleted",
        ("worker3", "port", tap_d): "its device is missing",
        ("network1", "dhcp", "process"): "is not running",
        ("network1", "dhcp", "dnsmasq.conf"): "has port=5 too many",
        ("network1", "port", f"gw_vlan{link1}"): "addresses lacks",
        ("network1", "nat", "slice aud"): f"guests is none, should be {guest} . {vms['a']['eth0']['mac']}",
    }
    for key, message in expected.items():
        assert message in messages.get(key, ""), f"{key}: {message}\n{json.dumps(audit['drift'], indent=1)}"
    assert "status is stopped, should be running" in messages["worker2", "vm", "b"]
    assert off.rc != 0 and f"{len(audit['drift'])} drifts, 0 orphans, 0 failed probes" in off.output
    suites = ElementTree.parse(report).getroot()
    failed = {case.get("classname") for case in suites.iter("testcase") if case.find("failure") is not None}
    assert {f"slice aud.{host}" for host in ("registry", "worker1", "worker2", "worker3", "network1")} <= failed

    # A disk is never overwritten, so that of d has to go first.
    script("worker3", f"kill -KILL $(cat /run/cloudrepo/vms/aud/d/qemu.pid); rm {disks}/d_img.qcow2")
    mended = run_playbook("deploy_slice", slice_spec=SPEC, slices_allow_restart=True)
    assert mended.rc == 0, mended.output
    clean = run_playbook("audit_slices", slice="aud")
    assert clean.rc == 0 and "nothing off" in clean.output, clean.output


def test_probes_see_a_wrong_vlan(record: dict[str, Any], run_playbook: Any, script: Any) -> None:
    card = next(vm for vm in record["vms"] if vm["name"] == "c")["interfaces"][1]
    link1 = record["links"][0]["vlan"]
    script("worker1", f"ovs-vsctl set port {card['tap']} tag={link1}")
    try:
        probed = run_playbook("audit_slices", probe=True, slice="aud", output="json")
    finally:
        script("worker1", f"ovs-vsctl set port {card['tap']} tag={card['vlan']}")
    failed = {(probe["host"], probe["name"]): probe["message"] for probe in audit_in(probed.output)["probes"]
              if probe["failed"]}  # fmt: skip
    address = card["address"].partition("/")[0]
    assert probed.rc != 0
    for host in ("worker1", "worker2", "network1"):
        # The link does not pass, and another one does.
        declared = failed[host, f"link 2, VLAN {card['vlan']}: aud/c eth1 ({address})"]
        assert declared == "does not answer"
        assert f"aud/c eth1 ({address}) is reached" in failed[host, f"link 1, VLAN {link1}: others"]
    assert "probe_" not in script("worker1", "ovs-vsctl list-ports br-int; ip -br link")


def test_orphans_are_named_and_removed_and_nothing_else(
    record: dict[str, Any], run_playbook: Any, run_module: Any, script: Any
) -> None:
    deployed = run_playbook("deploy_slice", slice_spec=GHOST)
    assert deployed.rc == 0, deployed.output
    pid = script("worker1", "cat /run/cloudrepo/vms/aud/a/qemu.pid")
    # The registry forgets the slice; of others, there are things without a stamp.
    assert not run_module("network1", "slice_registry", {"path": REGISTRY, "state": "absent", "slice": "ghost"})[
        "failed"
    ]
    images = "/var/lib/cloudrepo/vm_images"
    leftover = f"{images}/.x.img.0123456789abcdef.part"
    script(
        "worker1",
        f"mkdir {images}/isos {images}/empty; cd {images}; touch isos/debian.iso ghost/thesis.txt;"
        "echo '{}' >notes.json; touch -d '2 hours ago' notes.json",
    )
    script(
        "worker2",
        "ip tuntap add tap_1_eth0 mode tap; ip netns add slice-1; ip link add t5e0x type bridge;"
        f"touch -d '2 hours ago' {leftover};"
        "ovs-vsctl add-port br-int probe_0 external_ids:cloudrepo-probe=1 -- set Interface probe_0 type=internal;"
        "ovs-vsctl add-br br-other; ovs-vsctl add-port br-other gw_vlan4000 -- set Interface gw_vlan4000 type=internal",
    )
    try:
        off = run_playbook("audit_slices", output="json")
        audit = audit_in(off.output)
        items = found(audit, "orphans")
        assert off.rc != 0 and audit["drift"] == []
        assert {key for key in items if key[0] == "worker2"} == {
            ("worker2", "port", "tap_1_eth0"),
            ("worker2", "port", "probe_0"),
            ("worker2", "namespace", "slice-1"),
            ("worker2", "file", leftover),
        }
        kinds = {(item["host"], item["kind"]) for item in audit["orphans"] if item["host"] != "worker2"}
        assert {("worker1", "vm"), ("worker1", "port"), ("worker1", "flows"), ("worker1", "file")} <= kinds
        assert {("network1", "dhcp"), ("network1", "nat"), ("network1", "namespace"), ("network1", "file")} <= kinds
        assert not any(item["slice"] == "aud" for item in audit["orphans"])

        # Somebody else deploys it after the registry was read for the last time.
        read = run_module("network1", "slice_registry", {"path": REGISTRY, "state": "read"})["registry"]
        deployed = run_playbook("deploy_slice", slice_spec=GHOST)
        assert deployed.rc == 0, deployed.output
        nft = "nft list table inet cloudrepo_slices"
        rules = script("network1", nft)
        delete = [nft.replace("list", "delete").split()]
        table = {"slice": "", "kind": "nat", "item": "table cloudrepo_slices", "commands": delete}
        for host, role in (("worker1", "worker"), ("network1", "network")):
            reported = [item for item in audit["orphans"] if item["host"] == host]
            given = {"known": {}, "next_id": read["next_id"], "roles": [role], "base_dir": images}
            given["orphans"] = [*reported, table]
            done = run_module(host, "slice_orphans", given)
            [kept] = done["errors"]
            assert not done["failed"] and kept.startswith('slice "ghost": it has an ID that the registry has not'), done
            assert not any(item["slice"] == "ghost" or item["kind"] == "nat" for item in done["removed"]), done
        assert script("network1", nft) == rules
        script("worker1", "kill -0 $(cat /run/cloudrepo/vms/ghost/g/qemu.pid)")
        again = run_module("network1", "slice_registry", {"path": REGISTRY, "state": "absent", "slice": "ghost"})
        assert not again["failed"]
        items = found(audit_in(run_playbook("audit_slices", output="json").output), "orphans")

        cleaned = run_playbook("audit_slices", output="json", remove_orphans=True)
        audit = audit_in(cleaned.output)
        assert cleaned.rc == 0 and audit["orphans"] == [] and audit["errors"] == [], cleaned.output
        assert found(audit, "removed").keys() == items.keys()
        typo = run_playbook("audit_slices", slice="ghost")
        assert typo.rc != 0 and "there is no slice ghost" in typo.output and "nothing off" not in typo.output
        again = run_playbook("audit_slices")
        assert again.rc == 0 and "nothing off" in again.output, again.output
        everything = "ip -br link; ip netns; ovs-vsctl show; find /var/lib/cloudrepo /run/cloudrepo; ps -eo args"
        assert script("worker1", f"cd {images}; ls -d isos/* empty notes.json ghost/*").split() == [
            *("empty", "ghost/thesis.txt", "isos/debian.iso", "notes.json")
        ]
        script("worker1", f"cd {images}; rm -r isos empty notes.json ghost")
        for host in ("worker1", "network1"):
            assert "ghost" not in script(host, everything)
        assert script("worker1", "cat /run/cloudrepo/vms/aud/a/qemu.pid") == pid
        # Another bridge is not ours, nor is a name that only resembles one.
        assert "gw_vlan4000" in script("worker2", "ovs-vsctl show; ip link show t5e0x")
    finally:
        script("worker2", "ovs-vsctl --if-exists del-br br-other; ip link delete t5e0x")
        # A slice that the registry has forgotten would be in the way of every test that follows.
        run_playbook("audit_slices", remove_orphans=True)
