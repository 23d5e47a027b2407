# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit of all hosts put together: as data and as text. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._audit_shares import finding
from ._text import printable

Record = dict[str, Any]

_MOVED = "was changed or deleted meanwhile: not judged"


def merge(
    shares: Mapping[str, Any],
    again: Mapping[str, Any],
    audited: Mapping[str, Mapping[str, Any]],
    probed: Mapping[str, Mapping[str, Any]],
    removed: Mapping[str, Mapping[str, Any]],
    remove: bool = False,
    check_mode: bool = False,
) -> Record:
    """Everything that was found.

    Args:
        shares: what ``slice_shares`` returned.
        again: the same of the registry as it was once the hosts had been looked at.
        audited: what ``slice_audit_info`` returned, by host.
        probed: the same of ``slice_probe``.
        removed: the same of ``slice_orphans``.
        remove: whether the orphans were to be removed.
        check_mode: whether ``removed`` is what would be, and is still there.
    """
    lost = list(_lost(again, audited))
    drift = [*lost, *shares["findings"], *_problems(shares, audited), *_of_hosts(audited, "findings")]
    moved = {record["name"] for record in shares["slices"] if record not in again["slices"]}
    drift = [item for item in drift if item["slice"] not in moved]
    gone = list(_of_hosts(removed, "removed"))
    away = set() if check_mode else set(map(_key, gone))
    orphans = [orphan for orphan in _of_hosts(audited, "orphans") if _key(orphan) not in away]
    orphans = [orphan for orphan in orphans if not _is_known(orphan, again["known"])]
    if lost:
        # To a registry that was lost every slice is an orphan, and to an older one every new VM is too many.
        orphans, drift = ([{**item, "commands": []} for item in items] for items in (orphans, drift))
    errors = (
        ["anything: the registry knows less than the hosts, so an orphan can't be told from a slice"]
        if lost and remove
        else []
    )
    errors += [f"{host}: {error}" for host, result in removed.items() for error in _errors(result)]
    probes = [probe for probe in (*_of_hosts(probed, "probes"), *_unprobed(probed)) if probe["slice"] not in moved]
    notes = [*shares["notes"], *({"slice": name, "message": _MOVED} for name in sorted(moved))]
    audit: Record = {
        "slices": [record["name"] for record in shares["slices"] if record["name"] not in moved],
        "hosts": [host for host, result in audited.items() if "checked" in result],
        "checked": {host: result["checked"] for host, result in audited.items() if "checked" in result},
        "drift": drift,
        "orphans": orphans,
        "probes": probes,
        "removed": gone,
        "errors": errors,
        "notes": notes,
    }
    counts = _counts(audit)
    sound = not (drift or orphans or errors or _failed(audit))
    return {**audit, "sound": sound, "counts": counts, "summary": _summary(audit, counts, sound, check_mode)}


def is_unknown(audit: Mapping[str, Any], shares: Mapping[str, Any], only: str | None) -> bool:
    """Whether the one slice that was asked for is neither in the registry nor, as orphans, anywhere else."""
    if only is None or only in shares["known"]["names"]:
        return False
    return audit["sound"] and not audit["removed"]


