# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give out numbers: VLANs, link numbers, addresses and VNC ports. Pure.

What the registry holds keeps its numbers; only what is new takes a free one. What VMs that are no longer wanted use is
not free: they run until all others do.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import _addressing as rules
from ._known import Known
from ._schema import SpecError
from ._settings import Settings
from ._spec import Link, SliceSpec

Record = dict[str, Any]


def vlan_pool(
    slice_id: int, spec: SliceSpec, known: Known, others: Sequence[Record], settings: Settings, vlans: range
) -> dict[str, int]:
    size = spec.vlan_pool_size or (known.pool["size"] if known.pool else rules.POOL_SIZE)
    taken = set(settings.reserved_vlans) | {settings.internet_vlan}
    pools = {record["name"]: _vlans_of(record["vlan_pool"]) for record in others}
    taken.update(*pools.values())
    if known.pool is not None:
        pool = {"first": known.pool["first"], "size": max(known.pool["size"], size)}
        for vlan in range(pool["first"] + known.pool["size"], pool["first"] + pool["size"]):
            if vlan in taken or vlan >= vlans.stop:
                holders = [f"slice {name}" for name, other in pools.items() if vlan in other] or ["the reserved VLANs"]
                raise SpecError(
                    f"vlan_pool_size: the pool can't grow to {size} VLANs, VLAN {vlan} belongs to {holders[-1]}"
                )
        return pool
    found = rules.find_pool(slice_id, size, taken, vlans)
    if found is None:
        raise SpecError(f"slice {spec.name}: no {size} VLANs in a row are free for its pool")
    return {"first": found, "size": size}


def _vlans_of(pool: Mapping[str, int]) -> range:
    return range(pool["first"], pool["first"] + pool["size"])


def link_records(
    spec: SliceSpec, known: Known, retired: Sequence[Record], pool: Mapping[str, int]
) -> dict[str, Record]:
    """The links' records by name, without their endpoints."""
    if len(spec.links) > pool["size"]:
        raise SpecError(
            f"links: {len(spec.links)} links, but the slice's VLAN pool holds {pool['size']} (vlan_pool_size)"
        )
    kept = known_links(spec, known)
    used = [interface for vm in retired for interface in vm["interfaces"] if interface["link"] is not None]
    numbers = rules.lowest_free(
        range(1, pool["size"] + 1),
        {link["number"] for link in kept.values()} | {interface["link"] for interface in used},
    )
    # If the deploy fails, guests may still be on links that are removed: what is new takes their VLANs last.
    known_vlans = {link["vlan"] for link in known.links.values()}
    vlans = rules.lowest_free(
        sorted(range(pool["first"], pool["first"] + pool["size"]), key=known_vlans.__contains__),
        {link["vlan"] for link in kept.values()} | {interface["vlan"] for interface in used},
    )
    links = {}
    for link in spec.links:
        old = kept.get(link.name)
        number, vlan = (old["number"], old["vlan"]) if old else (next(numbers, None), next(vlans, None))
        if number is None or vlan is None:
            raise SpecError(
                f"{link.label}: no VLAN of the slice's pool of {pool['size']} is free until {_names(retired)} is gone: "
                f"deploy once without any new link, or with a larger vlan_pool_size"
            )
        links[link.name] = _link(link, number, vlan)
    return links


def known_links(spec: SliceSpec, known: Known) -> dict[str, Mapping[str, Any]]:
    """What the registry holds of the spec's links, by the names they have now.

    A link on the subnet of one that is removed goes on as that one: beside it, it would have the same gateway.
    """
    names = {link.name for link in spec.links}
    removed = {link["subnet"]: link for name, link in known.links.items() if name not in names}
    found = {link.name: known.links.get(link.name) or removed.pop(str(link.subnet), None) for link in spec.links}
    return {name: link for name, link in found.items() if link}


def _names(retired: Sequence[Record]) -> str:
    return " and ".join(f'VM "{vm["name"]}"' for vm in retired)


def _link(link: Link, number: int, vlan: int) -> Record:
    subnet = link.subnet or rules.link_subnet(vlan)
    server = None
    if link.gateway:
        server = rules.with_prefix(rules.gateway_address(subnet), subnet)
    elif link.dhcp:
        server = rules.with_prefix(rules.last_address(subnet), subnet)
    return {
        "number": number,
        "name": link.name,
        "vlan": vlan,
        "subnet": str(subnet),
        "gateway": link.gateway,
        "dhcp": link.dhcp,
        "port_security": link.port_security,
        "server_address": server,
        "endpoints": [],
    }


