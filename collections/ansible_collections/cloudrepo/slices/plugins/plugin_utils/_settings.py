# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory decides, and what its hosts have. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._addressing import LAST_VLAN
from ._placement import DEFAULT_OVERCOMMIT, Room, Stamp, Worker
from ._schema import SpecError, check_options
from ._spec import load_schema, parse_subnet


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
    overcommit: Room = DEFAULT_OVERCOMMIT
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


def parse_cluster(
    workers: Iterable[Mapping[str, Any]], network_node: Mapping[str, Any], images: Mapping[str, int]
) -> Cluster:
    """The hosts from what ``slice_host_info`` found on each, given under the lookup's option names."""
    return Cluster([_worker(worker) for worker in workers], _worker(network_node), images)


def _worker(host: Mapping[str, Any]) -> Worker:
    return Worker(
        name=host["name"],
        address=host["address"],
        problem=host.get("problem", ""),
        room=Room(host.get("cores", 0), host.get("memory_mb", 0), host.get("disk_mb", 0)),
        images=host.get("images", {}),
        stamps=[Stamp(stamp["slice"], stamp["vm"], stamp["name"], stamp["id"]) for stamp in host.get("stamps", ())],
    )


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
