# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network node on which the slices `web` and `other` have internet, with its tables as nft 1.0.6 printed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _internet, _iproute, _nft, _ovs

FIXTURES = Path(__file__).parent / "fixtures" / "slice_nat"

WEB: dict[str, Any] = {
    "slice": "web",
    "state": "present",
    "bridge": "br-int",
    "vlan": 400,
    "subnet": "10.60.7.0/24",
    "uplink": None,
    "namespace": "slice-1000",
    "interface": "inet_1000",
    "server_address": "10.60.7.254",
    "addresses": [{"address": "10.60.7.10", "mac": "52:54:00:03:E9:00"}],
    "protected_networks": ["198.51.100.0/24"],
    "protected_addresses": ["10.0.10.1", "10.0.10.4"],
}
NEITHER: dict[str, Any] = {"interface": None, "server_address": None, "addresses": []}


def options(**fields: Any) -> _internet.Options:
    """The options of the slice `web`, with which the host was recorded."""
    return _internet.parse_options({**WEB, **fields})


def recorded(name: str) -> _nft.Listing:
    return _nft.parse((FIXTURES / name).read_text(encoding="utf-8"))


def bare_host() -> _internet.Host:
    """The same host before it had any slice."""
    return _internet.Host(
        ovs=_ovs.Database({"br-int": _ovs.Bridge("br-int", True)}, {}),
        network=_iproute.Network(
            devices={
                "uplink0": _device("uplink0", "203.0.113.2/24"),
                "mgmt0": _device("mgmt0", "10.0.10.4/24"),
            },
            gateways={"uplink0": "203.0.113.1"},
        ),
        sysctls={"uplink0": {"ipv4.forwarding": 0, "ipv6.disable_ipv6": 0}},
        ip_forward=False,
        table=None,
        inside=None,
    )


def host() -> _internet.Host:
    """The host as it was recorded."""
    bare = bare_host()
    port = _ovs.Port("gw_vlan400", "br-int", 400, _internet.STAMP, internal=True, error="")
    devices = {**bare.network.devices, "gw_vlan400": _device("gw_vlan400", "10.60.7.1/24")}
    return bare._replace(
        ovs=bare.ovs._replace(ports={port.name: port}),
        network=bare.network._replace(devices=devices),
        sysctls={
            "uplink0": {"ipv4.forwarding": 1, "ipv6.disable_ipv6": 0},
            "gw_vlan400": {"ipv4.forwarding": 1, "ipv6.disable_ipv6": 1},
        },
        table=recorded("host.json"),
        inside=recorded("namespace.json"),
    )


def alone(host: _internet.Host) -> _internet.Host:
    """The host without the slice `other`."""
    assert host.table is not None
    elements = {
        name: {value: owner for value, owner in values.items() if owner == "web"}
        for name, values in host.table.elements.items()
    }
    return host._replace(table=host.table._replace(elements=elements))


def _device(name: str, address: str) -> _iproute.Device:
    return _iproute.Device(name=name, alias="", up=True, user="", addresses=[address], mac="")
