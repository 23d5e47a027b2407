# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan a slice: every number and name it gets, from the spec and what exists already.

A pure function: no I/O, no clock, no randomness, so equal inputs give an equal plan. What the registry holds under
the same name (slice, VM, link) keeps its numbers; only what is new gets new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netaddr import IPAddress, IPNetwork

from . import _addressing as rules
from ._placement import Placement, Room, Worker, disk_mb, vm_room
from ._schema import SpecError
from ._shares import host_shares
from ._spec import MAX_DATA_INTERFACES, Flavor, Link, SliceSpec, Vm

Record = dict[str, Any]

# No disk exists yet in these states, so anything about a VM may still change.
_NOTHING_STARTED = ("design",)


@dataclass(frozen=True)
class Settings:
    """What the inventory decides.

    Attributes:
        internet_vlan: VLAN of all internet interfaces.
        internet_subnet: its network; the first address is the gateway.
        reserved_vlans: VLANs that no pool may contain.
        quota: how many VMs an owner may have; ``quotas`` has exceptions by name.
        overcommit: how many times over a worker's cores, memory and disk may be promised.
        placement: name of the policy.
        image_dir: the controller's folder of base images, named in errors.
    """

    internet_vlan: int = 400
    internet_subnet: str = "10.60.7.0/24"
    reserved_vlans: tuple[int, ...] = ()
    quota: int = 10
    quotas: Mapping[str, int] = field(default_factory=dict)
    overcommit: Room = Room(4.0, 1.0, 1.0)
    placement: str = "round_robin"
    image_dir: str = "/tmp/vm_images"


@dataclass(frozen=True)
class Cluster:
    """The hosts, as they were found, and what the controller has.

    Attributes:
        workers: all hosts of the group ``workers``, in the inventory's order.
        network_node: the host with gateways, DHCP and NAT; it may be a worker too.
        images: virtual size in bytes of each base image on the controller.
    """

    workers: Sequence[Worker]
    network_node: Worker
    images: Mapping[str, int] = field(default_factory=dict)


def plan(
    spec: SliceSpec,
    owner: str,
    flavors: Mapping[str, Flavor],
    cluster: Cluster,
    registry: Mapping[str, Any],
    settings: Settings,
) -> Record:
    """Plan one slice.

    Args:
        spec: what is wanted.
        owner: whose slice it is if neither the spec nor the registry says so.
        flavors: all flavors by name.
        cluster: the hosts.
        registry: the registry's snapshot, as ``slice_registry`` reads it.
        settings: what the inventory decides.

    Returns:
        ``slice`` (the registry's record), ``changed``, ``revision``, ``next_id``, ``last_worker``, ``warnings``, and
        ``hosts`` (what each host that takes part has to realize).

    Raises:
        SpecError: the slice can't be had; one line that names the item.
    """
    others = [record for record in registry["slices"] if record["name"] != spec.name]
    old = next((record for record in registry["slices"] if record["name"] == spec.name), None)
    known = _Known(old)
    if cluster.network_node.problem:
        raise SpecError(f"network node {cluster.network_node.name} {cluster.network_node.problem}")
    sizes = {vm.name: _flavor(vm, flavors) for vm in spec.vms}
    owner = spec.owner or known.owner or owner
    _check_quota(owner, len(spec.vms), others, settings)
    for vm in spec.vms:
        _check_change(vm, sizes[vm.name], known)

    slice_id = known.id or registry["next_id"]
    next_id = registry["next_id"] + (0 if known.id else 1)
    vm_ids = {}
    for vm in spec.vms:
        vm_ids[vm.name] = known.vms[vm.name]["id"] if vm.name in known.vms else next_id
        next_id += 0 if vm.name in known.vms else 1

    pool = _pool(slice_id, spec, known, others, settings)
    links = _links(spec, known, pool)
    _check_subnets(spec, links, settings)
    placement = _placement(spec, known, others, registry, cluster, settings)
    workers = _place(spec, sizes, known, placement)
    for vm in spec.vms:
        _check_image(vm, sizes[vm.name], placement.workers[workers[vm.name]], cluster.images, settings)

    cables = _cables(spec, known)
    addresses = _link_addresses(spec, links, known)
    internet = _internet_addresses(spec, known, others, settings)
    ports = _vnc_ports(spec, known, others)
    vms = [
        {
            "id": vm_ids[vm.name],
            "name": vm.name,
            "flavor": vm.flavor,
            "cores": sizes[vm.name].cores,
            "memory_mb": sizes[vm.name].memory_mb,
            "disk_gb": sizes[vm.name].disk_gb,
            "image": sizes[vm.name].image,
            "worker": workers[vm.name],
            "worker_address": placement.workers[workers[vm.name]].address,
            "vnc_port": ports[vm.name],
            "retired": False,
            "interfaces": _interfaces(
                vm, vm_ids[vm.name], cables[vm.name], links, addresses, internet, settings
            ),
        }
        for vm in spec.vms
    ]
    _name_endpoints(spec, cables, links)
    record = {
        "id": slice_id,
        "name": spec.name,
        "owner": owner,
        "status": known.status or "design",
        "reason": known.reason,
        "vlan_pool": pool,
        "vms": vms + _retired(spec, known, placement, settings),
        "links": [links[link.name] for link in spec.links],
        "internet": {"server_address": internet[""]} if internet else None,
    }
    return {
        "slice": record,
        "changed": record != old,
        "revision": registry["revision"],
        "next_id": next_id,
        "last_worker": placement.last_worker,
        "warnings": [
            f"worker {w.name} {w.problem}: it gets no new VMs" for w in cluster.workers if w.problem
        ],
        "hosts": host_shares(record, cluster, settings),
    }


