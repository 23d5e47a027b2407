# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit as JUnit XML, as Jenkins and GitLab read it: a suite for each slice, for hosts and for orphans. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ._audit import orphan_sentence, sentence

# What XML 1.0 can't hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(NamedTuple):
    """A test case: which suite it is in, what it is called, what is wrong, and why it was not run."""

    suite: str
    classname: str
    name: str
    failures: list[str]
    skipped: str = ""


def junit(audit: Mapping[str, Any]) -> str:
    """The XML document."""
    cases = [*_slice_cases(audit), *_note_cases(audit), *_probe_cases(audit), *_orphan_cases(audit)]
    root = ElementTree.Element("testsuites", {"name": "audit_slices", **_counts(cases)})
    for name in dict.fromkeys(case.suite for case in cases):
        inside = [case for case in cases if case.suite == name]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name), **_counts(inside)})
        for case in inside:
            _append(suite, case)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _slice_cases(audit: Mapping[str, Any]) -> Iterable[Case]:
    """One for each kind of resource of a slice on a host, and one for each slice's status."""
    off: dict[tuple[str, str, str], list[str]] = {}
    for name in audit["slices"]:
        off[name, "", "status"] = []
    for host, slices in audit["checked"].items():
        off["", host, "host"] = []
        for name, kinds in slices.items():
            off.update({(name, host, kind): [] for kind in kinds})
    for item in audit["drift"]:
        off.setdefault((item["slice"], item["host"], item["kind"]), []).append(sentence(item))
    for (name, host, kind), failures in off.items():
        suite = f"slice {name}" if name else "hosts"
        yield Case(suite, f"{suite}.{host or 'registry'}", kind, failures)


def _note_cases(audit: Mapping[str, Any]) -> Iterable[Case]:
    for note in audit["notes"]:
        suite = f"slice {note['slice']}"
        yield Case(suite, f"{suite}.registry", "status", [], note["message"])


def _probe_cases(audit: Mapping[str, Any]) -> Iterable[Case]:
    for probe in audit["probes"]:
        suite = f"slice {probe['slice']}" if probe["slice"] else "hosts"
        failures = [probe["message"]] if probe["failed"] else []
        yield Case(suite, f"{suite}.{probe['host']}.probe", probe["name"], failures, probe.get("skipped", ""))


def _orphan_cases(audit: Mapping[str, Any]) -> Iterable[Case]:
    for host in audit["hosts"]:
        found = [orphan_sentence(orphan) for orphan in audit["orphans"] if orphan["host"] == host]
        yield Case("orphans", f"orphans.{host}", "nothing without a slice", found)


def _counts(cases: list[Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.failures) for case in cases)),
        "errors": "0",
        "skipped": str(sum(bool(case.skipped) for case in cases)),
        "time": "0",
    }


def _append(suite: ElementTree.Element, case: Case) -> None:
    attributes = {"classname": _clean(case.classname), "name": _clean(case.name), "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.failures:
        failure = ElementTree.SubElement(element, "failure", {"type": "off", "message": _clean(case.failures[0])})
        failure.text = _clean("\n".join(case.failures))
    elif case.skipped:
        ElementTree.SubElement(element, "skipped", {"message": _clean(case.skipped)})


def _clean(text: str) -> str:
    return _ILLEGAL.sub("?", text)
