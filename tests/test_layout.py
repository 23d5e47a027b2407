"""The playbooks run from the repository's root, from inside playbooks/, and out of the installed collection."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
PLAYBOOKS = sorted(path.name for path in (COLLECTION / "playbooks").glob("*.yml"))
LAB = ["network1", "worker1", "worker2", "worker3"]


def ansible(*argv: str, cwd: Path, **environ: str) -> str:
    """Standard output of an Ansible command that finds its own ansible.cfg."""
    inherited = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    done = subprocess.run(argv, cwd=cwd, env=inherited | environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_each_playbook_of_the_collection_is_at_the_root_too() -> None:
    expected = "deploy_slice delete_slice show_slices audit_slices design_slice prepare_hosts lab_up lab_down".split()
    expected += ["awx_setup", "backup_registry", "migrate_registry", "rebuild_registry"]
    assert sorted(f"{name}.yml" for name in expected) == PLAYBOOKS
    assert sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")) == PLAYBOOKS


@pytest.mark.parametrize("folder", [".", "playbooks"])
def test_the_lab_is_the_inventory_everywhere(folder: str) -> None:
    inventory = json.loads(ansible("ansible-inventory", "--list", cwd=ROOT / folder))
    assert sorted(inventory["_meta"]["hostvars"]) == LAB
    assert inventory["network_node"]["hosts"] == ["network1"]


def test_the_settings_differ_in_paths_only() -> None:
    root, playbooks = ((ROOT / folder / "ansible.cfg").read_text(encoding="utf-8") for folder in (".", "playbooks"))
    assert root == playbooks.replace(" ../", " ")


@pytest.mark.parametrize("folder", [".", "playbooks"])
def test_playbooks_are_found(folder: str) -> None:
    paths = [f"playbooks/{name}" if folder == "." else name for name in PLAYBOOKS]
    output = ansible("ansible-playbook", "--syntax-check", *paths, cwd=ROOT / folder)
    assert output.count("playbook: ") == len(PLAYBOOKS)


def test_the_installed_collection_has_everything(tmp_path: Path) -> None:
    ansible("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(COLLECTION), cwd=tmp_path)
    (tarball,) = tmp_path.glob("*.tar.gz")
    installed = tmp_path / "collections"
    ansible("ansible-galaxy", "collection", "install", "--offline", "-p", str(installed), str(tarball), cwd=tmp_path)
    names = [f"cloudrepo.slices.{name.removesuffix('.yml')}" for name in PLAYBOOKS]
    output = ansible(
        "ansible-playbook", "--syntax-check", *names, cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed)
    )
    assert output.count("playbook: ") == len(PLAYBOOKS)


def test_every_promise_names_a_test_that_there_is() -> None:
    text = (COLLECTION / "docs" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[^`:]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 30
    for path, test in named:
        file = (COLLECTION if path.startswith("tests/unit/") else ROOT) / path
        assert f"def {test or 'test_'}" in file.read_text(encoding="utf-8"), f"{path}::{test}"


def test_every_link_between_documents_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *COLLECTION.glob("*.md"), *(COLLECTION / "docs").glob("*.md")]
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    ]
    assert len(links) > 5
    assert [f"{document.name}: {link}" for document, link in links if not (document.parent / link).exists()] == []