class _Known:
    """What the registry holds of the slice, by the names that its numbers are kept under."""

    def __init__(self, old: Mapping[str, Any] | None) -> None:
        old = old or {
            "id": 0,
            "owner": "",
            "status": "",
            "reason": "",
            "vlan_pool": None,
            "vms": [],
            "links": [],
            "internet": None,
        }
        self.id: int = old["id"]
        self.owner: str = old["owner"]
        self.status: str = old["status"]
        self.reason: str = old["reason"]
        self.pool: Mapping[str, int] | None = old["vlan_pool"]
        self.started = bool(self.id) and self.status not in _NOTHING_STARTED
        self.vms: dict[str, Mapping[str, Any]] = {vm["name"]: vm for vm in old["vms"]}
        self.links: dict[str, Mapping[str, Any]] = {link["name"]: link for link in old["links"]}
        self.server_address: str | None = (old["internet"] or {}).get("server_address")
        self._ends = {
            (end["vm"], link["name"]): end["interface"] for link in old["links"] for end in link["endpoints"]
        }

    def interface(self, vm: str, link: str) -> str | None:
        """The interface by which a VM is on a link."""
        return self._ends.get((vm, link))

    def address(self, vm: str, interface: str | None) -> int | None:
        """The address of a VM's interface, as a number."""
        for known in self.vms.get(vm, {}).get("interfaces", ()):
            if known["name"] == interface and known["address"]:
                return _number(known["address"])
        return None


def _flavor(vm: Vm, flavors: Mapping[str, Flavor]) -> Flavor:
    if vm.flavor not in flavors:
        raise SpecError(f'{vm.label}: unknown flavor "{vm.flavor}" (there are: {", ".join(sorted(flavors))})')
    return flavors[vm.flavor]


def _check_quota(owner: str, wanted: int, others: Sequence[Record], settings: Settings) -> None:
    has = sum(not vm["retired"] for record in others if record["owner"] == owner for vm in record["vms"])
    limit = settings.quotas.get(owner, settings.quota)
    if has + wanted > limit:
        raise SpecError(
            f"owner {owner} is over quota: {has} of {limit} VMs in other slices, {wanted} wanted in this one"
        )


