# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory decides, and what its hosts have. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ._addressing import LAST_VLAN
from ._placement import DEFAULT_OVERCOMMIT, Room, Stamp, Worker
from ._schema import SpecError, check_options
from ._spec import load_schema, parse_subnet


@dataclass(frozen=True)
class Settings:
    """What the inventory decides.

    Attributes:
        internet_vlan: VLAN of all internet interfaces, for a network node that has none of its own.
        internet_subnet: its network; the first address is the gateway. Of a network node likewise.
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
    overcommit: Room = DEFAULT_OVERCOMMIT
    placement: str = "round_robin"
    image_dir: str = "/tmp/vm_images"


@dataclass(frozen=True)
class NetworkNode:
    """A host with the gateways, DHCP and NAT of some slices; it may be a worker too.

    Attributes:
        name: its inventory name.
        address: how Ansible reaches it.
        problem: why it gets no slices; empty if it can.
        stamps: what it carries of slices.
        internet_vlan: that of its slices, where it has one of its own; ``internet_subnet`` is its network.
    """

    name: str
    address: str
    problem: str = ""
    stamps: Sequence[Stamp] = ()
    internet_vlan: int | None = None
    internet_subnet: str | None = None


@dataclass(frozen=True)
class Cluster:
    """The hosts, as they were found, and what the controller has.

    Attributes:
        workers: all hosts of the group ``workers``, in the inventory's order.
        network_nodes: all hosts of the group ``network_node``, likewise.
        images: virtual size in bytes of each base image on the controller.
    """

    workers: Sequence[Worker]
    network_nodes: Sequence[NetworkNode]
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def hosts(self) -> Sequence[Worker | NetworkNode]:
        """All of them; one that is both is there twice."""
        return [*self.network_nodes, *self.workers]

    def node_of(self, name: str) -> NetworkNode:
        """The network node of a record that names it; records from before there could be several name none."""
        if not name:
            return self.network_nodes[0]
        known = (node for node in self.network_nodes if node.name == name)
        return next(known, NetworkNode(name, name, "is not in the inventory"))

    def settings_at(self, node: NetworkNode, settings: Settings) -> Settings:
        """The settings for slices of a network node: its own way to the internet, and what is taken by the others'."""
        vlans = [_internet_vlan(each, settings) for each in self.network_nodes]
        return replace(
            settings,
            internet_vlan=_internet_vlan(node, settings),
            internet_subnet=node.internet_subnet or settings.internet_subnet,
            reserved_vlans=(*settings.reserved_vlans, *vlans),
        )

    def check_internet(self, settings: Settings) -> None:
        """Refuse two gateways on one VLAN: they would have the same address.

        Raises:
            SpecError: one line that names both.
        """
        holders: dict[int, str] = {}
        for node in self.network_nodes:
            vlan = _internet_vlan(node, settings)
            other = holders.setdefault(vlan, node.name)
            if other != node.name:
                raise SpecError(
                    f"network nodes {other} and {node.name} both have internet VLAN {vlan}: "
                    f"set slices_internet_vlan to another one for each of them in the inventory"
                )


def _internet_vlan(node: NetworkNode, settings: Settings) -> int:
    return node.internet_vlan or settings.internet_vlan


def parse_cluster(
    workers: Iterable[Mapping[str, Any]], network_nodes: Iterable[Mapping[str, Any]], images: Mapping[str, int]
) -> Cluster:
    """The hosts from what ``slice_host_info`` found on each, given under the lookup's option names."""
    nodes = [parse_network_node(node) for node in network_nodes]
    return Cluster([_worker(worker) for worker in workers], nodes, images)


def _worker(host: Mapping[str, Any]) -> Worker:
    return Worker(
        name=host["name"],
        address=host["address"],
        problem=host.get("problem", ""),
        room=Room(host.get("cores", 0), host.get("memory_mb", 0), host.get("disk_mb", 0)),
        images=host.get("images", {}),
        stamps=_stamps(host),
    )


def parse_network_node(host: Mapping[str, Any]) -> NetworkNode:
    """A network node, and its own way to the internet if it has one.

    Raises:
        SpecError: that makes no sense; one line that names the host and the setting.
    """
    vlan, subnet, label = host.get("internet_vlan"), host.get("internet_subnet"), f"network node {host['name']}: "
    integer = {"slices_internet_vlan": {"type": "int"}}
    vlan = check_options({"slices_internet_vlan": vlan}, integer, label.rstrip(": "))["slices_internet_vlan"]
    return NetworkNode(
        name=host["name"],
        address=host["address"],
        problem=host.get("problem", ""),
        stamps=_stamps(host),
        internet_vlan=None if vlan is None else _vlan(vlan, label + "slices_internet_vlan"),
        internet_subnet=None if subnet is None else str(parse_subnet(subnet, label + "slices_internet_subnet")),
    )


def _stamps(host: Mapping[str, Any]) -> list[Stamp]:
    return [Stamp(stamp["slice"], stamp["vm"], stamp["name"], stamp["id"]) for stamp in host.get("stamps", ())]


def parse_settings(options: Mapping[str, Any]) -> Settings:
    """Check the settings of an inventory, given under the lookup's option names.

    Raises:
        SpecError: one line that names the setting.
    """
    schema = load_schema()
    names = [f"slices_{name}" for name in Settings.__dataclass_fields__]
    given = {f"slices_{name}": value for name, value in options.items() if f"slices_{name}" in names}
    checked = check_options(given, {name: schema[name] for name in names}, "inventory")
    settings = {name.removeprefix("slices_"): value for name, value in checked.items()}
    return Settings(
        **{
            **settings,
            "internet_vlan": _vlan(settings["internet_vlan"], "slices_internet_vlan"),
            "internet_subnet": str(parse_subnet(settings["internet_subnet"], "slices_internet_subnet")),
            "reserved_vlans": tuple(_vlan(vlan, "slices_reserved_vlans") for vlan in settings["reserved_vlans"]),
            "quota": _quota(settings["quota"], "slices_quota"),
            "quotas": _quotas(settings["quotas"] or {}),
            "overcommit": _overcommit(settings["overcommit"] or {}),
        }
    )


def _vlan(value: int, label: str) -> int:
    if not 1 <= value <= LAST_VLAN:
        raise SpecError(f"{label}: a VLAN is 1 to {LAST_VLAN}, not {value}")
    return value


def _quotas(given: Mapping[str, Any]) -> dict[str, int]:
    integer = {owner: {"type": "int", "required": True} for owner in given}
    checked = check_options(given, integer, "slices_quotas")
    return {owner: _quota(quota, f"slices_quotas: {owner}") for owner, quota in checked.items()}


def _quota(value: int, label: str) -> int:
    if value < 0:
        raise SpecError(f"{label} must be 0 or more VMs, not {value}")
    return value


def _overcommit(overcommit: Mapping[str, float]) -> Room:
    fields = {"cores": "cores", "memory": "memory_mb", "disk": "disk_mb"}
    for key, value in overcommit.items():
        if value <= 0:
            raise SpecError(f"slices_overcommit: {key} must be a number above 0, not {value}")
    return DEFAULT_OVERCOMMIT._replace(**{fields[key]: float(value) for key, value in overcommit.items()})
