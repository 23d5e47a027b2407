"""The execution environment has what the collection asks for, and the collection itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def _run(*argv: str | Path, cwd: Path) -> str:
    # An ansible.cfg of the repository's would say that the collection is installed already.
    environ = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    done = subprocess.run([str(arg) for arg in argv], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_what_the_collection_needs(tmp_path: Path) -> None:
    context, collections = tmp_path / "context", tmp_path / "collections"
    _run("ansible-builder", "create", "--file", ROOT / "execution-environment.yml", "--context", context, cwd=tmp_path)

    # What the image's build does with the context, up to where it would install packages.
    _run(
        *("ansible-galaxy", "collection", "install", "--offline", "-r", "requirements.yml", "-p", collections),
        cwd=context / "_build",
    )
    assert (collections / "ansible_collections/cloudrepo/slices/playbooks/deploy_slice.yml").is_file()
    needed = yaml.safe_load(_run("ansible-builder", "introspect", collections, cwd=tmp_path))
    assert [line.split()[0] for line in needed["python"]] == ["netaddr>=1.0.0", "psycopg[binary]>=3.1"], needed
    assert needed["system"][0].startswith("openssh-client"), needed


def test_its_ansible_is_the_one_that_is_tested() -> None:
    definition = yaml.safe_load((ROOT / "execution-environment.yml").read_text(encoding="utf-8"))
    tested = re.findall(r"^(ansible-(?:core|runner)==\S+?);?(?: .*)?$", _requirements(), flags=re.MULTILINE)
    dependencies = definition["dependencies"]
    assert dependencies["ansible_core"]["package_pip"] in tested
    assert dependencies["ansible_runner"]["package_pip"] in tested


def _requirements() -> str:
    return "".join((ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-dev.txt"))
