"""Jobs as AWX runs them: each on a node of its own, with what AWX was recorded to hand to it, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "tests" / "awx" / "records"
LAUNCHES = json.loads((RECORDS / "launches.json").read_text(encoding="utf-8"))["launches"]
JOB = json.loads((RECORDS / "job.json").read_text(encoding="utf-8"))["job"]
# What AWX 24 writes as a job's inventory.
INVENTORY = "#! /usr/bin/env python3\nprint({text!r})\n"
# A node has its own name, processes and home; nothing of a job stays behind.
NODE = 'hostname "$1" && export HOME="$2/home" && exec ansible-runner run "$2" --playbook "$3" --ident 1'


@dataclass(frozen=True)
class Job:
    """How a job ended."""

    status: str
    output: str
    slices: dict[str, dict[str, Any]]


class Mesh:
    """Execution nodes with an empty disk before each job."""

    def __init__(self, folder: Path, lab: dict[str, Any]) -> None:
        self._folder = folder
        self._known_hosts = Path(lab["known_hosts"]).read_text(encoding="utf-8")
        self._inventory = lab["inventory"]

    def run(self, node: str, user: str, template: str, known_hosts: str = "", **answers: Any) -> Job:
        """Run a job template's playbook on a node, as if ``user`` had launched it with these answers."""
        private = self._folder / node
        self._prepare(private, known_hosts or self._known_hosts)
        (private / "env" / "extravars").write_text(_extravars(user, template, answers), encoding="utf-8")
        playbook = {"show": "show_slices", "audit": "audit_slices"}.get(template, f"{template}_slice")
        node_argv = ["unshare", "--uts", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", NODE, "node"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            [*node_argv, node, str(private), f"playbooks/{playbook}.yml"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        artifacts = private / "artifacts" / "1"
        events = [json.loads(path.read_text(encoding="utf-8")) for path in artifacts.glob("job_events/*.json")]
        ended = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
        slices = ended[0].get("artifact_data", {}).get("slices", []) if ended else []
        status = (artifacts / "status").read_text(encoding="utf-8")
        shutil.rmtree(private)
        return Job(status, done.stdout, {shown["name"]: shown for shown in slices})

    def _prepare(self, private: Path, known_hosts: str) -> None:
        """The private data directory as AWX fills it: a copy of the project, the inventory, the variables."""
        for name in ("home", "env", "inventory", "cp"):
            (private / name).mkdir(parents=True)
        for name in ("collections", "inventories", "playbooks"):
            left_out = shutil.ignore_patterns("__pycache__", "output", ".*")
            shutil.copytree(ROOT / name, private / "project" / name, ignore=left_out)
        shutil.copy(ROOT / "ansible.cfg", private / "project")
        script = private / "inventory" / "hosts"
        script.write_text(INVENTORY.format(text=json.dumps(self._inventory)), encoding="utf-8")
        script.chmod(0o700)
        keys = private / "env" / "known_hosts"
        keys.write_text(known_hosts, encoding="utf-8")
        credential = private / "env" / "credential"
        recorded = JOB["known_hosts_extravars"]
        [path] = {word.split("=")[1] for word in recorded.split() if word.startswith("UserKnownHostsFile=")}
        credential.write_text(recorded.replace(path, str(keys)), encoding="utf-8")
        (private / "env" / "cmdline").write_text(f"-e @{credential}", encoding="utf-8")
        environment = {name: value.replace("/runner", str(private)) for name, value in JOB["environment"].items()}
        (private / "env" / "envvars").write_text(json.dumps(environment), encoding="utf-8")


def _extravars(user: str, template: str, answers: dict[str, Any]) -> str:
    """A job's variables in the form of AWX: survey's defaults, answers, and who launched it."""
    launch = next(launch for launch in LAUNCHES if launch["template"] == template and launch["sound"])
    answered = {**launch["job"]["extra_vars"], "slice": "", **answers}
    own = [line for line in JOB["extravars"].splitlines() if line.startswith(("!unsafe 'awx_", "!unsafe 'tower_"))]
    survey = [f"!unsafe '{name}': !unsafe {json.dumps(value)}" for name, value in answered.items()]
    return "\n".join([*survey, *own]).replace("'alice'", f"'{user}'") + "\n"


@pytest.fixture(scope="module")
def lab(inventory: Path) -> dict[str, Any]:
    """The lab's inventory as AWX imports it, without what a controller keeps: control sockets and known hosts."""
    argv = ["ansible-inventory", "-i", str(inventory / "hosts.yml"), "--list", "--export"]
    exported = json.loads(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    variables = exported["all"]["vars"]
    del variables["ansible_control_path_dir"]
    words = variables["ansible_ssh_args"].split(" -o ")
    [known_hosts] = [word.split("=")[1] for word in words if word.startswith("UserKnownHostsFile=")]
    variables["ansible_ssh_args"] = " -o ".join(
        word for word in words if "KnownHosts" not in word and "HostKey" not in word
    )
    return {"inventory": exported, "known_hosts": known_hosts}


@pytest.fixture
def mesh(tmp_path: Path, lab: dict[str, Any]) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path, lab)
    yield mesh
    for name, owner in (("one", "alice"), ("two", "bob")):
        assert mesh.run("node3", owner, "delete", slice=name).status == "successful"


def spec(name: str) -> str:
    return f"{{name: {name}, topology: {{type: line, vms: 2, flavor: cirros}}}}"


def test_jobs_on_two_nodes_share_the_registry_and_nothing_else(mesh: Mesh) -> None:
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(mesh.run, "node1", "alice", "deploy", slice_spec=spec("one")),
            pool.submit(mesh.run, "node2", "bob", "deploy", slice_spec=spec("two")),
        ]
        one, two = (job.result() for job in jobs)
    assert (one.status, two.status) == ("successful", "successful"), one.output + two.output
    assert (one.slices["one"]["owner"], two.slices["two"]["owner"]) == ("alice", "bob")

    shown = mesh.run("node1", "alice", "show")
    assert {name: record["status"] for name, record in shown.slices.items()} == {"one": "running", "two": "running"}
    vms = [vm for record in shown.slices.values() for vm in record["vms"]]
    assert len({vm["id"] for vm in vms}) == len({vm["vnc_port"] for vm in vms}) == 4
    assert all(vm["pid"] for vm in vms)

    refused = mesh.run("node1", "bob", "delete", slice="one")
    assert (refused.status, "may not" in refused.output) == ("failed", True), refused.output
    # The node that deployed it is not needed. In a workflow, a job also has what one before it left in its artifacts.
    deleted = mesh.run("node2", "alice", "delete", slice="one", slices=list(one.slices.values()))
    assert deleted.status == "successful", deleted.output
    assert mesh.run("node1", "bob", "show").slices.keys() == {"two"}


