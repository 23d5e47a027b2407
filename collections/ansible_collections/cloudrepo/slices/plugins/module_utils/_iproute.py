# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iproute2: what ``ip -j -d`` prints, and the lines of ``ip -batch``. Pure.

The builders quote nothing but an alias: names and addresses were checked before they come here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

NETNS_DIR = "/var/run/netns"

_FAILED_LINE = re.compile(r"^Command failed -:(\d+)$", re.MULTILINE)


class Device(NamedTuple):
    """A network device and its MAC.

    ``user`` may open it if it is a TAP, ``addresses`` are IPv4 with prefix length, ``master`` is the bridge it is on,
    ``kind`` is the kernel's word for what it is.
    """

    name: str
    alias: str
    up: bool
    user: str
    addresses: List[str]
    mac: str
    master: str = ""
    kind: str = ""

    @property
    def is_tap(self) -> bool:
        """Whether it is a TAP, which anybody may delete under those who use it."""
        return self.kind == "tun"


class Network(NamedTuple):
    """The devices of a network namespace by name, and the gateway of each default route by its device."""

    devices: Mapping[str, Device]
    gateways: Mapping[str, str]


SCAN = "address show\nroute show default\n"


def ip(namespace: Optional[str], *words: str) -> List[str]:
    """The argument list of ``ip`` that works in a namespace, or in the one it is started in."""
    return ["ip"] + (["-n", namespace] if namespace else []) + list(words)


def batch(namespace: Optional[str]) -> List[str]:
    """The argument list that does the lines on its standard input and stops at the first that fails."""
    return ip(namespace, "-batch", "-")


def scan(namespace: Optional[str]) -> List[str]:
    """The argument list that, fed with ``SCAN``, prints what ``parse_scan`` reads."""
    return ip(namespace, "-j", "-d", "-batch", "-")


def parse_scan(text: str) -> Network:
    """What ``scan`` printed: one JSON document for each line of ``SCAN``."""
    addresses, routes = _documents(text)
    devices = {link["ifname"]: _device(link) for link in addresses if link}
    return Network(devices, {route["dev"]: route["gateway"] for route in routes if "gateway" in route})


def failed_line(stderr: str) -> Optional[int]:
    """Which line of a batch failed, counted from 0."""
    match = _FAILED_LINE.search(stderr)
    return int(match.group(1)) - 1 if match else None


def add_tap(name: str, user: str) -> str:
    return "tuntap add dev %s mode tap user %s" % (name, user)


def delete(name: str) -> str:
    return "link delete dev %s" % name


def set_group(name: str, group: int) -> str:
    return "link set dev %s group %d" % (name, group)


def delete_group(group: int) -> str:
    return "link delete group %d" % group


def set_alias(name: str, alias: str, up: bool = False) -> str:
    return 'link set dev %s alias "%s"%s' % (name, alias, " up" if up else "")


def set_up(name: str) -> str:
    return "link set dev %s up" % name


def set_mac(name: str, mac: str) -> str:
    return "link set dev %s address %s" % (name, mac)


def move(name: str, namespace: str) -> str:
    return "link set dev %s netns %s" % (name, namespace)


def delete_address(name: str, address: str) -> str:
    return "address delete %s dev %s" % (address, name)


def replace_address(name: str, address: str) -> str:
    return "address replace %s dev %s" % (address, name)


def default_route(name: str, gateway: str) -> str:
    return "route replace default via %s dev %s" % (gateway, name)


def delete_default_route(name: str) -> str:
    return "route delete default dev %s" % name


def _documents(text: str) -> List[Any]:
    decoder, documents, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    return documents


def _device(link: Dict[str, Any]) -> Device:
    return Device(
        name=link["ifname"],
        alias=link.get("ifalias", ""),
        up="UP" in link["flags"],
        # A number if the user is not known on this host.
        user=str(link.get("linkinfo", {}).get("info_data", {}).get("user", "")),
        addresses=[
            "%s/%d" % (address["local"], address["prefixlen"])
            for address in link.get("addr_info", [])
            if address.get("family") == "inet"
        ],
        mac=link.get("address", ""),
        master=link.get("master", ""),
        kind=link.get("linkinfo", {}).get("info_kind", ""),
    )