def _check_change(vm: Vm, flavor: Flavor, known: _Known) -> None:
    """Refuse what a disk that exists can't follow."""
    old = known.vms.get(vm.name)
    if old is None or not known.started:
        return
    again = "remove the VM from the spec, deploy, and add it again"
    if vm.worker not in (None, old["worker"]):
        raise SpecError(f"{vm.label}: is on worker {old['worker']}, a VM is not moved ({again})")
    if flavor.image != old["image"]:
        raise SpecError(f"{vm.label}: its disk is backed by {old['image']}, not {flavor.image} ({again})")
    if flavor.disk_gb < old["disk_gb"]:
        raise SpecError(
            f"{vm.label}: its disk of {old['disk_gb']} GB can't shrink to {flavor.disk_gb} GB ({again})"
        )


def _check_image(
    vm: Vm, flavor: Flavor, worker: Worker, images: Mapping[str, int], settings: Settings
) -> None:
    size = images.get(flavor.image, worker.images.get(flavor.image))
    if size is None:
        raise SpecError(
            f'{vm.label}: base image {flavor.image} of flavor "{flavor.name}" is neither in {settings.image_dir} on the '
            f"controller nor on {worker.name}"
        )
    if disk_mb(flavor.disk_gb) * 1024**2 < size:
        raise SpecError(
            f'{vm.label}: the disk of flavor "{flavor.name}" ({flavor.disk_gb} GB) is smaller than its base image '
            f"{flavor.image} ({size / 1024**3:.2f} GB)"
        )


def _pool(
    slice_id: int, spec: SliceSpec, known: _Known, others: Sequence[Record], settings: Settings
) -> dict[str, int]:
    size = spec.vlan_pool_size or rules.POOL_SIZE
    taken = set(settings.reserved_vlans) | {settings.internet_vlan}
    holders: dict[int, str] = {}
    for record in others:
        first = record["vlan_pool"]["first"]
        holders.update(dict.fromkeys(range(first, first + record["vlan_pool"]["size"]), record["name"]))
    if known.pool is not None:
        pool = {"first": known.pool["first"], "size": max(known.pool["size"], size)}
        for vlan in range(pool["first"] + known.pool["size"], pool["first"] + pool["size"]):
            if vlan in taken or vlan in holders or vlan > rules.LAST_VLAN:
                holder = f"slice {holders[vlan]}" if vlan in holders else "the reserved VLANs"
                raise SpecError(
                    f"vlan_pool_size: the pool can't grow to {size} VLANs, VLAN {vlan} belongs to {holder}"
                )
        return pool
    found = rules.find_pool(slice_id, size, taken | holders.keys())
    if found is None:
        raise SpecError(f"slice {spec.name}: no {size} VLANs in a row are free for its pool")
    return {"first": found, "size": size}


def _links(spec: SliceSpec, known: _Known, pool: Mapping[str, int]) -> dict[str, Record]:
    """The links' records by name, without their endpoints."""
    if len(spec.links) > pool["size"]:
        raise SpecError(
            f"links: {len(spec.links)} links, but the slice's VLAN pool holds {pool['size']} (vlan_pool_size)"
        )
    kept = [known.links[link.name] for link in spec.links if link.name in known.links]
    numbers = rules.lowest_free(range(1, pool["size"] + 1), {link["number"] for link in kept})
    vlans = rules.lowest_free(
        range(pool["first"], pool["first"] + pool["size"]), {link["vlan"] for link in kept}
    )
    links = {}
    for link in spec.links:
        old = known.links.get(link.name)
        vlan = old["vlan"] if old else next(vlans)
        links[link.name] = _link(link, old["number"] if old else next(numbers), vlan)
    return links


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
        "server_address": server,
        "endpoints": [],
    }


def _check_subnets(spec: SliceSpec, links: Mapping[str, Record], settings: Settings) -> None:
    """Refuse overlaps: a guest or gateway on both could not tell them apart."""
    networks = [(IPNetwork(links[link.name]["subnet"]), link.label) for link in spec.links]
    if any(vm.internet for vm in spec.vms):
        networks.append((IPNetwork(settings.internet_subnet), "the internet VLAN"))
    networks.sort(key=lambda pair: (pair[0].first, -pair[0].last))
    for (wide, first), (narrow, second) in zip(networks, networks[1:], strict=False):
        if narrow.first <= wide.last:
            raise SpecError(
                f"{second}: subnet {narrow} overlaps {wide} of {first}; give one of them another subnet"
            )