def check_subnets(spec: SliceSpec, links: Mapping[str, Record], settings: Settings) -> None:
    """Refuse overlaps: a guest or gateway on both could not tell them apart."""
    networks = [(rules.subnet_of(links[link.name]["subnet"]), link.label) for link in spec.links]
    if any(vm.internet for vm in spec.vms):
        networks.append((rules.subnet_of(settings.internet_subnet), "the internet VLAN"))
    networks.sort(key=lambda pair: (pair[0].first, -pair[0].last))
    for (wide, first), (narrow, second) in itertools.pairwise(networks):
        if narrow.first <= wide.last:
            raise SpecError(f"{second}: subnet {narrow} overlaps {wide} of {first}; give one of them another subnet")


def link_addresses(
    spec: SliceSpec, links: Mapping[str, Record], known: Known, retired: Sequence[Record]
) -> dict[tuple[str, str], str]:
    """The address of each VM on each link with DHCP, by VM and link."""
    addresses = {}
    kept_links = known_links(spec, known)
    used_on: dict[int, set[int]] = defaultdict(set)
    for vlan, text in _guest_addresses(retired):
        used_on[vlan].add(rules.number_of(text))
    for link in spec.links:
        used = used_on[links[link.name]["vlan"]]
        server = links[link.name]["server_address"]
        if server and rules.number_of(server) in used:
            raise SpecError(
                f"{link.label}: its server's address {server} is not free until {_names(retired)} is gone: "
                f"deploy once with its old subnet"
            )
        if not link.dhcp:
            continue
        subnet = rules.subnet_of(links[link.name]["subnet"])
        room = rules.guest_range(subnet)
        if len(link.endpoints) > len(room):
            raise SpecError(
                f"{link.label}: subnet {subnet} has addresses for {len(room)} guests, not {len(link.endpoints)}"
            )
        kept: dict[str, int] = {}
        old = kept_links.get(link.name)
        if old and old["subnet"] == str(subnet):
            for end in link.endpoints:
                address = known.address(end.vm, known.interface(end.vm, old["name"]))
                if address is not None and address in room:
                    kept[end.vm] = address
        free = rules.lowest_free(room, used | set(kept.values()))
        for end in link.endpoints:
            number = kept[end.vm] if end.vm in kept else next(free, None)
            if number is None:
                raise SpecError(
                    f"{link.label}: no address of {subnet} is free until {_names(retired)} is gone: "
                    f"deploy once without any new VM on it"
                )
            addresses[end.vm, link.name] = rules.with_prefix(number, subnet)
    return addresses


def internet_addresses(spec: SliceSpec, known: Known, others: Sequence[Record], settings: Settings) -> dict[str, str]:
    """The address of each VM with internet, and under "" that of the slice's own server there."""
    wanted = [vm for vm in spec.vms if vm.internet]
    if not wanted:
        return {}
    subnet = rules.subnet_of(settings.internet_subnet)
    guests = _guest_addresses(vm for record in others for vm in record["vms"])
    taken = {rules.number_of(address) for vlan, address in guests if vlan == settings.internet_vlan}
    taken |= {rules.number_of(record["internet"]["server_address"]) for record in others if record["internet"]}
    kept = {vm: address for vm in known.vms if (address := known.address(vm, "eth0")) is not None}
    taken |= set(kept.values())
    hosts = range(rules.gateway_address(subnet) + 1, rules.last_address(subnet) + 1)
    server = rules.number_of(known.server_address) if known.server_address else None
    if server is None or server not in hosts:
        # From the top, so that guests and servers meet only when the subnet is full.
        server = next(iter(rules.lowest_free(hosts[::-1], taken)), None)
    if server is None:
        raise SpecError(f"slice {spec.name}: no address is free on the internet VLAN ({subnet})")
    taken.add(server)
    room = rules.guest_range(subnet)
    free = rules.lowest_free(room, taken)
    addresses = {"": rules.with_prefix(server, subnet)}
    for vm in wanted:
        number = kept.get(vm.name)
        if number is None or number not in room:
            number = next(free, None)
        if number is None:
            raise SpecError(f"{vm.label}: no address is free on the internet VLAN ({subnet})")
        addresses[vm.name] = rules.with_prefix(number, subnet)
    return addresses


def _guest_addresses(vms: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, str]]:
    """Each VLAN and address that a guest has."""
    return (
        (interface["vlan"], interface["address"])
        for vm in vms
        for interface in vm["interfaces"]
        if interface["address"]
    )


def vnc_ports(spec: SliceSpec, known: Known, others: Sequence[Record]) -> dict[str, int]:
    taken = {vm["vnc_port"] for record in others for vm in record["vms"]}
    taken |= {vm["vnc_port"] for vm in known.vms.values()}
    free = rules.lowest_free(range(rules.FIRST_VNC_PORT, rules.LAST_VNC_PORT + 1), taken)
    ports = {}
    for vm in spec.vms:
        port = known.vms[vm.name]["vnc_port"] if vm.name in known.vms else next(free, None)
        if port is None:
            raise SpecError(f"{vm.label}: no VNC port is free")
        ports[vm.name] = port
    return ports
