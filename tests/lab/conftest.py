"""What tests against the lab share. The lab has to be up and prepared: `./bin/test lab` sees to that."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

ROOT = Path(__file__).resolve().parents[2]
_RECAP = re.compile(r"^(\S+) +: (ok=\d+ .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Played:
    """How a playbook ended."""

    rc: int
    output: str
    recap: dict[str, dict[str, int]]

    def total(self, counter: str) -> int:
        """Sum over the hosts of `ok`, `changed`, `failed`, `unreachable`, …"""
        return sum(counters[counter] for counters in self.recap.values())


RunPlaybook = Callable[..., Played]
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _lab_is_up() -> None:
    # A failure, not a skip: a run that tested nothing must not look like one that passed.
    assert Path("/sys/class/net/slmgmt0").exists(), "the lab is down; ./bin/test lab brings it up"


@pytest.fixture(scope="session")
def inventory() -> Path:
    return ROOT / "inventories" / "lab"


@pytest.fixture(scope="session")
def run_playbook() -> RunPlaybook:
    """`run_playbook("deploy_slice", slice="web")` runs it as a user does, from the repository's root.

    `args` are further arguments of ansible-playbook, such as `--check`.
    """

    def run(name: str, *args: str, **extravars: Any) -> Played:
        argv = ["ansible-playbook", f"playbooks/{name}.yml", "--extra-vars", json.dumps(extravars), *args]
        done = subprocess.run(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        recap = {
            host: {key: int(value) for key, value in (pair.split("=") for pair in counters.split())}
            for host, counters in _RECAP.findall(done.stdout)
        }
        return Played(done.returncode, done.stdout, recap)

    return run


@pytest.fixture
def run_module(inventory: Path, tmp_path: Path) -> RunModule:
    """`run_module("worker1", "ovs_vlan", {...}, check=True)` runs one module of ours as root and returns its result.

    With its diff. A module that fails returns too, with `failed` and `msg`. Another collection's module is named
    in full.
    """

    def run(host: str, module: str, args: dict[str, Any], check: bool = False) -> dict[str, Any]:
        runner = ansible_runner.run(
            private_data_dir=str(tmp_path),
            host_pattern=host,
            module=module if "." in module else f"cloudrepo.slices.{module}",
            # No arguments at all: an empty mapping would be taken for free-form ones.
            module_args=json.dumps(args) if args else None,
            inventory=str(inventory),
            cmdline="--become --diff" + (" --check" if check else ""),
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            quiet=True,
        )
        outcomes = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
        ended = [event for event in runner.events if event["event"] in outcomes]
        assert len(ended) == 1, f"{module} on {host}: {runner.stdout.read()}"
        return {**ended[0]["event_data"]["res"], "failed": ended[0]["event"] != "runner_on_ok"}

    return run
