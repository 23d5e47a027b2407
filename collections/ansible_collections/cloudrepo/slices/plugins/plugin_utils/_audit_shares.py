# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the registry says that each host should have of every slice, and what it says of itself that is off. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from . import _addressing as rules
from ._probes import addresses, probes
from ._run import has_died
from ._settings import Cluster, Settings
from ._shares import host_shares

Record = dict[str, Any]

# What ports are stamped with.
_STAMP = ("name", "id", "owner", "vlan_pool")
_REMEDY = {"deleting": "run delete_slice again"}
_UNFINISHED = ("deploying", "deleting", "failed")


def all_shares(
    registry: Mapping[str, Any], cluster: Cluster, settings: Settings, only: str | None, now: float
) -> Record:
    """The shares of every host by name, and what goes with them.

    Args:
        registry: as ``slice_registry`` reads it.
        cluster: the hosts of the inventory; what they have does not matter.
        settings: of the inventory.
        only: the one slice that is judged; by default all of them.
        now: seconds since 1970.

    Returns:
        ``hosts`` (the shares), ``known`` (what belongs to somebody), ``slices`` (the records that are judged),
        ``findings`` (what is off in the registry), ``notes`` (what is not judged, and why), ``next_id``
        (above it no ID was given out), ``probes`` (the networks to
        probe from each host), ``addresses`` (those of all guests).
    """
    held = {hold["slice"]: hold for hold in registry["holds"] if hold["until"] > now and not has_died(hold["run"])}
    wanted = [record for record in registry["slices"] if only in (None, record["name"])]
    judged = [record for record in wanted if record["name"] not in held]
    hosts = list(dict.fromkeys(host.name for host in cluster.hosts))
    # A slice that is being changed would answer, or not, at random.
    running = [record for record in registry["slices"] if record["status"] == "running" and record["name"] not in held]
    result: Record = {
        "probes": probes(running, cluster, settings),
        "addresses": addresses(running),
        "hosts": {host: [] for host in hosts},
        "known": known(registry, list(held)),
        "slices": judged,
        "findings": [finding for record in judged for finding in _status(record)],
        "next_id": registry["next_id"],
        "notes": [_note(held[record["name"]]) for record in wanted if record["name"] in held],
    }
    for record in judged:
        shares = {} if _is_absent(record) else host_shares(record, cluster, settings)
        for host in hosts:
            share = {**{field: record[field] for field in _STAMP}, "present": host in shares}
            result["hosts"][host].append({**share, **shares.get(host, {})})
        result["findings"] += [_stranger(record, host) for host in shares if host not in hosts]
    return result


def _is_absent(record: Mapping[str, Any]) -> bool:
    """Whether nothing of the slice should be on any host: a first deploy that fails takes away what it made."""
    return record["status"] in ("design", "deleting") or (record["status"] == "failed" and not record["has_run"])


def known(registry: Mapping[str, Any], held: Sequence[str]) -> Record:
    """What belongs to somebody: names and IDs of slices, and the names of all their ports."""
    slices = registry["slices"]
    return {
        "names": sorted({*(record["name"] for record in slices), *held}),
        "ids": [record["id"] for record in slices],
        "ports": [port for record in slices for port in _ports(record)],
    }


def _ports(record: Mapping[str, Any]) -> Iterable[str]:
    yield from (interface["tap"] for vm in record["vms"] for interface in vm["interfaces"])
    yield from (rules.gateway_port(link["vlan"]) for link in record["links"])
    yield rules.internet_port(record["id"])


def _status(record: Mapping[str, Any]) -> Iterable[Record]:
    status, name = record["status"], record["name"]
    if status in _UNFINISHED:
        reason = f" ({record['reason']})" if record["reason"] else ""
        remedy = _REMEDY.get(status, "run deploy_slice or delete_slice again")
        message = f"is {status}{reason}, and nobody works on it: {remedy}"
        yield finding(name, "", "status", name, message, field="status", found=status)


def _stranger(record: Mapping[str, Any], host: str) -> Record:
    has = [vm["name"] for vm in record["vms"] if vm["worker"] == host]
    has += ["its gateways"] * (record["network_node"] == host)
    return finding(record["name"], host, "host", host, f"is not in the inventory and has {', '.join(has)}")


def _note(hold: Mapping[str, Any]) -> Record:
    since = datetime.fromtimestamp(hold["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"slice": hold["slice"], "message": f"is {hold['status']} by {hold['holder']} since {since}: not judged"}


def finding(slice_name: str, host: str, kind: str, item: str, message: str, **fields: Any) -> Record:
    """A finding of the controller's own, in the form of those of ``slice_audit_info``."""
    empty: Record = {"field": "", "found": None, "wanted": None, "commands": []}
    return {"host": host, "slice": slice_name, "kind": kind, "item": item, "message": message, **empty, **fields}
