# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choose the network node of a slice. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ._known import Known
from ._schema import SpecError
from ._settings import Cluster, NetworkNode


def choose_network_node(known: Known, others: Sequence[Mapping[str, Any]], cluster: Cluster) -> NetworkNode:
    """The one that the slice has; for a new slice, of those that can be used the one with the fewest slices.

    Raises:
        SpecError: that one, or each of them, can't be used.
    """
    candidates = [cluster.node_of(known.network_node)] if known.id else cluster.network_nodes
    usable = [node for node in candidates if not node.problem]
    if not usable:
        raise SpecError("; ".join(f"network node {node.name} {node.problem}" for node in candidates))
    slices = Counter(cluster.node_of(record["network_node"]).name for record in others)
    # Of several, the first of the inventory.
    return min(usable, key=lambda node: slices[node.name])
