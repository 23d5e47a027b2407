# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VLANs are probed from which host, and who is to answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._settings import Cluster, Settings

Record = dict[str, Any]


def probes(slices: Sequence[Mapping[str, Any]], cluster: Cluster, settings: Settings) -> dict[str, list[Record]]:
    """The networks to probe, by host: from each worker the VLANs of its guests, and the network nodes' gateways."""
    found: dict[str, dict[int, Record]] = {}
    for record in slices:
        node = cluster.node_of(record["network_node"])
        internet_vlan = cluster.settings_at(node, settings).internet_vlan
        for link in record["links"]:
            network = _link(record, link)
            hosts = [vm["worker"] for vm, interface in _interfaces(record) if interface["link"] == link["number"]]
            for host in dict.fromkeys(hosts + [node.name] * bool(link["server_address"])):
                found.setdefault(host, {})[link["vlan"]] = network
        for vm, interface in _interfaces(record):
            if interface["vlan"] == internet_vlan and interface["link"] is None:
                found.setdefault(vm["worker"], {})[internet_vlan] = _internet(internet_vlan)
    return {host: list(networks.values()) for host, networks in found.items()}


def addresses(slices: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The addresses of all guests."""
    return [_guest(record, vm, interface) for record in slices for vm, interface in _interfaces(record)
            if interface["address"]]  # fmt: skip


def _interfaces(record: Mapping[str, Any]) -> Iterable[tuple[Record, Record]]:
    return ((vm, interface) for vm in record["vms"] if not vm["retired"] for interface in vm["interfaces"])


def _link(record: Mapping[str, Any], link: Mapping[str, Any]) -> Record:
    ends = [(vm, interface) for vm, interface in _interfaces(record) if interface["link"] == link["number"]]
    network: Record = {"slice": record["name"], "name": f"link {link['number']}", "vlan": link["vlan"]}
    guests = [_guest(record, vm, interface) for vm, interface in ends if interface["address"]]
    silence = "" if guests else "not probed: no address known"
    return {**network, "members": [interface["mac"] for _vm, interface in ends], "guests": guests, "silence": silence}


def _internet(vlan: int) -> Record:
    """On the VLAN that slices share, guests answer the gateway only."""
    return {"slice": "", "name": "internet", "vlan": vlan, "members": [], "guests": [], "silence": ""}


def _guest(record: Mapping[str, Any], vm: Mapping[str, Any], interface: Mapping[str, Any]) -> Record:
    return {
        "slice": record["name"],
        "name": f"{record['name']}/{vm['name']} {interface['name']}",
        "address": interface["address"].partition("/")[0],
        "mac": interface["mac"],
    }
