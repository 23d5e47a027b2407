# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection says of itself is what it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

COLLECTION = Path(__file__).parents[2]
ROLE = COLLECTION / "roles" / "slice"
ROLE_SPECS = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
WORD = re.compile(r"\b[a-z_]+\b")


def test_the_action_group_has_every_module_and_action() -> None:
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    plugins = COLLECTION / "plugins"
    there = {path.stem for kind in ("modules", "action") for path in (plugins / kind).glob("*.py")}
    assert runtime["action_groups"]["slices"] == sorted(there - {"__init__"})


def tasks_text(name: str) -> str:
    """What the tasks of a file say, and those that it imports or includes."""
    lines = (ROLE / "tasks" / f"{name}.yml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    files = [
        name for line in re.findall(r"(?:import|include)_tasks: (.*)", text) for name in re.findall(r"(\w+)\.yml", line)
    ]
    return "\n".join([text, *map(tasks_text, files)])


def options_used(text: str) -> set[str]:
    """The role's options that are named in a text, or in a variable of the role that is."""
    options, variables = (
        yaml.safe_load((ROLE / folder / "main.yml").read_text(encoding="utf-8")) for folder in ("defaults", "vars")
    )
    found, todo = set(), set(WORD.findall(text))
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo |= set(WORD.findall(str(variables.get(name, "")))) - found
    # The action plugins take it from the variable, as it may have a password.
    return (found & set(options)) | ({"slices_registry_url"} if "slices_registry_path" in found else set())


@pytest.mark.parametrize("entry", sorted(ROLE_SPECS))
def test_an_entry_point_names_every_option_that_its_tasks_read(entry: str) -> None:
    assert options_used(tasks_text(entry)) <= set(ROLE_SPECS[entry].get("options", {}))
