# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation says what the code does: every error has its cure, every spec on a page is one."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import load_schema, parse_spec
from jinja2 import Environment, nodes

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
PLUGINS = COLLECTION / "plugins"
PAGES = sorted((COLLECTION / "docs" / "docsite" / "rst").glob("*.rst"))

# What users meet: everything that refuses what they wrote, or what they ask for. Hosts' modules have many more.
TOLD = {"SpecError", "RebuildError", "AnsibleActionFail", "RegistryError"}
SOURCES = [
    *PLUGINS.glob("plugin_utils/*.py"),
    *PLUGINS.glob("action/*.py"),
    *PLUGINS.glob("module_utils/_registry*.py"),
]
ANYTHING = "\0"


def template(node: ast.AST) -> str:
    """A text of the code, with a mark wherever it has a value."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ANYTHING
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return re.sub(r"%[-.0-9]*[a-z]", ANYTHING, template(node.left))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return ANYTHING


def raised(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        error = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(error, ast.Call) and error.args and ast.unparse(error.func).rpartition(".")[2] in TOLD:
            yield template(error.args[0])


def written(node: nodes.Node) -> list[str]:
    """What a Jinja expression can become."""
    match node:
        case nodes.TemplateData() | nodes.Const():
            return [str(getattr(node, "data", None) or getattr(node, "value", ""))]
        case nodes.Output() | nodes.Concat():
            return ["".join(parts) for parts in itertools.product(*map(written, node.nodes))]
        case nodes.CondExpr():
            either = written(node.expr1) + (written(node.expr2) if node.expr2 else [""])
            return either if all(either) else [ANYTHING]
        case nodes.Filter(name="ternary"):
            return [text for argument in node.args for text in written(argument)]
    return [ANYTHING]


class _Loader(yaml.SafeLoader):
    """Knows Ansible's tag for what is no template."""


_Loader.add_constructor("!unsafe", lambda _loader, node: str(node.value))


def load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def played() -> Iterator[list[dict[str, Any]]]:
    for path in sorted(COLLECTION.glob("playbooks/*.yml")):
        for play in load(path):
            for section in ("pre_tasks", "tasks", "post_tasks", "handlers"):
                yield play.get(section, [])


def reported() -> Iterator[str]:
    """What the tasks of roles and playbooks say when they stop."""
    environment = Environment()
    for tasks in [*map(load, sorted(COLLECTION.glob("roles/*/tasks/*.yml"))), *played()]:
        for task in tasks:
            for each in [task, *task.get("block", ()), *task.get("rescue", ())]:
                said = each.get("ansible.builtin.assert", {}).get("fail_msg")
                said = said or each.get("cloudrepo.slices.slice_report", {}).get("failure")
                if said:
                    (output,) = environment.parse(said).body
                    yield from written(output)


MESSAGES = sorted({text for path in SOURCES for text in raised(path)} | set(reported()))


def pattern(message: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in message.split(ANYTHING)))


def letters(text: str) -> int:
    """How much of a text is words."""
    return sum(len(word) for word in re.findall("[a-z]{2,}", text))


@pytest.fixture(scope="module")
def listed() -> list[str]:
    """The messages on the page on troubleshooting."""
    text = (COLLECTION / "docs" / "docsite" / "rst" / "troubleshooting.rst").read_text(encoding="utf-8")
    return re.findall(r"^``((?:(?!``).)+)``\n   \S", text, re.MULTILINE)


@pytest.mark.parametrize("message", [message for message in MESSAGES if re.search("[a-z]{4}", message)])
def test_every_message_has_its_cure(message: str, listed: list[str]) -> None:
    assert any(pattern(message).fullmatch(line) for line in listed), message.replace(ANYTHING, "…")


def test_no_message_is_made_up(listed: list[str]) -> None:
    """Each line of the page is one that some text of the code, with values in it, becomes."""
    said = set(MESSAGES) - {"slice \0: \0", "registry \0: \0"}  # They become anything.
    texts = set()
    for path in PLUGINS.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)):
                texts.add(template(node))
    whole = [pattern(text) for text in said | texts if letters(text) >= (5 if text in said else 9)]
    parts = [pattern(text) for text in texts if letters(text) >= 12]
    assert len(listed) > 100
    unknown = [line for line in listed if not any(each.fullmatch(line) for each in whole)]
    assert [line for line in unknown if not any(each.search(line) for each in parts)] == []


def examples() -> Iterator[Any]:
    for page in [*PAGES, ROOT / "docs" / "index.rst"]:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)):
            document = yaml.safe_load(block)
            if isinstance(document, dict) and document.keys() <= load_schema()["slice_spec"]["options"].keys():
                yield pytest.param(document, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("spec", list(examples()))
def test_every_spec_on_a_page_is_one(spec: dict[str, Any]) -> None:
    assert parse_spec({"name": "example", **spec}).vms


def test_every_page_is_in_the_table_of_contents() -> None:
    named = (ROOT / "docs" / "index.rst").read_text(encoding="utf-8")
    extra = yaml.safe_load((COLLECTION / "docs" / "docsite" / "extra-docs.yml").read_text(encoding="utf-8"))
    in_collection = [page for section in extra["sections"] for page in section["toctree"]]
    assert sorted(in_collection) == [page.stem for page in PAGES]
    assert sorted(re.findall(r"slices/docsite/(\w+)", named)) == [page.stem for page in PAGES]
