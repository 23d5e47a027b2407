# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks from Python: by the package cloudrepo_slices, by ansible-runner itself, and sent to another node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml
from cloudrepo_slices import Event, Failure, SliceCancelled, SliceError, audit, delete, deploy, design, show

from .packets import lab_run

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "lab" / "hosts.yml"
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
LAB: dict[str, Any] = {"inventory": INVENTORY, "project_dir": ROOT}
# Guests answer probes once they have booted.
BOOTED = {"slices_wait_for_leases": True, "slices_lease_timeout": 300}
RING = {"name": "runner-ring", "topology": {"type": "ring", "vms": 6, "flavor": "cirros"}}
PAIR = {
    "name": "runner-pair",
    "owner": "alice",
    "vms": [{"name": "a", "flavor": "cirros", "internet": True}, {"name": "b", "flavor": "cirros"}],
    "links": [{"name": "wire", "endpoints": ["a", "b"]}],
}


# --- The package


def test_design_deploy_show_audit_and_delete() -> None:
    events: list[Event] = []
    try:
        designed = design(PAIR, **LAB)
        assert (designed.slice.status, designed.changed, designed.vms[0].console) == ("design", True, None)

        deployed = deploy(PAIR, extra_vars=BOOTED, on_event=events.append, **LAB)
        assert (deployed.slice.status, deployed.slice.owner, deployed.changed) == ("running", "alice", True)
        assert [vm.id for vm in deployed.vms] == [vm.id for vm in designed.vms]
        [wire] = deployed.links
        assert (wire.name, wire.endpoints, wire.vlan in deployed.slice.vlans) == ("wire", ("a:eth1", "b:eth1"), True)
        a = deployed.vms[0]
        assert (a.name, a.state, a.addresses[0].startswith("10.60.7.")) == ("a", "running", True)
        # What is said of it is there, on its worker.
        screen = f"/dev/tcp/127.0.0.1/{a.vnc_port}"
        seen = lab_run(
            a.worker, "bash", "-c", f"test -S {a.console} && test -d /proc/{a.pid} && exec 3<>{screen} && echo yes"
        )
        assert seen == "yes\n"

        steps = {step.name: step for step in deployed.steps}
        assert set(steps["Ask every host what it has"].hosts) == {"worker1", "worker2", "worker3", "network1"}
        assert sum(step.seconds for step in deployed.steps) < deployed.seconds
        assert [event.step for event in events if event.host is None] == list(steps)
        assert {event.status for event in events} >= {"started", "ok", "changed", "skipped"}

        again = deploy(PAIR, extra_vars={"slices_nic_offload": True}, **LAB)
        assert not again.changed and again.slice == deployed.slice
        assert any("vm a: nic_offload False -> True needs a restart" in warning for warning in again.warnings)

        assert show("runner-pair", **LAB).slices == (deployed.slice,)
        audited = audit("runner-pair", probe=True, **LAB)
        assert (audited.sound, audited.slices, audited.drift) == (True, ("runner-pair",), ())
        assert audited.probes and not any(probe.failed for probe in audited.probes)

        lab_run(a.worker, "kill", "-9", str(a.pid))
        audited = audit("runner-pair", **LAB)
        assert not audited.sound and "1 drift" in audited.summary
        assert [(found.host, found.kind, found.item) for found in audited.drift] == [(a.worker, "vm", "a")]
        assert audited.failed and audited.failed.step == "Fail if anything is"
    finally:
        deleted = delete("runner-pair", **LAB)
    assert deleted.changed
    assert not delete("runner-pair", **LAB).changed
    with pytest.raises(SliceError, match=r"^there is no slice runner-pair$"):
        show("runner-pair", **LAB)


def test_a_deploy_that_fails_says_where_and_why_in_one_line() -> None:
    try:
        with pytest.raises(SliceError) as caught:
            deploy(PAIR, extra_vars={"slices_uplink_interface": "nosuch0"}, **LAB)
        reason = "network1: uplink nosuch0 does not exist"
        assert str(caught.value) == f"slice runner-pair failed: {reason}; what it had made is removed"
        step = "Create disks and ports, serve DHCP and NAT, start the VMs"
        assert caught.value.result.failed == Failure(step, "network1", "uplink nosuch0 does not exist")
        [failed] = show("runner-pair", **LAB).slices
        assert failed.status == "failed" and failed.reason.startswith(reason)
    finally:
        delete("runner-pair", **LAB)


