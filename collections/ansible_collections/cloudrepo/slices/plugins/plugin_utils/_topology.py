# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generate the VMs and links of a named topology. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._schema import SpecError

Pair = tuple[int, int]

# The fewest VMs that make the shape: two VMs would make a "ring" of one cable laid twice.
SMALLEST = {"line": 2, "ring": 3, "star": 2, "tree": 2, "mesh": 2, "bus": 2}


def link_count(shape: str, count: int) -> int:
    """How many links a topology of ``count`` VMs has."""
    if shape == "mesh":
        return count * (count - 1) // 2
    if shape == "bus":
        return 1
    return count if shape == "ring" else count - 1


def generate(shape: str, count: int, flavor: str, most_links: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The VMs ``vm1`` to ``vm<count>`` and their links, in the form that a user writes them.

    Args:
        shape: ``line``, ``ring``, ``star`` (``vm1`` is the centre), ``tree`` (binary, ``vm1`` is the root), ``mesh``
            (every pair), or ``bus`` (one shared LAN).
        count: the number of VMs.
        flavor: the flavor of each.
        most_links: how many links the slice's VLAN pool holds.

    Raises:
        SpecError: too few or too many VMs for the shape.
    """
    if count < SMALLEST[shape]:
        raise SpecError(f"topology: a {shape} needs {SMALLEST[shape]} or more VMs, not {count}")
    # Before anything is generated: a mesh of a million VMs must fail, not fill the memory.
    links = link_count(shape, count)
    if links > most_links:
        raise SpecError(
            f"topology: a {shape} of {count} VMs has {links} links, more than the {most_links} VLANs "
            f"of the slice's pool (vlan_pool_size)"
        )
    vms = [{"name": f"vm{number}", "flavor": flavor} for number in range(1, count + 1)]
    if shape == "bus":
        return vms, [{"endpoints": [vm["name"] for vm in vms]}]
    return vms, [{"endpoints": [f"vm{a}", f"vm{b}"]} for a, b in _PAIRS[shape](count)]


def _line(count: int) -> list[Pair]:
    return [(number, number + 1) for number in range(1, count)]


def _ring(count: int) -> list[Pair]:
    return [*_line(count), (count, 1)]


def _star(count: int) -> list[Pair]:
    return [(1, number) for number in range(2, count + 1)]


def _tree(count: int) -> list[Pair]:
    return [(number // 2, number) for number in range(2, count + 1)]


def _mesh(count: int) -> list[Pair]:
    return [(a, b) for a in range(1, count + 1) for b in range(a + 1, count + 1)]


_PAIRS: dict[str, Callable[[int], list[Pair]]] = {
    "line": _line,
    "ring": _ring,
    "star": _star,
    "tree": _tree,
    "mesh": _mesh,
}
