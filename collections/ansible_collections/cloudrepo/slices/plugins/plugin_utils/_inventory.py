# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory has to have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ._schema import SpecError

GROUPS = ("workers", "network_node")


def check_groups(
    groups: Mapping[str, Sequence[str]], registry_host: str | None = None, needed: Iterable[str] = GROUPS
) -> None:
    """Refuse an inventory that no slice can live in, or whose registry not every play could reach.

    Raises:
        SpecError: a group of ``needed`` is missing or empty, or ``registry_host`` is none of the hosts.
    """
    for group in needed:
        if not groups.get(group):
            raise SpecError(f"the inventory has no host in the group {group}")
    known = {"localhost"}.union(*(groups.get(group, ()) for group in GROUPS))
    if registry_host and registry_host not in known:
        raise SpecError(
            f"slices_registry_host is {registry_host[:60]}, and must be a worker, a network node or localhost"
        )
