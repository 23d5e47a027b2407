# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slice records to store, shared by the registry's tests."""

from __future__ import annotations

import copy
from typing import Any

WEB: dict[str, Any] = {
    "id": 1000,
    "name": "web",
    "owner": "alice",
    "status": "design",
    "reason": "",
    "has_run": False,
    "network_node": "network1",
    "vlan_pool": {"first": 100, "size": 20},
    "vms": [
        {
            "id": 1001,
            "name": "web",
            "flavor": "cirros",
            "cores": 1,
            "memory_mb": 512,
            "disk_gb": 1,
            "image": "cirros-0.6.2-x86_64-disk.img",
            "worker": "worker1",
            "worker_address": "10.0.10.1",
            "vnc_port": 5901,
            "retired": False,
            "interfaces": [
                {
                    "name": "eth0",
                    "mac": "52:54:00:03:e9:00",
                    "tap": "tap_1001_eth0",
                    "vlan": 400,
                    "link": None,
                    "address": "10.60.7.10/24",
                    "default_route": True,
                },
                {
                    "name": "eth1",
                    "mac": "52:54:00:03:e9:01",
                    "tap": "tap_1001_eth1",
                    "vlan": 100,
                    "link": 1,
                    "address": "192.168.100.10/24",
                    "default_route": False,
                },
            ],
        },
        {
            "id": 1002,
            "name": "db",
            "flavor": "ubuntu",
            "cores": 1,
            "memory_mb": 512,
            "disk_gb": 2.2,
            "image": "focal-server-cloudimg-amd64.img",
            "worker": "worker2",
            "worker_address": "10.0.10.2",
            "vnc_port": 5902,
            "retired": False,
            "interfaces": [
                {
                    "name": "eth0",
                    "mac": "52:54:00:03:ea:00",
                    "tap": "tap_1002_eth0",
                    "vlan": None,
                    "link": None,
                    "address": None,
                    "default_route": False,
                },
                {
                    "name": "eth1",
                    "mac": "52:54:00:03:ea:01",
                    "tap": "tap_1002_eth1",
                    "vlan": 100,
                    "link": 1,
                    "address": "192.168.100.11/24",
                    "default_route": True,
                },
            ],
        },
    ],
    "links": [
        {
            "number": 1,
            "name": "web:eth1_db:eth1",
            "vlan": 100,
            "subnet": "192.168.100.0/24",
            "gateway": True,
            "dhcp": True,
            "port_security": False,
            "server_address": "192.168.100.1/24",
            "endpoints": [{"vm": "web", "interface": "eth1"}, {"vm": "db", "interface": "eth1"}],
        }
    ],
    "internet": {"server_address": "10.60.7.254/24"},
}


def web() -> dict[str, Any]:
    """The golden slice, to be changed at will."""
    return copy.deepcopy(WEB)


def small(name: str, first_id: int, pool_first: int, vms: int = 1) -> dict[str, Any]:
    """A slice of unconnected VMs, whose every number follows from the first ID and VLAN."""
    return {
        "id": first_id,
        "name": name,
        "owner": "bob",
        "status": "design",
        "reason": "",
        "has_run": False,
        "network_node": "network1",
        "vlan_pool": {"first": pool_first, "size": 2},
        "vms": [_vm(first_id + 1 + index) for index in range(vms)],
        "links": [],
        "internet": None,
    }


def _vm(number: int) -> dict[str, Any]:
    interface = {
        "name": "eth0",
        "mac": "52:54:%02x:%02x:%02x:00" % (number >> 16 & 255, number >> 8 & 255, number & 255),
        "tap": f"tap_{number}_eth0",
        "vlan": None,
        "link": None,
        "address": None,
        "default_route": False,
    }
    return {
        "id": number,
        "name": f"vm{number}",
        "flavor": "cirros",
        "cores": 1,
        "memory_mb": 512,
        "disk_gb": 1,
        "image": "cirros.img",
        "worker": "worker1",
        "worker_address": "10.0.10.1",
        "vnc_port": 5000 + number,
        "retired": False,
        "interfaces": [interface],
    }
