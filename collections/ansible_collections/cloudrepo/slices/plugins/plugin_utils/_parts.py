# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A slice's record cut up by VM, for the VMs' manifests, and put together again. Pure.

A part grows with its own VM and links only, and is the same whatever is appended to the slice. Every link has two ends
or more, so all links are in some part. What a VM, a link or an endpoint is made of is not looked into.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = dict[str, Any]

# What is not the slice itself: how it is doing, and what its VMs carry, each its own.
_NOT_HEAD = ("status", "reason", "has_run", "vms", "links", "internet")
_PLACE = "position"


def parts_of(record: Mapping[str, Any]) -> list[Record]:
    """What each VM carries of its slice's record, in the order of the VMs."""
    head = {field: value for field, value in record.items() if field not in _NOT_HEAD}
    links = _links_by_vm(record["links"])
    return [
        {
            # Only where this VM has it, so that a first VM with internet changes nothing about the others.
            "slice": {**head, "internet": record["internet"] if _has_internet(vm) else None},
            "vm": {**vm, _PLACE: position},
            "links": links.get(vm["name"], []),
        }
        for position, vm in enumerate(record["vms"])
    ]


def _links_by_vm(links: Iterable[Mapping[str, Any]]) -> dict[str, list[Record]]:
    """Each VM's copies of its links, with its own endpoints only."""
    copies: dict[str, list[Record]] = defaultdict(list)
    for place, link in enumerate(links):
        ends: dict[str, list[Record]] = defaultdict(list)
        for at, end in enumerate(link["endpoints"]):
            ends[end["vm"]].append({**end, _PLACE: at})
        for vm, own in ends.items():
            copies[vm].append({**link, "endpoints": own, _PLACE: place})
    return copies


def _has_internet(vm: Mapping[str, Any]) -> bool:
    return any(interface["vlan"] is not None and interface["link"] is None for interface in vm["interfaces"])


def joined(parts: Sequence[Mapping[str, Any]]) -> tuple[Record, list[str]]:
    """The record that the parts were cut from, without its state, and what does not fit about them."""
    problems: list[str] = []
    vms = _in_order([part["vm"] for part in parts], "VM", problems)
    links = _links([link for part in parts for link in part["links"]], problems)
    servers = [part["slice"]["internet"] for part in parts if part["slice"]["internet"]]
    if any(server != servers[0] for server in servers):
        problems.append("its VMs know different servers on the internet VLAN")
    return {**parts[0]["slice"], "vms": vms, "links": links, "internet": servers[0] if servers else None}, problems


def _links(copies: Iterable[Mapping[str, Any]], problems: list[str]) -> list[Record]:
    """The links, of each of which every endpoint's VM has a copy with its own endpoints."""
    links: dict[int, Record] = {}
    for copy in copies:
        link = links.setdefault(copy["number"], {**copy, "endpoints": []})
        if {**link, "endpoints": []} != {**copy, "endpoints": []}:
            problems.append(f"its VMs say different things about link {copy['number']}")
        link["endpoints"] += copy["endpoints"]
    for link in links.values():
        link["endpoints"] = _in_order(link["endpoints"], f"end of link {link['number']}", problems)
        if len(link["endpoints"]) < 2:
            problems.append(f"link {link['number']} has one end")
    return _in_order(links.values(), "link", problems)


def _in_order(items: Iterable[Mapping[str, Any]], what: str, problems: list[str]) -> list[Record]:
    """The items of a list by their positions, without these."""
    ordered = sorted(items, key=lambda item: int(item[_PLACE]))
    places = [item[_PLACE] for item in ordered]
    problems += [f"{what} {place + 1} is missing" for place in range(max(places, default=0)) if place not in places]
    problems += [f"two claim to be {what} {place + 1}" for place in sorted({*places}) if places.count(place) > 1]
    return [{field: value for field, value in item.items() if field != _PLACE} for item in ordered]
