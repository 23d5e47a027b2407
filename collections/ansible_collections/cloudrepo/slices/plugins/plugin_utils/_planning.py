# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan a slice: every number and name it gets, from the spec and what exists already.

A pure function: no I/O, no clock, no randomness, so equal inputs give an equal plan. What the registry holds under
the same name (slice, VM, link) keeps its numbers; only what is new gets new ones.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

from . import _addressing as rules
from ._allocation import check_subnets, internet_addresses, link_addresses, link_records, vlan_pool, vnc_ports
from ._cabling import lay_cables, name_endpoints
from ._known import Known
from ._network_node import choose_network_node
from ._placement import Placement, Room, Worker, disk_mb, vm_room
from ._schema import SpecError
from ._settings import Cluster, Settings, parse_cluster, parse_settings
from ._shares import host_shares, nothing
from ._spec import Flavor, SliceSpec, Vm, check_owner, parse_flavors, parse_spec

Record = dict[str, Any]


def plan_from(raw_spec: object, options: Mapping[str, Any], vlans: range = rules.POOL_VLANS) -> Record:
    """Plan one slice from plain data.

    Args:
        raw_spec: what the user wrote.
        options: all others of the lookup ``slice_planner``, by their names.
        vlans: what pools are made of; a measurement may plan with more than a network has.

    Raises:
        SpecError: see ``plan``, or something that is given is wrong in itself.
    """
    with _no_collection():
        flavors = parse_flavors(options["flavors"])
        settings = parse_settings(options)
        cluster = parse_cluster(options["workers"], options["network_nodes"], options["images"])
        spec = parse_spec(raw_spec, vlans)
        return plan(spec, options["owner"], flavors, cluster, options["registry"], settings, vlans)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A plan has no cycles to collect, and of a large one the search for them takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def plan(
    spec: SliceSpec,
    owner: str,
    flavors: Mapping[str, Flavor],
    cluster: Cluster,
    registry: Mapping[str, Any],
    settings: Settings,
    vlans: range = rules.POOL_VLANS,
) -> Record:
    """Plan one slice.

    Args:
        spec: what is wanted.
        owner: whose slice it is if neither the spec nor the registry says so.
        flavors: all flavors by name.
        cluster: the hosts.
        registry: the registry's snapshot, as ``slice_registry`` reads it.
        settings: what the inventory decides.
        vlans: what pools are made of.

    Returns:
        ``slice`` (the registry's record), ``changed``, ``revision``, ``next_id``, ``last_worker``, ``warnings``, and
        ``hosts`` (what each host that takes part has to realize).

    Raises:
        SpecError: the slice can't be had; one line that names the item.
    """
    cluster.check_internet(settings)
    others = [record for record in registry["slices"] if record["name"] != spec.name]
    old = next((record for record in registry["slices"] if record["name"] == spec.name), None)
    known = Known(old)
    node = choose_network_node(known, others, cluster)
    settings = cluster.settings_at(node, settings)
    _check_stamps(cluster, registry["next_id"])
    sizes = {vm.name: _flavor(vm, flavors) for vm in spec.vms}
    owner = spec.owner or known.owner or owner
    check_owner(owner)
    _check_quota(owner, spec, known, others, settings)
    for vm in spec.vms:
        _check_change(vm, sizes[vm.name], known)

    next_id = itertools.count(registry["next_id"])
    slice_id = known.id or next(next_id)
    vm_ids = {vm.name: known.vms[vm.name]["id"] if vm.name in known.vms else next(next_id) for vm in spec.vms}

    retired = _retired(spec, known)
    pool = vlan_pool(slice_id, spec, known, others, settings, vlans)
    links = link_records(spec, known, retired, pool)
    check_subnets(spec, links, settings)
    placement = _placement(spec, known, others, registry, cluster, settings)
    workers = _place(spec, sizes, known, placement)
    for leaving in retired:
        _check_reachable(leaving["worker"], f'VM "{leaving["name"]}", no longer in the spec', placement)
    for vm in spec.vms:
        _check_image(vm, sizes[vm.name], placement.workers[workers[vm.name]], cluster.images, settings)

    cables = lay_cables(spec, known)
    addresses = link_addresses(spec, links, known, retired)
    neighbours = [record for record in others if cluster.node_of(record["network_node"]) is node]
    internet = internet_addresses(spec, known, neighbours, settings)
    ports = vnc_ports(spec, known, others)
    routed = {link["number"] for link in links.values() if link["gateway"]}
    vms = []
    for vm in spec.vms:
        interfaces = _interfaces(vm, vm_ids[vm.name], cables[vm.name], links, addresses, internet, settings)
        _choose_default_route(vm, interfaces, routed)
        worker = placement.workers[workers[vm.name]]
        vms.append(_vm_record(vm_ids[vm.name], vm, sizes[vm.name], worker, ports[vm.name], interfaces))
    name_endpoints(spec, cables, links)
    record = {
        "id": slice_id,
        "name": spec.name,
        "owner": owner,
        "status": known.status or "design",
        "reason": known.reason,
        "has_run": known.has_run,
        "network_node": node.name,
        "vlan_pool": pool,
        "vms": vms + retired,
        "links": [links[link.name] for link in spec.links],
        "internet": {"server_address": internet[""]} if internet else None,
    }
    hosts = host_shares(record, cluster, settings)
    for worker in cluster.workers:
        _retire_strays(spec.name, worker, hosts)
    if retired and not internet:
        # Its port goes with the retired VMs, so until then nobody else may get its address.
        record["internet"] = known.internet
    return {
        "slice": record,
        "changed": record != old,
        "revision": registry["revision"],
        "next_id": next(next_id),
        "last_worker": placement.last_worker,
        "warnings": [*_problems(cluster), *_unknown(cluster, [record, *others])],
        "hosts": hosts,
    }