def _placement(
    spec: SliceSpec,
    known: _Known,
    others: Sequence[Record],
    registry: Mapping[str, Any],
    cluster: Cluster,
    settings: Settings,
) -> Placement:
    # What this slice gives up is gone before anything new of it starts, so it does not count.
    wanted = {vm.name for vm in spec.vms if _keeps_place(vm, known)}
    placed = [vm for record in others for vm in record["vms"]]
    placed += [vm for name, vm in known.vms.items() if name in wanted]
    return Placement(
        cluster.workers, placed, settings.overcommit, settings.placement, registry["last_worker"]
    )


def _keeps_place(vm: Vm, known: _Known) -> bool:
    return vm.name in known.vms and vm.worker in (None, known.vms[vm.name]["worker"])


def _place(
    spec: SliceSpec, sizes: Mapping[str, Flavor], known: _Known, placement: Placement
) -> dict[str, str]:
    workers = {}
    for vm in spec.vms:
        flavor = sizes[vm.name]
        need = Room(flavor.cores, flavor.memory_mb, disk_mb(flavor.disk_gb))
        if _keeps_place(vm, known):
            old = known.vms[vm.name]
            workers[vm.name] = _check_reachable(old["worker"], vm.label, placement)
            placement.grow(old["worker"], vm_room(old), need, vm.label)
        elif vm.worker is not None:
            workers[vm.name] = placement.place_on(vm.worker, need, vm.label)
        else:
            workers[vm.name] = placement.place(need, vm.label)
    return workers


def _check_reachable(name: str, label: str, placement: Placement) -> str:
    worker = placement.workers.get(name)
    if worker is None:
        raise SpecError(f"{label}: is on worker {name}, which is not in the inventory's group workers")
    if worker.problem:
        raise SpecError(f"{label}: is on worker {name}, which {worker.problem}")
    return name


def _cables(spec: SliceSpec, known: _Known) -> dict[str, dict[str, str]]:
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
        if held is None or held in cables[vm] or int(held[3:]) > limits[vm]:
            new_ends.append((vm, link))
        else:
            cables[vm][held] = link.name
    next_free = dict.fromkeys(cables, 1)
    for vm, link in new_ends:
        while f"eth{next_free[vm]}" in cables[vm]:
            next_free[vm] += 1
        if next_free[vm] > limits[vm]:
            raise SpecError(f'{link.label}: VM "{vm}" has no free data interface (interfaces: {limits[vm]})')
        cables[vm][f"eth{next_free[vm]}"] = link.name
    return cables


def _name_endpoints(
    spec: SliceSpec, cables: Mapping[str, Mapping[str, str]], links: Mapping[str, Record]
) -> None:
    interfaces = {(vm, link): name for vm, ends in cables.items() for name, link in ends.items()}
    for link in spec.links:
        links[link.name]["endpoints"] = [
            {"vm": end.vm, "interface": interfaces[end.vm, link.name]} for end in link.endpoints
        ]


def _link_addresses(
    spec: SliceSpec, links: Mapping[str, Record], known: _Known
) -> dict[tuple[str, str], str]:
    """The address of each VM on each link with DHCP, by VM and link."""
    addresses = {}
    for link in spec.links:
        if not link.dhcp:
            continue
        subnet = IPNetwork(links[link.name]["subnet"])
        room = rules.guest_range(subnet)
        if len(link.endpoints) > len(room):
            raise SpecError(
                f"{link.label}: subnet {subnet} has addresses for {len(room)} guests, not {len(link.endpoints)}"
            )
        kept: dict[str, int] = {}
        if known.links.get(link.name, {}).get("subnet") == str(subnet):
            for end in link.endpoints:
                address = known.address(end.vm, known.interface(end.vm, link.name))
                if address is not None and address in room:
                    kept[end.vm] = address
        free = rules.lowest_free(room, set(kept.values()))
        for end in link.endpoints:
            number = kept[end.vm] if end.vm in kept else next(free)
            addresses[end.vm, link.name] = rules.with_prefix(number, subnet)
    return addresses


