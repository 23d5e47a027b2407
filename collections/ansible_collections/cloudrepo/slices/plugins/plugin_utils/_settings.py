# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory decides, and what its hosts have. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._placement import DEFAULT_OVERCOMMIT, Room, Worker


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