def test_a_named_spec_is_designed_and_texts_are_true_or_false(mesh: Mesh) -> None:
    """A spec of the project by its name, and an audit whose survey answers are texts, as AWX has no boolean."""
    designed = mesh.run("node1", "alice", "design", slice="web", slices_dir="inventories/lab/slices")
    assert designed.slices["web"]["status"] == "design", designed.output
    audited = mesh.run("node2", "bob", "audit", probe="true")
    assert (audited.status, "nothing off" in audited.output) == ("successful", True), audited.output
    refused = mesh.run("node2", "bob", "audit", remove_orphans="true")
    assert (refused.status, "is for slices_admins" in refused.output) == ("failed", True), refused.output
    assert mesh.run("node1", "alice", "delete", slice="web").status == "successful"


def test_a_job_expects_the_host_keys_of_its_credential(mesh: Mesh) -> None:
    """Though AWX switches the check off."""
    assert JOB["environment"]["ANSIBLE_HOST_KEY_CHECKING"] == "False"
    assert mesh.run("node1", "alice", "show").status == "successful"
    stranger = mesh.run("node2", "alice", "show", known_hosts="192.0.2.1 ssh-ed25519 AAAA\n")
    assert stranger.status == "failed"
    assert "Host key verification failed" in stranger.output