@pytest.mark.parametrize("what_next", ["deploy", "delete"])
def test_cancelled_in_the_middle(what_next: str) -> None:
    """The run is cancelled as soon as one of its six QEMUs is there."""
    try:
        with pytest.raises(SliceCancelled, match=r"^the run was cancelled$"):
            deploy(RING, cancel=lambda: b"/runner-ring/" in b"".join(_qemus()), **LAB)
        assert _survivors() == []
        [left] = show("runner-ring", **LAB).slices
        assert left.status == "deploying"
        if what_next == "deploy":
            deployed = deploy(RING, extra_vars=BOOTED, **LAB)
            assert deployed.slice.status == "running" and {vm.state for vm in deployed.vms} == {"running"}
            assert deployed.links == left.links
            assert [(vm.id, vm.worker, vm.interfaces) for vm in deployed.vms] == [
                (vm.id, vm.worker, vm.interfaces) for vm in left.vms
            ]
            audited = audit("runner-ring", probe=True, **LAB)
            off = [*audited.drift, *audited.orphans, *(probe for probe in audited.probes if probe.failed)]
            assert (audited.sound, off) == (True, [])
    finally:
        assert delete("runner-ring", **LAB).changed
    assert audit(**LAB).orphans == ()
    assert b"/runner-ring/" not in b"".join(_qemus())


def _qemus() -> list[bytes]:
    return [command for command in _commands() if b"qemu-system" in command.split(b"\0")[0]]


def _survivors() -> list[bytes]:
    """What is left of runs of the package: Ansible, or a connection that is no shared one."""
    return [command for command in _commands() if b"cloudrepo-slices-" in command]


def _commands() -> list[bytes]:
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            commands.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return commands


def test_an_unknown_host_key_is_refused(tmp_path: Path) -> None:
    """The package has them checked. ansible-runner alone has not, unless the inventory says so, as our example does."""
    example = yaml.safe_load((ROOT / "inventories" / "example" / "group_vars" / "all.yml").read_text())
    inventory = tmp_path / "inventory"
    shutil.copytree(INVENTORY.parent, inventory)
    group_vars = inventory / "group_vars" / "all.yml"
    settings = yaml.safe_load(group_vars.read_text())
    settings["ansible_ssh_args"] = "-F none -o BindInterface=slmgmt0 -o UserKnownHostsFile=/dev/null"
    settings["ansible_control_path_dir"] = str(tmp_path / "cm")
    group_vars.write_text(yaml.safe_dump(settings))
    with pytest.raises(SliceError, match="Host key verification failed"):
        show(inventory=inventory / "hosts.yml", project_dir=ROOT)

    group_vars.write_text(
        yaml.safe_dump({**settings, "ansible_host_key_checking": example["ansible_host_key_checking"]})
    )
    runner = ansible_runner.run(
        private_data_dir=str(tmp_path),
        project_dir=str(ROOT / "playbooks"),
        playbook="show_slices.yml",
        inventory=str(inventory / "hosts.yml"),
    )
    assert (runner.status, "Host key verification failed" in runner.stdout.read()) == ("failed", True)


# --- ansible-runner itself


def test_plain_ansible_runner(tmp_path: Path) -> None:
    def run(playbook: str) -> Any:
        # A folder for each run: ansible-runner keeps extravars for later ones.
        runner = ansible_runner.run(
            private_data_dir=tempfile.mkdtemp(dir=tmp_path),
            project_dir=str(ROOT / "playbooks"),
            playbook=playbook,
            extravars={"slice": "web"},
        )
        assert (runner.status, runner.rc) == ("successful", 0), runner.stdout.read()
        return runner

    try:
        assert run("deploy_slice.yml").stats["changed"]
        [web] = _handed_over(run("show_slices.yml").events)["slices"]
        assert (web["name"], web["status"], [vm["name"] for vm in web["vms"]]) == ("web", "running", ["web", "db"])
        assert all(vm["pid"] > 1 for vm in web["vms"])
    finally:
        assert run("delete_slice.yml").stats["changed"]
    assert "web" not in [found.name for found in show(**LAB).slices]


def _handed_over(events: Any) -> Any:
    """What set_stats handed over."""
    [ended] = [event for event in events if event["event"] == "playbook_on_stats"]
    return ended["event_data"]["artifact_data"]