def _check_stamps(cluster: Cluster, next_id: int) -> None:
    """Refuse to plan from a registry that is behind: it would give out again what is in use."""
    for host in cluster.hosts:
        for stamp in host.stamps:
            if stamp.id >= next_id:
                raise SpecError(
                    f"{host.name} carries {stamp.name} with ID {stamp.id}, which the registry has not given out yet: "
                    f"was it lost, or replaced by an older copy? Run the playbook rebuild_registry"
                )


def _retire_strays(slice_name: str, worker: Worker, hosts: dict[str, Record]) -> None:
    """Have a worker lose the VMs that the slice has elsewhere: given up for lost, it is back."""
    share = hosts.get(worker.name, nothing())
    wanted = {vm["name"] for vm in (*share["vms"], *share["retired"])}
    strays = {stamp.vm for stamp in worker.stamps if stamp.slice == slice_name and stamp.vm not in wanted}
    if strays and not worker.problem:
        share["retired"] += [{"name": name} for name in sorted(strays)]
        hosts[worker.name] = share


def _problems(cluster: Cluster) -> Iterable[str]:
    for worker in cluster.workers:
        if worker.problem:
            yield f"worker {worker.name} {worker.problem}: it gets no new VMs"
    for node in cluster.network_nodes:
        if node.problem:
            yield f"network node {node.name} {node.problem}: it gets no new slices"


def _unknown(cluster: Cluster, records: Sequence[Record]) -> Iterable[str]:
    """What may use numbers that are given out again."""
    names = {record["name"] for record in records}
    for worker in cluster.workers:
        if strangers := sorted({stamp.slice for stamp in worker.stamps} - names - {""}):
            what = f"worker {worker.name} carries something of {', '.join(strangers)}"
            yield f"{what}, which the registry does not know: run audit_slices"


def _flavor(vm: Vm, flavors: Mapping[str, Flavor]) -> Flavor:
    if vm.flavor not in flavors:
        raise SpecError(f"{vm.label}: unknown flavor {vm.flavor[:60]!r} (there are: {', '.join(sorted(flavors))})")
    return flavors[vm.flavor]


def _check_quota(owner: str, spec: SliceSpec, known: Known, others: Sequence[Record], settings: Settings) -> None:
    wanted = len(spec.vms)
    if owner == known.owner and wanted <= sum(not vm["retired"] for vm in known.vms.values()):
        return  # A quota that was lowered meanwhile takes nothing away.
    has = sum(not vm["retired"] for record in others if record["owner"] == owner for vm in record["vms"])
    limit = settings.quotas.get(owner, settings.quota)
    if has + wanted > limit:
        raise SpecError(
            f"owner {owner} is over quota: {has} of {limit} VMs in other slices, {wanted} wanted in this one"
        )


def _check_change(vm: Vm, flavor: Flavor, known: Known) -> None:
    """Refuse what a disk that exists can't follow."""
    old = known.vms.get(vm.name)
    if old is None or not known.started:
        return
    again = "remove the VM from the spec, deploy, and add it again; or delete the slice"
    if vm.worker not in (None, old["worker"]):
        raise SpecError(f"{vm.label}: is on worker {old['worker']}, a VM is not moved ({again})")
    if flavor.image != old["image"]:
        raise SpecError(f"{vm.label}: its disk is backed by {old['image']}, not {flavor.image} ({again})")
    if flavor.disk_gb < old["disk_gb"]:
        raise SpecError(f"{vm.label}: its disk of {old['disk_gb']} GB can't shrink to {flavor.disk_gb} GB ({again})")


