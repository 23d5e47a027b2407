# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the interface behind each end of each link. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._known import Known
from ._schema import SpecError
from ._spec import MAX_DATA_INTERFACES, SliceSpec

Record = dict[str, Any]


def lay_cables(spec: SliceSpec, known: Known) -> dict[str, dict[str, str]]:
    """For each VM the link's name behind each data interface that has one.

    Interfaces that the spec names come first, then those that the registry holds, then the next free ones.
    """
    cables: dict[str, dict[str, str]] = {vm.name: {} for vm in spec.vms}
    open_ends = []
    for link in spec.links:
        for end in link.endpoints:
            if end.interface is not None:
                cables[end.vm][end.interface] = link.name
            else:
                open_ends.append((end.vm, link))
    limits = {vm.name: MAX_DATA_INTERFACES if vm.interfaces is None else vm.interfaces for vm in spec.vms}
    new_ends = []
    for vm, link in open_ends:
        held = known.interface(vm, link.name)
        if held is None:
            new_ends.append((vm, link))
            continue
        # Moving it would put another network behind an interface of a guest that runs.
        if held in cables[vm]:
            raise SpecError(
                f'{link.label}: VM "{vm}" is on this link by {held}, which {cables[vm][held]} takes; write both'
            )
        if int(held[3:]) > limits[vm]:
            raise SpecError(f'{link.label}: VM "{vm}" is on this link by {held}, but has interfaces: {limits[vm]}')
        cables[vm][held] = link.name
    next_free = dict.fromkeys(cables, 1)
    for vm, link in new_ends:
        while f"eth{next_free[vm]}" in cables[vm]:
            next_free[vm] += 1
        if next_free[vm] > limits[vm]:
            raise SpecError(f'{link.label}: VM "{vm}" has no free data interface (interfaces: {limits[vm]})')
        cables[vm][f"eth{next_free[vm]}"] = link.name
    return cables


def name_endpoints(spec: SliceSpec, cables: Mapping[str, Mapping[str, str]], links: Mapping[str, Record]) -> None:
    interfaces = {(vm, link): name for vm, ends in cables.items() for name, link in ends.items()}
    for link in spec.links:
        links[link.name]["endpoints"] = [
            {"vm": end.vm, "interface": interfaces[end.vm, link.name]} for end in link.endpoints
        ]