@pytest.fixture
def send(tmp_path: Path) -> Callable[[str, dict[str, Any]], Path]:
    """`send("deploy_slice", {...})` has a node run a job as AWX does, and returns the job's artifacts.

    The node has a folder of its own, and nothing of this repository, of the lab's keys or of who sent the job.
    """

    def run(playbook: str, extravars: dict[str, Any]) -> Path:
        sender, node, receiver = (Path(tempfile.mkdtemp(dir=tmp_path, prefix=name)) for name in ("from", "node", "to"))
        _pack(sender, extravars)
        hidden = [ROOT / name for name in ("collections", "inventories", "playbooks", "python", "tests")]
        hidden += [sender, Path("/var/cache/cloudrepo-lab"), Path("/var/lib/cloudrepo-lab")]
        hide = "for folder; do mount -t tmpfs none $folder || exit 9; done"
        bare = f"env -i PATH={os.environ['PATH']} HOME={node} TMPDIR={node} LC_ALL=C.UTF-8"
        on_node = f"{hide}; cd {node} && exec {bare} ansible-runner worker"
        arguments = ["--inventory", "hosts.yml", "-p", f"{playbook}.yml"]
        sent = subprocess.run(["ansible-runner", "transmit", sender, *arguments], stdout=subprocess.PIPE, check=True)
        answered = subprocess.run(
            ["unshare", "--mount", "bash", "-c", on_node, "node", *hidden], input=sent.stdout, stdout=subprocess.PIPE
        )
        done = subprocess.run(["ansible-runner", "process", receiver], input=answered.stdout, stdout=subprocess.DEVNULL)
        assert done.returncode == 0
        # What Ansible keeps at home is all that is left.
        assert {path.name for path in node.iterdir()} <= {".ansible", ".ssh"}
        return receiver / "artifacts"

    return run


def _pack(folder: Path, extravars: dict[str, Any]) -> None:
    """All that a job needs: the collection, an inventory with specs and known hosts, images, the key, variables."""
    lab = Path("/var/cache/cloudrepo-lab")
    project, inventory, env, images = (folder / name for name in ("project", "inventory", "env", "images"))
    shutil.copytree(ROOT / "playbooks", project)
    shutil.copytree(COLLECTION, project / COLLECTION.relative_to(ROOT), ignore=shutil.ignore_patterns("tests"))
    config = (ROOT / "ansible.cfg").read_text().replace("inventory = inventories/lab/hosts.yml\n", "")
    (project / "ansible.cfg").write_text(config)
    shutil.copytree(INVENTORY.parent, inventory)
    settings = yaml.safe_load((inventory / "group_vars" / "all.yml").read_text())
    del settings["ansible_ssh_private_key_file"], settings["ansible_control_path_dir"]
    settings["ansible_ssh_args"] = (
        "-F none -o BindInterface=slmgmt0 -o StrictHostKeyChecking=yes"
        " -o UserKnownHostsFile={{ inventory_dir }}/known_hosts"
    )
    # localhost is no host of the inventory, and knows nothing of its folder.
    settings["slices_image_dir"] = "{{ hostvars.network1.inventory_dir }}/../images"
    (inventory / "group_vars" / "all.yml").write_text(yaml.safe_dump(settings))
    (inventory / "slices" / "sent.yml").write_text(yaml.safe_dump({**RING, "name": "sent"}))
    shutil.copy("/var/lib/cloudrepo-lab/known_hosts", inventory)
    images.mkdir()
    shutil.copy(lab / "images" / "cirros-0.6.2-x86_64-disk.img", images)
    env.mkdir()
    shutil.copy(lab / "id_ed25519", env / "ssh_key")
    (env / "extravars").write_text(json.dumps(extravars))


def test_a_job_runs_with_nothing_but_what_was_transmitted(send: Callable[[str, dict[str, Any]], Path]) -> None:
    # A cache of its own: the workers have no base image yet.
    elsewhere = {"slice": "sent", "slices_base_dir": "/var/lib/cloudrepo/sent_images"}
    try:
        artifacts = send("deploy_slice", elsewhere)
        assert (artifacts / "status").read_text() == "successful", (artifacts / "stdout").read_text()
        events = [json.loads(path.read_text()) for path in (artifacts / "job_events").glob("*.json")]
        [sent] = _handed_over(events)["slices"]
        assert sent["status"] == "running" and all(vm["state"] == "running" for vm in sent["vms"])
    finally:
        artifacts = send("delete_slice", elsewhere)
        for worker in ("worker1", "worker2", "worker3"):
            lab_run(worker, "rm", "-rf", "/var/lib/cloudrepo/sent_images")
    assert (artifacts / "status").read_text() == "successful", (artifacts / "stdout").read_text()


def test_a_job_that_fails_is_known_by_its_artifacts(send: Callable[[str, dict[str, Any]], Path]) -> None:
    """`process` itself ends with 0."""
    artifacts = send("deploy_slice", {"slice": "ghost"})
    assert ((artifacts / "status").read_text(), (artifacts / "rc").read_text()) == ("failed", "2")
    assert "there is no spec" in (artifacts / "stdout").read_text()
