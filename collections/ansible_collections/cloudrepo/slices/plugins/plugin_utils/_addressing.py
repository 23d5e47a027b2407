# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VLANs, subnets, addresses and device names: the rules by which numbers are made. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ..module_utils._names import IFNAME_MAX
from ._netaddr import IPAddress, IPNetwork

FIRST_ID = 1000
FIRST_VLAN = 100
LAST_VLAN = 4094
FIRST_VNC_PORT = 5901
LAST_VNC_PORT = 65535
POOL_SIZE = 20


def find_pool(slice_id: int, size: int, taken: Collection[int]) -> int | None:
    """The first VLAN of a free block of ``size`` VLANs, or None.

    The block that the slice's ID prefers, else the lowest free one. The preference alone repeats every 100 slices
    and runs over reserved VLANs, so it is checked like any other block.
    """
    first = FIRST_VLAN + (slice_id % 100) * POOL_SIZE
    if first + size - 1 <= LAST_VLAN and not any(vlan in taken for vlan in range(first, first + size)):
        return first
    run = 0
    for vlan in range(FIRST_VLAN, LAST_VLAN + 1):
        run = 0 if vlan in taken else run + 1
        if run == size:
            return vlan - size + 1
    return None


def link_subnet(vlan: int) -> IPNetwork:
    """The subnet of a link that names none."""
    if vlan <= 255:
        return IPNetwork(f"192.168.{vlan}.0/24")
    return IPNetwork(f"172.{16 + vlan // 256}.{vlan % 256}.0/24")


def gateway_address(subnet: IPNetwork) -> int:
    """The first host address."""
    return int(subnet.first) + 1


def last_address(subnet: IPNetwork) -> int:
    """The last host address."""
    return int(subnet.last) - 1


def guest_range(subnet: IPNetwork) -> range:
    """The addresses that guests get: ``.10`` to ``.250`` of a /24; of a smaller subnet all but its ends.

    Both ends are left free: the first is the gateway, the last the DHCP server of a link without one.
    """
    if subnet.prefixlen <= 24:
        return range(int(subnet.first) + 10, int(subnet.last) - 4)
    return range(int(subnet.first) + 2, int(subnet.last) - 1)


def with_prefix(address: int, subnet: IPNetwork) -> str:
    """``192.168.100.10/24``."""
    return f"{IPAddress(address, 4)}/{subnet.prefixlen}"


def lowest_free(numbers: Iterable[int], taken: Collection[int]) -> Iterator[int]:
    """The numbers that are not taken, in order. Reads ``taken`` as it goes, so what the caller adds counts."""
    return (number for number in numbers if number not in taken)


def mac_address(vm_id: int, index: int) -> str:
    """The MAC of a VM's interface, in QEMU's range."""
    octets = (0x52, 0x54, vm_id >> 16 & 0xFF, vm_id >> 8 & 0xFF, vm_id & 0xFF, index)
    return ":".join(f"{octet:02x}" for octet in octets)


def tap_name(vm_id: int, index: int) -> str:
    """The TAP of a VM's interface; a kernel name has at most 15 characters."""
    name = f"tap_{vm_id}_eth{index}"
    return name if len(name) <= IFNAME_MAX else f"t{vm_id}e{index}"


def gateway_port(vlan: int) -> str:
    """The internal port of a link on the network node."""
    return f"gw_vlan{vlan}"


def internet_port(slice_id: int) -> str:
    """The internal port through which a slice's DHCP and DNS server serves the internet VLAN."""
    return f"inet_{slice_id}"


def namespace(slice_id: int) -> str:
    """The slice's network namespace on the network node."""
    return f"slice-{slice_id}"
