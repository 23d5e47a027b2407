# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster to plan for, shared by the planner's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Room, Worker
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._planning import plan
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, NetworkNode, Settings
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import parse_flavors, parse_spec

FLAVORS = [
    {"name": "cirros", "cores": 1, "memory_gb": 0.5, "disk_gb": 1, "image": "cirros-0.6.2-x86_64-disk.img"},
    {
        "name": "ubuntu",
        "cores": 1,
        "memory_gb": 0.5,
        "disk_gb": 2.2,
        "image": "focal-server-cloudimg-amd64.img",
    },
]
PLENTY = Room(64, 65536, 10**6)
NETWORK_NODE = NetworkNode("network1", "10.0.10.4")
IMAGES = {flavor["image"]: 64 * 1024**2 for flavor in FLAVORS}
EMPTY: dict[str, Any] = {"revision": 0, "next_id": 1000, "last_worker": "", "slices": []}

WEB = {
    "name": "web",
    "owner": "alice",
    "vms": [
        {"name": "web", "flavor": "cirros", "interfaces": 1, "internet": True},
        {"name": "db", "flavor": "ubuntu", "interfaces": 1},
    ],
    "links": [{"endpoints": ["web:eth1", "db:eth1"]}],
}


def workers(count: int = 3, room: Room = PLENTY, **problems: str) -> list[Worker]:
    return [
        Worker(f"worker{n}", f"10.0.10.{n}", problem=problems.get(f"worker{n}", ""), room=room)
        for n in range(1, count + 1)
    ]


def make_plan(
    spec: dict[str, Any],
    registry: dict[str, Any] | None = None,
    hosts: list[Worker] | None = None,
    flavors: list[dict[str, Any]] | None = None,
    images: dict[str, int] | None = None,
    network_nodes: Sequence[NetworkNode] = (NETWORK_NODE,),
    **settings: Any,
) -> dict[str, Any]:
    """Plan ``spec`` as the lookup does, with a quota that is not in the way."""
    cluster = Cluster(workers() if hosts is None else hosts, network_nodes, IMAGES if images is None else images)
    return plan(
        parse_spec(spec),
        "nobody",
        parse_flavors(flavors or FLAVORS),
        cluster,
        registry or EMPTY,
        Settings(**{"quota": 10**6, **settings}),
    )


def after(registry: dict[str, Any], planned: dict[str, Any], status: str = "running") -> dict[str, Any]:
    """The registry once a plan was reserved, and, if it is running, finished."""
    record = {**planned["slice"], "status": status}
    if status == "running":
        record["has_run"] = True
        record["vms"] = [vm for vm in record["vms"] if not vm["retired"]]
        interfaces = [interface for vm in record["vms"] for interface in vm["interfaces"]]
        if not any(interface["vlan"] is not None and interface["link"] is None for interface in interfaces):
            record["internet"] = None
    others = [other for other in registry["slices"] if other["name"] != record["name"]]
    return {
        "revision": registry["revision"] + 1,
        "next_id": planned["next_id"],
        "last_worker": planned["last_worker"],
        "slices": sorted([*others, record], key=lambda each: each["id"]),
    }