def _is_known(orphan: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether it belongs to a slice that was made since the registry was first read."""
    return orphan["slice"] in known["names"] or orphan["item"] in known["ports"]


def _of_hosts(results: Mapping[str, Mapping[str, Any]], key: str) -> Iterable[Record]:
    return ({**item, "host": host} for host, result in results.items() for item in result.get(key, []))


def _key(orphan: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return orphan["host"], orphan["slice"], orphan["kind"], orphan["item"]


def _problems(shares: Mapping[str, Any], audited: Mapping[str, Mapping[str, Any]]) -> Iterable[Record]:
    """Hosts that could not be looked at, one finding for each slice that should be there."""
    for host, result in audited.items():
        if "checked" in result:
            continue
        there = [share["name"] for share in shares["hosts"][host] if share["present"]]
        for name in there or [""]:
            yield finding(name, host, "host", host, _why(result))


def _lost(shares: Mapping[str, Any], audited: Mapping[str, Mapping[str, Any]]) -> Iterable[Record]:
    """What was made by a registry that knew more than this one."""
    for stamp in _of_hosts(audited, "stamps"):
        if stamp["id"] >= shares["next_id"]:
            message = f"has ID {stamp['id']}, which the registry never gave out: was it lost? (run rebuild_registry)"
            yield finding(stamp["slice"], stamp["host"], "registry", stamp["name"], message)


def _why(result: Mapping[str, Any]) -> str:
    if result.get("unreachable"):
        return "is unreachable"
    if result.get("msg"):
        return f"could not be looked at: {result['msg']}"
    return "is not part of this run (--limit?)"


def _errors(result: Mapping[str, Any]) -> list[str]:
    failed = result.get("failed") or result.get("unreachable")
    return [str(result.get("msg", "it gave no reason"))] if failed else list(result.get("errors", []))


def _unprobed(probed: Mapping[str, Mapping[str, Any]]) -> Iterable[Record]:
    for host, result in probed.items():
        if result.get("failed") or result.get("unreachable"):
            yield {
                "host": host,
                "slice": "",
                "name": host,
                "message": f"could not probe: {result['msg']}",
                "failed": True,
            }


def _counts(audit: Mapping[str, Any]) -> Record:
    resources = [count for slices in audit["checked"].values() for kinds in slices.values() for count in kinds.values()]
    return {
        "slices": len(audit["slices"]),
        "resources": sum(resources),
        "hosts": len(audit["hosts"]),
        "drifts": len(audit["drift"]),
        "orphans": len(audit["orphans"]),
        "probes": len(audit["probes"]),
        "failed_probes": sum(probe["failed"] for probe in audit["probes"]),
        "errors": len(audit["errors"]),
    }


def _summary(audit: Mapping[str, Any], counts: Mapping[str, int], sound: bool, check_mode: bool) -> str:
    done = "would be removed" if check_mode else "removed"
    parts = [_count(counts["slices"], "slice"), f"{_count(counts['resources'], 'resource')} checked"]
    looked = f"Audit: {', '.join(parts)} on {_count(counts['hosts'], 'host')}"
    looked += f", {_count(counts['probes'], 'probe')}" if counts["probes"] else ""
    looked += f", {_count(len(audit['removed']), 'orphan')} {done}" if audit["removed"] else ""
    return f"{looked}, nothing off." if sound else f"{looked}: {failure(counts)}."


def failure(counts: Mapping[str, int]) -> str:
    """What is off, in one line."""
    kinds = [("drifts", "drift"), ("orphans", "orphan"), ("failed_probes", "failed probe")]
    kinds += [("errors", "failed removal")] if counts["errors"] else []
    return ", ".join(_count(counts[key], word) for key, word in kinds)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def render(audit: Mapping[str, Any], check_mode: bool = False) -> str:
    """The text that ``audit_slices`` prints: what is off, and the summary. In check mode nothing was removed yet."""
    names = sorted({item["slice"] for item in audit["drift"]} | {probe["slice"] for probe in _failed(audit)})
    lines: list[str] = []
    for name in names:
        lines.append(f"Slice {name}" if name else "Hosts")
        lines += [f"  {sentence(item)}" for item in audit["drift"] if item["slice"] == name]
        lines += [f"  {_probe(probe)}" for probe in _failed(audit) if probe["slice"] == name]
    done = "Would be removed" if check_mode else "Removed"
    for title, key in (("Orphans", "orphans"), (done, "removed")):
        lines += [title] * bool(audit[key]) + [f"  {orphan_sentence(orphan)}" for orphan in audit[key]]
    lines += ["Not removed"] * bool(audit["errors"]) + [f"  {error}" for error in audit["errors"]]
    lines += [f"Slice {note['slice']} {note['message']}" for note in audit["notes"]]
    return "\n".join(map(printable, [*lines, audit["summary"]]))


def _failed(audit: Mapping[str, Any]) -> list[Record]:
    return [probe for probe in audit["probes"] if probe["failed"]]


def _probe(probe: Mapping[str, Any]) -> str:
    return f"{probe['host']}: probe {probe['name']} {probe['message']}"


def sentence(item: Mapping[str, Any]) -> str:
    """A finding in one line."""
    named = item["item"] if item["kind"] in ("host", "status") else f"{item['kind']} {item['item']}".rstrip()
    where = f"{item['host']}: " if item["host"] and item["host"] != item["item"] else ""
    return f"{where}{named} {item['message']}{_commands(item['commands'])}"


def orphan_sentence(orphan: Mapping[str, Any]) -> str:
    """An orphan in one line, with what removes it."""
    of = f" of slice {orphan['slice']}" if orphan["slice"] else ""
    what = f"{orphan['kind']} {orphan['item']}{of}"
    return f"{orphan['host']}: {what}: {orphan['message']}{_commands(orphan['commands'])}"


def _commands(commands: Sequence[Sequence[str]]) -> str:
    return " [%s]" % " && ".join(map(shlex.join, commands)) if commands else ""
