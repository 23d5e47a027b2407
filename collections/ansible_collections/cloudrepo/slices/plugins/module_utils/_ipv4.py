# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IPv4 and MAC addresses as they come from outside: parsed and checked before anything is touched."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Optional

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


def parse_mac(value: str) -> str:
    """The MAC address in lower case.

    Raises:
        ValueError: it is none.
    """
    mac = value.lower()
    if not _MAC.fullmatch(mac):
        raise ValueError("%r is not a MAC address such as 52:54:00:03:e9:00" % value)
    return mac


def router_mac(address: IPv4Address) -> str:
    """The MAC address of a gateway or server: made from its address, so that who knows one knows the other."""
    return ":".join("%02x" % byte for byte in b"\x02\x00" + address.packed)


def parse_network(value: str) -> IPv4Network:
    """The network that ``value`` names by its address and prefix length.

    Raises:
        ValueError: it is none, or has bits beyond its prefix set.
    """
    try:
        return IPv4Network(value)
    except ValueError as error:
        raise ValueError("%r is not an IPv4 network such as 192.168.100.0/24" % value) from error


def parse_address(value: str, network: Optional[IPv4Network] = None) -> IPv4Address:
    """The address without prefix length that ``value`` is.

    Args:
        value: the text.
        network: the network in which it has to be an address that a host can have.

    Raises:
        ValueError: it is no address, or not one of a host in ``network``.
    """
    try:
        address = IPv4Address(value)
    except ValueError as error:
        raise ValueError("%r is not an IPv4 address such as 192.168.100.10" % value) from error
    if network is not None:
        if address not in network:
            raise ValueError("%s is not in %s" % (address, network))
        if address in (network.network_address, network.broadcast_address):
            raise ValueError("%s is no address for a host in %s" % (address, network))
    return address