def _internet_addresses(
    spec: SliceSpec, known: _Known, others: Sequence[Record], settings: Settings
) -> dict[str, str]:
    """The address of each VM with internet, and under "" that of the slice's own server there."""
    wanted = [vm for vm in spec.vms if vm.internet]
    if not wanted:
        return {}
    subnet = IPNetwork(settings.internet_subnet)
    taken = set(_addresses_on(settings.internet_vlan, others))
    kept = {vm: address for vm in known.vms if (address := known.address(vm, "eth0")) is not None}
    taken |= set(kept.values())
    hosts = range(rules.gateway_address(subnet) + 1, rules.last_address(subnet) + 1)
    server = _number(known.server_address) if known.server_address else None
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


def _addresses_on(vlan: int, records: Iterable[Mapping[str, Any]]) -> Iterable[int]:
    for record in records:
        if record["internet"]:
            yield _number(record["internet"]["server_address"])
        for vm in record["vms"]:
            for interface in vm["interfaces"]:
                if interface["vlan"] == vlan and interface["address"]:
                    yield _number(interface["address"])


def _vnc_ports(spec: SliceSpec, known: _Known, others: Sequence[Record]) -> dict[str, int]:
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


def _interfaces(
    vm: Vm,
    vm_id: int,
    cables: Mapping[str, str],
    links: Mapping[str, Record],
    addresses: Mapping[tuple[str, str], str],
    internet: Mapping[str, str],
    settings: Settings,
) -> list[Record]:
    count = vm.interfaces
    if count is None:
        count = max((int(name[3:]) for name in cables), default=0)
    interfaces = [
        _interface(vm_id, 0, settings.internet_vlan if vm.internet else None, None, internet.get(vm.name))
    ]
    for index in range(1, count + 1):
        link = links.get(cables.get(f"eth{index}", ""))
        if link is None:
            interfaces.append(_interface(vm_id, index, None, None, None))
        else:
            address = addresses.get((vm.name, link["name"]))
            interfaces.append(_interface(vm_id, index, link["vlan"], link["number"], address))
    _choose_default_route(vm, interfaces, {link["number"]: link for link in links.values()})
    return interfaces


def _interface(vm_id: int, index: int, vlan: int | None, link: int | None, address: str | None) -> Record:
    return {
        "name": f"eth{index}",
        "mac": rules.mac_address(vm_id, index),
        "tap": rules.tap_name(vm_id, index),
        "vlan": vlan,
        "link": link,
        "address": address,
        "default_route": False,
    }


def _choose_default_route(vm: Vm, interfaces: list[Record], links: Mapping[int, Record]) -> None:
    """Mark the one interface whose DHCP offers a router."""
    able = [
        interface
        for interface in interfaces
        if interface["address"] and (interface["link"] is None or links[interface["link"]]["gateway"])
    ]
    if vm.default_route is not None:
        able = [interface for interface in able if interface["name"] == vm.default_route]
        if not able:
            raise SpecError(
                f"{vm.label}: default_route: {vm.default_route} is on no network with DHCP and a gateway"
            )
    if able:
        able[0]["default_route"] = True


def _retired(spec: SliceSpec, known: _Known, placement: Placement, settings: Settings) -> list[Record]:
    """VMs that are no longer wanted: their numbers stay theirs until a deploy has removed them."""
    wanted = {vm.name for vm in spec.vms}
    retired = []
    for name, vm in known.vms.items():
        if name in wanted or not known.started:
            continue
        _check_reachable(vm["worker"], f'VM "{name}", no longer in the spec', placement)
        # Link VLANs and addresses go back to the slice at once, for the same run takes the ports away.
        interfaces = [
            interface
            if interface["vlan"] == settings.internet_vlan
            else {**interface, "vlan": None, "link": None, "address": None, "default_route": False}
            for interface in vm["interfaces"]
        ]
        retired.append({**vm, "retired": True, "interfaces": interfaces})
    return retired


def _number(address: str) -> int:
    return int(IPAddress(address.partition("/")[0]))
