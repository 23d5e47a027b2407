#!/usr/bin/env python3
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write those pages of the documentation site that are made from other files of the repository.

Usage: docs/pages.py FOLDER
The spec's reference comes from the role's argument specifications, which are also what a spec is checked with.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
REPOSITORY = "https://github.com/cloudrepo/slices/blob/main"
Options = Mapping[str, Mapping[str, Any]]

_MARKUP = re.compile(r"\b[CMOV]\((?:slice_spec\.)?([^)]+)\)")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_ROLE = re.compile(r"name: cloudrepo\.slices\.(\w+)(?:\n +tasks_from: (\w+))?")
_SPEC = "slice_spec"
_SPEC_INTRO = """\
.. _ansible_collections.cloudrepo.slices.docsite.spec:

Spec reference
==============

A spec is a YAML mapping. It is the file ``<slices_dir>/NAME.yml``, or the variable ``slice_spec``. This page is
generated from the argument specifications of the role ``cloudrepo.slices.slice``, with which every spec is checked
before any host is asked.
``ansible-doc -t role cloudrepo.slices.slice`` prints the same.

.. literalinclude:: {example}
   :language: yaml

"""


def main(folder: Path) -> None:
    """Write all of them into the folder of the site's sources."""
    (folder / "spec.rst").write_text(spec_reference(folder), encoding="utf-8")
    docs = COLLECTION / "docs"
    for page in docs.glob("*.md"):
        (folder / page.name).write_text(with_links(page.read_text(encoding="utf-8"), docs), encoding="utf-8")


def with_links(markdown: str, docs: Path) -> str:
    """A page of a folder, with its links to what is no page of that folder leading to the repository."""

    def link(found: re.Match[str]) -> str:
        target = (docs / found[1]).resolve()
        if target.suffix == ".md" and target.parent == docs:
            return found[0]
        return f"]({REPOSITORY}/{target.relative_to(ROOT)}"

    return _LINK.sub(link, markdown)


def spec_reference(folder: Path) -> str:
    """The page on specs: what a spec may have, flavors, and the variables of all playbooks."""
    plan: Options = entry_points("slice")["plan"]["options"]
    example = os.path.relpath(ROOT / "inventories" / "lab" / "slices" / "web.yml", folder)
    parts = [_SPEC_INTRO.format(example=example)]
    parts += sections("The slice", "", plan[_SPEC]["options"])
    parts += sections("Flavors", "slices_flavors", plan["slices_flavors"]["options"])
    parts.append(heading("Variables", "-"))
    parts.append(
        "Set them in the inventory (what concerns the whole cluster, in ``group_vars/all``) or with ``-e``.\n\n"
    )
    variables: dict[str, Mapping[str, Any]] = {}
    users: dict[str, list[str]] = {}
    # What a variable means where a slice is deployed comes first.
    for playbook in sorted(
        (COLLECTION / "playbooks").glob("*.yml"), key=lambda path: (path.stem != "deploy_slice", path)
    ):
        for role, entry_point in _ROLE.findall(playbook.read_text(encoding="utf-8")):
            if role != "lab":
                for name, option in entry_points(role)[entry_point or "main"]["options"].items():
                    variables.setdefault(name, option)
                    users.setdefault(name, []).append(playbook.stem)
    parts.append(table({name: variables[name] for name in sorted(variables) if name != _SPEC}, users))
    return "".join(parts)


def entry_points(role: str) -> Mapping[str, Any]:
    """The argument specifications of a role."""
    text = (COLLECTION / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    specs: Mapping[str, Any] = yaml.safe_load(text)["argument_specs"]
    return specs


def sections(title: str, path: str, options: Options) -> Iterator[str]:
    """A section with a table for a mapping, and one for each mapping in it."""
    yield heading(title, "-")
    yield table(options)
    for name, option in options.items():
        if "options" in option:
            inner = f"{path}.{name}" if path else name
            is_list = option["type"] == "list"
            yield from sections(f"``{inner}{'[]' if is_list else ''}``", inner, option["options"])


def heading(title: str, line: str) -> str:
    """A heading of reStructuredText."""
    return f"{title}\n{line * len(title)}\n\n"


def table(options: Options, users: Mapping[str, list[str]] | None = None) -> str:
    """The options, one a row; ``users`` says which playbooks read each."""
    rows = [".. list-table::\n   :header-rows: 1\n   :widths: 22 18 60\n\n", _row("key", "type, default", "what it is")]
    for name, option in options.items():
        text = _text(option["description"])
        if "choices" in option:
            text += " One of " + ", ".join(f"``{choice}``" for choice in option["choices"]) + "."
        if users:
            text += f" (In {', '.join(dict.fromkeys(users[name]))}.)"
        rows.append(_row(f"``{name}``", _kind(option), text))
    return "".join(rows) + "\n"


def _row(first: str, *others: str) -> str:
    return f"   * - {first}\n" + "".join(f"     - {cell}\n" for cell in others)


def _kind(option: Mapping[str, Any]) -> str:
    kind = f"list of {option['elements']}" if option["type"] == "list" else str(option["type"])
    if option.get("required"):
        return f"{kind}, **required**"
    default = option.get("default")
    if default is None:
        return kind
    written = str(default).lower() if isinstance(default, bool) else str(default) or '""'
    return f"{kind}, ``{written}``"


def _text(description: str | list[str]) -> str:
    lines = [description] if isinstance(description, str) else description
    return _MARKUP.sub(r"``\1``", " ".join(" ".join(lines).split())).replace("*", r"\*")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
