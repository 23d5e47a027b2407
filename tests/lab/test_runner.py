"""Operators run the same playbooks from Python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path, inventory: Path) -> Any:
    def run(playbook: str, **extravars: str) -> Any:
        # Its own folder for each run: ansible-runner keeps extravars for later ones.
        return ansible_runner.run(
            private_data_dir=tempfile.mkdtemp(dir=tmp_path),
            project_dir=str(ROOT / "playbooks"),
            playbook=f"{playbook}.yml",
            inventory=str(inventory),
            extravars=extravars,
            envvars={"ANSIBLE_CONFIG": str(ROOT / "playbooks" / "ansible.cfg")},
            quiet=True,
        )

    return run


def _shown_slices(runner: Any) -> dict[str, Any]:
    """What set_stats handed over, by the slice's name."""
    ended = [event for event in runner.events if event["event"] == "playbook_on_stats"]
    return {shown["name"]: shown for shown in ended[-1]["event_data"]["artifact_data"]["slices"]}


def test_runner_deploys_shows_and_deletes(run: Any) -> None:
    try:
        deployed = run("deploy_slice", slice="web")
        assert (deployed.status, deployed.rc) == ("successful", 0), deployed.stdout.read()
        assert deployed.stats["changed"]

        web = _shown_slices(run("show_slices"))["web"]
        assert web["status"] == "running"
        assert [vm["name"] for vm in web["vms"]] == ["web", "db"]
        assert all(vm["pid"] > 1 for vm in web["vms"])
    finally:
        deleted = run("delete_slice", slice="web")
    assert (deleted.status, deleted.rc) == ("successful", 0), deleted.stdout.read()
    assert deleted.stats["changed"]
    assert "web" not in _shown_slices(run("show_slices"))