def _check_image(vm: Vm, flavor: Flavor, worker: Worker, images: Mapping[str, int], settings: Settings) -> None:
    size = images.get(flavor.image, worker.images.get(flavor.image))
    if size is None:
        raise SpecError(
            f'{vm.label}: base image {flavor.image} of flavor "{flavor.name}" is neither in '
            f"{settings.image_dir} on the controller nor on {worker.name}"
        )
    if disk_mb(flavor.disk_gb) * 1024**2 < size:
        raise SpecError(
            f'{vm.label}: the disk of flavor "{flavor.name}" ({flavor.disk_gb} GB) is smaller than its base image '
            f"{flavor.image} ({size / 1024**3:.2f} GB)"
        )


def _placement(
    spec: SliceSpec,
    known: Known,
    others: Sequence[Record],
    registry: Mapping[str, Any],
    cluster: Cluster,
    settings: Settings,
) -> Placement:
    # What this slice gives up goes as soon as all that is new runs, so it does not count: for a moment memory is
    # overcommitted.
    wanted = {vm.name for vm in spec.vms if _keeps_place(vm, known)}
    placed = [vm for record in others for vm in record["vms"]]
    placed += [vm for name, vm in known.vms.items() if name in wanted]
    return Placement(cluster.workers, placed, settings.overcommit, settings.placement, registry["last_worker"])


def _keeps_place(vm: Vm, known: Known) -> bool:
    return vm.name in known.vms and vm.worker in (None, known.vms[vm.name]["worker"])


def _place(spec: SliceSpec, sizes: Mapping[str, Flavor], known: Known, placement: Placement) -> dict[str, str]:
    """The worker of each VM. Those that have a choice come last, so that they leave room for those that have none."""
    needs = {name: Room(flavor.cores, flavor.memory_mb, disk_mb(flavor.disk_gb)) for name, flavor in sizes.items()}
    workers = {}
    for vm in spec.vms:
        if _keeps_place(vm, known):
            old = known.vms[vm.name]
            workers[vm.name] = _check_reachable(old["worker"], vm.label, placement)
            placement.grow(old["worker"], vm_room(old), needs[vm.name], vm.label)
    for vm in spec.vms:
        if vm.name not in workers and vm.worker is not None:
            workers[vm.name] = placement.place_on(vm.worker, needs[vm.name], vm.label)
    for vm in spec.vms:
        if vm.name not in workers:
            workers[vm.name] = placement.place(needs[vm.name], vm.label)
    return workers


def _check_reachable(name: str, label: str, placement: Placement) -> str:
    worker = placement.workers.get(name)
    if worker is None:
        raise SpecError(f"{label}: is on worker {name}, which is not in the inventory's group workers")
    if worker.problem:
        raise SpecError(f"{label}: is on worker {name}, which {worker.problem}")
    return name


def _vm_record(vm_id: int, vm: Vm, flavor: Flavor, worker: Worker, vnc_port: int, interfaces: list[Record]) -> Record:
    return {
        "id": vm_id,
        "name": vm.name,
        "flavor": vm.flavor,
        "cores": flavor.cores,
        "memory_mb": flavor.memory_mb,
        "disk_gb": flavor.disk_gb,
        "image": flavor.image,
        "worker": worker.name,
        "worker_address": worker.address,
        "vnc_port": vnc_port,
        "retired": False,
        "interfaces": interfaces,
    }


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
    interfaces = [_interface(vm_id, 0, settings.internet_vlan if vm.internet else None, None, internet.get(vm.name))]
    for index in range(1, count + 1):
        link = links.get(cables.get(f"eth{index}", ""))
        if link is None:
            interfaces.append(_interface(vm_id, index, None, None, None))
        else:
            address = addresses.get((vm.name, link["name"]))
            interfaces.append(_interface(vm_id, index, link["vlan"], link["number"], address))
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


def _choose_default_route(vm: Vm, interfaces: list[Record], routed: Set[int]) -> None:
    """Mark the one interface whose DHCP offers a router; ``routed`` are the numbers of links with a gateway."""
    able = [
        interface
        for interface in interfaces
        if interface["address"] and (interface["link"] is None or interface["link"] in routed)
    ]
    if vm.default_route is not None:
        able = [interface for interface in able if interface["name"] == vm.default_route]
        if not able:
            raise SpecError(f"{vm.label}: default_route: {vm.default_route} is on no network with DHCP and a gateway")
    if able:
        able[0]["default_route"] = True


def _retired(spec: SliceSpec, known: Known) -> list[Record]:
    """VMs that are no longer wanted. They run until all others do, so whatever they use stays theirs until then."""
    wanted = {vm.name for vm in spec.vms}
    return [{**vm, "retired": True} for name, vm in known.vms.items() if name not in wanted and known.started]
