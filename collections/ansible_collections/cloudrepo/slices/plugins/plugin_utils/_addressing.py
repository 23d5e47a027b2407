# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VLANs, subnets, addresses and device names: the rules by which numbers are made. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from socket import AF_INET, inet_ntoa, inet_pton
from typing import NamedTuple

from ..module_utils._names import IFNAME_MAX

FIRST_ID = 1000
FIRST_VLAN = 100
LAST_VLAN = 4094
POOL_VLANS = range(FIRST_VLAN, LAST_VLAN + 1)
FIRST_VNC_PORT = 5901
LAST_VNC_PORT = 65535
POOL_SIZE = 20


class Subnet(NamedTuple):
    """An IPv4 network by its first address, as a number, and its prefix length: a plan has one for each link."""

    first: int
    prefixlen: int

    @property
    def last(self) -> int:
        """The last address, as a number."""
        return self.first + (1 << (32 - self.prefixlen)) - 1

    def __str__(self) -> str:
        return with_prefix(self.first, self)


def subnet_of(text: str) -> Subnet:
    """The network that is written ``192.168.100.0/24``; that it is one was checked before."""
    first, _slash, prefixlen = text.partition("/")
    return Subnet(number_of(first), int(prefixlen))


def number_of(address: str) -> int:
    """An address, with or without a prefix length, as a number."""
    return int.from_bytes(inet_pton(AF_INET, address.partition("/")[0]), "big")


def address_text(number: int) -> str:
    """An address as it is written: ``192.168.100.10``."""
    return inet_ntoa(number.to_bytes(4, "big"))


def find_pool(slice_id: int, size: int, taken: Collection[int], vlans: range = POOL_VLANS) -> int | None:
    """The first VLAN of a free block of ``size`` of the ``vlans``, or None.

    The block that the slice's ID prefers, else the lowest free one. The preference alone repeats every 100 slices
    and runs over reserved VLANs, so it is checked like any other block.
    """
    first = vlans.start + (slice_id % 100) * POOL_SIZE
    if first + size <= vlans.stop and not any(vlan in taken for vlan in range(first, first + size)):
        return first
    run = 0
    for vlan in vlans:
        run = 0 if vlan in taken else run + 1
        if run == size:
            return vlan - size + 1
    return None


def link_subnet(vlan: int) -> Subnet:
    """The subnet of a link that names none."""
    if vlan <= 255:
        return Subnet(192 << 24 | 168 << 16 | vlan << 8, 24)
    return Subnet(172 << 24 | (16 + vlan // 256) << 16 | vlan % 256 << 8, 24)


def gateway_address(subnet: Subnet) -> int:
    """The first host address."""
    return subnet.first + 1


def last_address(subnet: Subnet) -> int:
    """The last host address."""
    return subnet.last - 1


def guest_range(subnet: Subnet) -> range:
    """The addresses that guests get: ``.10`` to ``.250`` of a /24; of a smaller subnet all but its ends.

    Both ends are left free: the first is the gateway, the last the DHCP server of a link without one.
    """
    if subnet.prefixlen <= 24:
        return range(subnet.first + 10, subnet.last - 4)
    return range(subnet.first + 2, subnet.last - 1)


def with_prefix(address: int, subnet: Subnet) -> str:
    """``192.168.100.10/24``."""
    return f"{address_text(address)}/{subnet.prefixlen}"


def lowest_free(numbers: Iterable[int], taken: Collection[int]) -> Iterator[int]:
    """The numbers that are not taken, in order. Reads ``taken`` as it goes, so what the caller adds counts."""
    return (number for number in numbers if number not in taken)


def mac_address(vm_id: int, index: int) -> str:
    """The MAC of a VM's interface, in QEMU's range."""
    return f"52:54:{vm_id >> 16 & 0xFF:02x}:{vm_id >> 8 & 0xFF:02x}:{vm_id & 0xFF:02x}:{index:02x}"


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
