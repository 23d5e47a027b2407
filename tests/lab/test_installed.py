# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stranger's way: the built collection, installed into an empty path, with the files of the page Getting started."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
PAGE = COLLECTION / "docs" / "docsite" / "rst" / "getting_started.rst"


def block_with(key: str) -> str:
    """The first block of YAML on the page that has the key."""
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", text, re.MULTILINE):
        if key in yaml.safe_load(block):
            return str(block)
    raise AssertionError(f"{PAGE.name} has no block with {key}")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs a command in a folder that was empty, with the collection and no configuration of Ansible's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "installed"), "ANSIBLE_HOME": str(tmp_path / "home")}

    def command(*argv: str) -> str:
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command("ansible-galaxy", "collection", "build", str(COLLECTION))
    (tarball,) = tmp_path.glob("cloudrepo-slices-*.tar.gz")
    command("ansible-galaxy", "collection", "install", "--offline", tarball.name, "-p", "installed")
    return command


def test_a_stranger_deploys_from_an_empty_folder(tmp_path: Path, run: Callable[..., str]) -> None:
    (tmp_path / "lab" / "slices").mkdir(parents=True)
    (tmp_path / "lab" / "hosts.yml").write_text(block_with("workers"), encoding="utf-8")
    (tmp_path / "lab" / "slices" / "web.yml").write_text(block_with("vms"), encoding="utf-8")

    def play(name: str, *args: str) -> str:
        return run("ansible-playbook", "-i", "lab/hosts.yml", f"cloudrepo.slices.{name}", "-e", "slice=web", *args)

    def running() -> list[Any]:
        shown = play("show_slices", "-e", "output=json")
        (record,) = json.loads(shown[shown.index("\n{\n") : shown.index("\n}\n") + 3])["slices"]
        return [record["status"], *((vm["name"], vm["state"]) for vm in record["vms"])]

    try:
        assert "Slice " in play("deploy_slice")
        assert running() == ["running", ("web", "running"), ("db", "running")]
        assert re.findall(r"changed=(\d+)", play("deploy_slice")) == ["0"] * 5
    finally:
        assert "is deleted" in play("delete_slice")
