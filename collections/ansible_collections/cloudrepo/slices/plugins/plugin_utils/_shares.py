# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each host has to realize of a slice: its record, cut up by host, in the modules' own terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from ipaddress import IPv4Address
from typing import Any

from ..module_utils._ipv4 import router_mac
from . import _addressing as rules
from ._parts import parts_of
from ._settings import Cluster, Settings

Record = dict[str, Any]


def host_shares(record: Mapping[str, Any], cluster: Cluster, settings: Settings) -> dict[str, Record]:
    """The share of every host that takes part, by inventory name.

    A worker has ``retired`` (VMs to remove), ``overlays``, ``ports`` (TAPs) and ``vms``; the slice's network node has
    ``network`` and its internal ports, in the same ``ports`` list as its TAPs where it is a worker too: one call for
    each module.
    """
    where = cluster.node_of(record["network_node"])
    settings = cluster.settings_at(where, settings)
    shares: dict[str, Record] = {where.name: nothing()}
    peers = _internet_peers(record, settings)
    secured = {link["number"] for link in record["links"] if link["port_security"]}
    for vm, part in zip(record["vms"], parts_of(record), strict=True):
        share = shares.setdefault(vm["worker"], nothing())
        if vm["retired"]:
            share["retired"].append({"name": vm["name"]})
        else:
            share["overlays"].append({"name": vm["name"], "image": vm["image"], "size_gb": vm["disk_gb"]})
            share["ports"] += _tap_ports(vm, secured, peers)
            share["vms"].append({**_machine(vm), "record": part})
    node = shares[where.name]
    node["ports"] += _internal_ports(record, settings)
    node["network"] = _network(record, cluster, settings)
    return shares


def nothing() -> Record:
    """The share of a host that is to have nothing of the slice."""
    return {"retired": [], "overlays": [], "ports": [], "vms": [], "network": None}


def _tap_ports(vm: Mapping[str, Any], secured: Set[int], peers: list[Record]) -> list[Record]:
    return [
        {
            "name": interface["tap"],
            "type": "tap",
            "vlan": interface["vlan"],
            "vm": vm["name"],
            "interface": interface["name"],
            "security": _security(interface, secured, peers),
        }
        for interface in vm["interfaces"]
    ]


def _security(interface: Mapping[str, Any], secured: Set[int], peers: list[Record]) -> Record | None:
    """On the VLAN that is shared with others, what a guest may send; on a link of its own, anything unless asked."""
    if interface["vlan"] is None:
        return None
    own = {"mac": interface["mac"], "address": interface["address"]}
    if interface["link"] is not None:
        return own if interface["link"] in secured else None
    gateway, server = peers
    return {**own, "peers": peers, "router_mac": gateway["mac"], "dhcp_mac": server["mac"]}


def _internet_peers(record: Mapping[str, Any], settings: Settings) -> list[Record]:
    """Whom the slice's guests may talk to on the internet VLAN, if they are there: the gateway and their own server."""
    if not record["internet"]:
        return []
    return [_peer(_internet_gateway(settings)), _peer(_bare(record["internet"]["server_address"]))]


def _peer(address: str) -> Record:
    return {"address": address, "mac": router_mac(IPv4Address(address))}


def _machine(vm: Mapping[str, Any]) -> Record:
    return {
        "name": vm["name"],
        "id": vm["id"],
        "cores": vm["cores"],
        "memory_mb": vm["memory_mb"],
        "vnc_port": vm["vnc_port"],
        "interfaces": [
            {
                "name": interface["name"],
                "tap": interface["tap"],
                "mac": interface["mac"],
                "connected": interface["vlan"] is not None,
            }
            for interface in vm["interfaces"]
        ],
    }


def _internal_ports(record: Mapping[str, Any], settings: Settings) -> list[Record]:
    ports = [
        {
            "name": rules.gateway_port(link["vlan"]),
            "type": "internal",
            "vlan": link["vlan"],
            "address": link["server_address"],
            "forwarding": link["gateway"],
        }
        for link in record["links"]
        if link["server_address"]
    ]
    if record["internet"]:
        ports.append(
            {
                "name": rules.internet_port(record["id"]),
                "type": "internal",
                "vlan": settings.internet_vlan,
                "address": record["internet"]["server_address"],
                "gateway": _internet_gateway(settings),
                # Never a way around: nothing is routed between this slice's links and the shared VLAN.
                "forwarding": False,
            }
        )
    return ports


def _network(record: Mapping[str, Any], cluster: Cluster, settings: Settings) -> Record:
    guests = [vm for vm in record["vms"] if not vm["retired"]]
    return {
        "namespace": rules.namespace(record["id"]),
        "domain": f"{record['name']}.internal",
        "networks": _dhcp_networks(record, guests, settings),
        "names": [{"name": vm["name"], "addresses": addresses} for vm in guests if (addresses := _addresses(vm))],
        "internet": _internet(record, guests, cluster),
    }


def _dhcp_networks(record: Mapping[str, Any], guests: list[Record], settings: Settings) -> list[Record]:
    reservations: dict[int, list[Record]] = {}
    for vm in guests:
        for interface in vm["interfaces"]:
            if interface["address"]:
                reservations.setdefault(interface["vlan"], []).append(_reservation(vm, interface))
    networks = [
        {
            "interface": rules.gateway_port(link["vlan"]),
            "vlan": link["vlan"],
            "subnet": link["subnet"],
            "server_address": _bare(link["server_address"]),
            "router": _bare(link["server_address"]) if link["gateway"] else None,
            "internet": False,
            "hosts": reservations.get(link["vlan"], []),
        }
        for link in record["links"]
        if link["dhcp"]
    ]
    if record["internet"]:
        networks.append(
            {
                "interface": rules.internet_port(record["id"]),
                "vlan": settings.internet_vlan,
                "subnet": settings.internet_subnet,
                "server_address": _bare(record["internet"]["server_address"]),
                "router": _internet_gateway(settings),
                "internet": True,
                "hosts": reservations.get(settings.internet_vlan, []),
            }
        )
    return networks


def _reservation(vm: Mapping[str, Any], interface: Mapping[str, Any]) -> Record:
    return {
        "mac": interface["mac"],
        "address": _bare(interface["address"]),
        "name": vm["name"],
        "default_route": interface["default_route"],
    }


def _internet(record: Mapping[str, Any], guests: list[Record], cluster: Cluster) -> Record | None:
    if not record["internet"]:
        return None
    return {
        "interface": rules.internet_port(record["id"]),
        "server_address": _bare(record["internet"]["server_address"]),
        "protected_addresses": sorted({host.address for host in cluster.hosts}),
        "addresses": [
            {"address": _bare(interface["address"]), "mac": interface["mac"]}
            for vm in guests
            for interface in vm["interfaces"]
            if interface["address"] and interface["link"] is None
        ],
    }


def _addresses(vm: Mapping[str, Any]) -> list[str]:
    """Where the others find a VM: on its links, for on the internet VLAN nobody reaches it."""
    addressed = [interface for interface in vm["interfaces"] if interface["address"]]
    on_links = [interface for interface in addressed if interface["link"] is not None]
    return [_bare(interface["address"]) for interface in on_links or addressed]


def _internet_gateway(settings: Settings) -> str:
    return rules.address_text(rules.gateway_address(rules.subnet_of(settings.internet_subnet)))


def _bare(address: str) -> str:
    return address.partition("/")[0]
