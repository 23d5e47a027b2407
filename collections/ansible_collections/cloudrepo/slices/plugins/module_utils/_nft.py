# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nftables: one table as text for ``nft -f`` and as ``nft -j list table`` prints it. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

# By set, the comment of each element.
Elements = Mapping[str, Mapping[str, str]]


class Rule(NamedTuple):
    """A rule and what it is there for."""

    text: str
    why: str

    def comment(self) -> str:
        """What tells whether the rule is in the kernel: every nft prints rules differently, but not comments."""
        return "%s #%s" % (self.why, hashlib.sha256(self.text.encode()).hexdigest()[:8])


class Chain(NamedTuple):
    """A base chain; what no rule judges, it accepts."""

    kind: str
    hook: str
    priority: int
    rules: Sequence[Rule]


class Table(NamedTuple):
    """A table without the elements of its sets; a set is given by its type, with "interval" where it has prefixes."""

    name: str
    sets: Mapping[str, str]
    chains: Mapping[str, Chain]


class Listing(NamedTuple):
    """A table that exists: its shape, as ``shape`` gives that of a wanted one, and the elements of its sets."""

    shape: Dict[str, Any]
    elements: Dict[str, Dict[str, str]]


def listing(name: str) -> List[str]:
    """The argument list that prints what ``parse`` reads."""
    return ["nft", "-j", "list", "table", "inet", name]


def script() -> List[str]:
    """The argument list that does everything on its standard input in one transaction, or nothing."""
    return ["nft", "-f", "-"]


def shape(table: Table) -> Dict[str, Any]:
    """Everything of a table but the elements of its sets, comparable with that of a ``Listing``."""
    return {
        "sets": dict(table.sets),
        "chains": {
            name: [_base(chain.kind, chain.hook, chain.priority)] + [rule.comment() for rule in chain.rules]
            for name, chain in table.chains.items()
        },
    }


def parse(text: str) -> Listing:
    """What ``listing`` printed."""
    sets: Dict[str, str] = {}
    elements: Dict[str, Dict[str, str]] = {}
    chains: Dict[str, List[str]] = {}
    for item in json.loads(text)["nftables"]:
        kind, content = next(iter(item.items()))
        if kind == "set":
            sets[content["name"]] = _set_type(content)
            elements[content["name"]] = dict(_element(element) for element in content.get("elem", []))
        elif kind == "chain":
            chains[content["name"]] = [_base(content.get("type"), content.get("hook"), content.get("prio"))]
        elif kind == "rule":
            chains[content["chain"]].append(content.get("comment", "a rule of somebody else"))
    return Listing({"sets": sets, "chains": chains}, elements)


def replace_table(table: Table, elements: Elements) -> str:
    """A script that puts a table in the place of the one that is there, if one is."""
    lines = ["table inet %s {" % table.name, "}", "delete table inet %s" % table.name, "table inet %s {" % table.name]
    for name, kind in table.sets.items():
        lines += ["  set %s {" % name, *_set_lines(kind, elements.get(name, {})), "  }"]
    for name, chain in table.chains.items():
        lines += ["  chain %s {" % name, "    %s; policy accept;" % _base(chain.kind, chain.hook, chain.priority)]
        lines += ['    %s comment "%s"' % (rule.text, rule.comment()) for rule in chain.rules] + ["  }"]
    return "".join(line + "\n" for line in [*lines, "}"])


def change_elements(table: str, before: Elements, after: Elements) -> str:
    """A script that replaces elements of a table's sets, and leaves all others."""
    lines = []
    for verb, elements in (("delete", before), ("add", after)):
        for name, values in elements.items():
            if values:
                lines.append("%s element inet %s %s { %s }\n" % (verb, table, name, _joined(values)))
    return "".join(lines)


def delete_table(table: str) -> str:
    """A script that deletes a table."""
    return "delete table inet %s\n" % table


def delete_element_argv(table: str, name: str, value: str) -> List[str]:
    """The argument list that deletes one element of a set."""
    return ["nft", "delete", "element", "inet", table, name, "{ %s }" % value]


def delete_table_argv(table: str) -> List[str]:
    """The argument list that deletes a table."""
    return ["nft", "delete", "table", "inet", table]


def _base(kind: Any, hook: Any, priority: Any) -> str:
    return "type %s hook %s priority %s" % (kind, hook, priority)


def _set_lines(kind: str, elements: Mapping[str, str]) -> Iterable[str]:
    words = kind.split(" ")
    flags = words.pop() if words[-1] == "interval" else ""
    yield "    type %s" % " ".join(words)
    if flags:
        yield "    flags %s" % flags
    if elements:
        yield "    elements = { %s }" % _joined(elements)


def _joined(elements: Mapping[str, str]) -> str:
    return ", ".join('%s comment "%s"' % (value, comment) if comment else value for value, comment in elements.items())


def _set_type(content: Mapping[str, Any]) -> str:
    kind = content["type"] if isinstance(content["type"], str) else " . ".join(content["type"])
    return " ".join([kind, *content.get("flags", [])])


def _element(element: Any) -> Tuple[str, str]:
    if isinstance(element, dict) and "elem" in element:
        return _value(element["elem"]["val"]), element["elem"].get("comment", "")
    return _value(element), ""


def _value(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    kind, content = next(iter(value.items()))
    if kind == "concat":
        return " . ".join(_value(part) for part in content)
    if kind == "prefix":
        return "%s/%d" % (content["addr"], content["len"])
    return "-".join(_value(part) for part in content)
