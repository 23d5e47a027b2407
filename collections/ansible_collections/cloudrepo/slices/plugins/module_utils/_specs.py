# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The argument specs of the lists that modules take: those that realize a slice, and the audit of what they did."""

from __future__ import annotations

from typing import Any, Dict

Spec = Dict[str, Any]

OVERLAY: Spec = {
    "name": {"type": "str", "required": True},
    "image": {"type": "str"},
    "size_gb": {"type": "float"},
}

_PEER: Spec = {
    "address": {"type": "str", "required": True},
    "mac": {"type": "str", "required": True},
}
_SECURITY: Spec = {
    "mac": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "peers": {"type": "list", "elements": "dict", "options": _PEER},
    "router_mac": {"type": "str"},
    "dhcp_mac": {"type": "str"},
}
POOL: Spec = {"first": {"type": "int", "required": True}, "size": {"type": "int", "required": True}}
PORT: Spec = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["tap", "internal"], "default": "tap"},
    "vlan": {"type": "int"},
    "vm": {"type": "str"},
    "interface": {"type": "str"},
    "address": {"type": "str"},
    "gateway": {"type": "str"},
    "forwarding": {"type": "bool", "default": False},
    "security": {
        "type": "dict",
        "options": _SECURITY,
        "required_by": {"router_mac": ["peers"], "dhcp_mac": ["peers"]},
    },
}

_CARD: Spec = {
    "name": {"type": "str", "required": True},
    "tap": {"type": "str", "required": True},
    "mac": {"type": "str", "required": True},
    "connected": {"type": "bool", "default": True},
}
VM: Spec = {
    "name": {"type": "str", "required": True},
    "id": {"type": "int"},
    "cores": {"type": "int"},
    "memory_mb": {"type": "int"},
    "vnc_port": {"type": "int"},
    "interfaces": {"type": "list", "elements": "dict", "default": [], "options": _CARD},
    "record": {"type": "dict"},
}

_RESERVATION: Spec = {
    "mac": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "default_route": {"type": "bool", "default": False},
}
NETWORK: Spec = {
    "interface": {"type": "str", "required": True},
    "vlan": {"type": "int", "required": True},
    "subnet": {"type": "str", "required": True},
    "server_address": {"type": "str", "required": True},
    "router": {"type": "str"},
    "internet": {"type": "bool", "default": False},
    "hosts": {"type": "list", "elements": "dict", "default": [], "options": _RESERVATION},
}
NAMES: Spec = {
    "name": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "required": True},
}

GUEST: Spec = {
    "address": {"type": "str", "required": True},
    "mac": {"type": "str", "required": True},
}

_SHARED_NETWORK: Spec = {
    "namespace": {"type": "str", "required": True},
    "domain": {"type": "str"},
    "networks": {"type": "list", "elements": "dict", "default": [], "options": NETWORK},
    "names": {"type": "list", "elements": "dict", "default": [], "options": NAMES},
    "internet": {
        "type": "dict",
        "options": {
            "interface": {"type": "str"},
            "server_address": {"type": "str"},
            "protected_addresses": {"type": "list", "elements": "str", "default": []},
            "addresses": {"type": "list", "elements": "dict", "default": [], "options": GUEST},
        },
    },
}
# What a host has to realize of a slice, as the planner cuts it up.
HOST_SHARE: Spec = {
    "retired": {"type": "list", "elements": "dict", "default": []},
    "overlays": {"type": "list", "elements": "dict", "default": [], "options": OVERLAY},
    "ports": {"type": "list", "elements": "dict", "default": [], "options": PORT},
    "vms": {"type": "list", "elements": "dict", "default": [], "options": VM},
    "network": {"type": "dict", "options": _SHARED_NETWORK},
}
# The same with whose it is; without ``present`` nothing of the slice should be here.
SHARE: Spec = {
    "name": {"type": "str", "required": True},
    "id": {"type": "int", "required": True},
    "present": {"type": "bool", "default": True},
    "owner": {"type": "str"},
    "vlan_pool": {"type": "dict"},
    **HOST_SHARE,
}

# What belongs to somebody, whichever host it is on.
KNOWN: Spec = {
    "names": {"type": "list", "elements": "str", "default": []},
    "ids": {"type": "list", "elements": "int", "default": []},
    "ports": {"type": "list", "elements": "str", "default": []},
}

# Where things of ours are on a host.
PLACE: Spec = {
    "roles": {"type": "list", "elements": "str", "choices": ["worker", "network"], "required": True},
    "bridge": {"type": "str", "default": "br-int"},
    "base_dir": {"type": "path", "default": "~/vm_images"},
    "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
    "state_dir": {"type": "path", "default": "/var/lib/cloudrepo/dnsmasq"},
}
