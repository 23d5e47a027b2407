# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory decides, and what its hosts have. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._addressing import LAST_VLAN
from ._placement import DEFAULT_OVERCOMMIT, Room, Worker
from ._schema import SpecError
from ._spec import parse_subnet


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


def parse_settings(options: Mapping[str, Any]) -> Settings:
    """Check the settings of an inventory, given under the lookup's option names.

    Raises:
        SpecError: one line that names the setting.
    """
    return Settings(
        internet_vlan=_vlan(options["internet_vlan"], "slices_internet_vlan"),
        internet_subnet=str(parse_subnet(options["internet_subnet"], "slices_internet_subnet")),
        reserved_vlans=tuple(_vlan(vlan, "slices_reserved_vlans") for vlan in options["reserved_vlans"]),
        quota=options["quota"],
        quotas={owner: _quota(owner, quota) for owner, quota in options["quotas"].items()},
        overcommit=_overcommit(options["overcommit"]),
        placement=options["placement"],
        image_dir=options["image_dir"],
    )


def _vlan(value: int, label: str) -> int:
    if not 1 <= value <= LAST_VLAN:
        raise SpecError(f"{label}: a VLAN is 1 to {LAST_VLAN}, not {value}")
    return value


def _quota(owner: str, value: object) -> int:
    if not str(value).isdecimal():
        raise SpecError(f"slices_quotas: the quota of {owner} must be a whole number, not {value!r}")
    return int(str(value))


def _overcommit(overcommit: Mapping[str, Any]) -> Room:
    fields = {"cores": "cores", "memory": "memory_mb", "disk": "disk_mb"}
    for key, value in overcommit.items():
        if key not in fields:
            raise SpecError(f'slices_overcommit: unknown key "{key}" (known are {", ".join(fields)})')
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise SpecError(f"slices_overcommit: {key} must be a number above 0, not {value!r}")
    return DEFAULT_OVERCOMMIT._replace(**{fields[key]: float(value) for key, value in overcommit.items()})
