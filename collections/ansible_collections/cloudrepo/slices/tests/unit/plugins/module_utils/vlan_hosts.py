# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with the slice `web` on it and some things of others, as ovs-vsctl and ip described it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _openflow, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import DEAF, Host, Options

FIXTURES = Path(__file__).parent / "fixtures" / "ovs_vlan"
TAPS = ("tap_1001_eth0", "tap_1001_eth1", "tap_1001_eth2")


def recorded(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


def port(name: str, **fields: Any) -> dict[str, Any]:
    defaults = {"type": "tap", "address": None, "gateway": None, "forwarding": False}
    return dict.fromkeys(("vlan", "vm", "interface", "security")) | defaults | {"name": name} | fields


def options(*ports: dict[str, Any], **fields: Any) -> Options:
    """The options of the slice `web`; without ports, those with which the host was recorded."""
    defaults = {
        "slice": "web",
        "slice_id": 1000,
        "bridge": "br-int",
        "namespace": "slice-1000",
        "tap_user": "nobody",
        "ports": ports or WEB,
        "present": True,
        "purge": False,
    }
    return Options(**{**defaults, **fields})


SECURITY = {
    "mac": "52:54:00:03:e9:00",
    "address": "10.60.7.10/24",
    "peers": [
        {"address": "10.60.7.1", "mac": "02:00:0a:3c:07:01"},
        {"address": "10.60.7.254", "mac": "02:00:0a:3c:07:fe"},
    ],
    "router_mac": "02:00:0a:3c:07:01",
    "dhcp_mac": "02:00:0a:3c:07:fe",
}


def host() -> Host:
    """The host as it was recorded; its settings are those that the module had made."""
    return Host(
        ovs=_ovs.parse_scan(recorded("ovs-vsctl.json")),
        root=_iproute.parse_scan(recorded("ip-host.json")),
        inside=_iproute.parse_scan(recorded("ip-namespace.json")),
        sysctls={
            **dict.fromkeys(TAPS, DEAF),
            "gw_vlan100": {"ipv4.forwarding": 1, "ipv6.disable_ipv6": 1},
            "inet_1000": {"ipv4.forwarding": 0, "ipv6.disable_ipv6": 1},
        },
        flows=_openflow.parse_dump(recorded("ovs-ofctl")),
    )


def bare_host() -> Host:
    """A host with a bridge and nothing else."""
    found = host()
    ports = {"br-int": found.ovs.ports["br-int"]}
    devices = {"lo": found.root.devices["lo"]}
    return Host(found.ovs._replace(ports=ports), _iproute.Network(devices, {}), None, {})


def without(found: Host, name: str, *places: str) -> Host:
    """The host after somebody removed the port, or its device outside or in the namespace."""
    for place in places:
        if place == "ovs":
            ports = {key: value for key, value in found.ovs.ports.items() if key != name}
            found = found._replace(ovs=found.ovs._replace(ports=ports))
            continue
        network = getattr(found, place)
        devices = {key: value for key, value in network.devices.items() if key != name}
        found = found._replace(**{place: network._replace(devices=devices)})
    return found


def with_device(found: Host, place: str, name: str, **fields: Any) -> Host:
    """The host with a device, or with one that is different from the recorded one."""
    network = getattr(found, place)
    device = network.devices.get(name, _iproute.Device(name, "", False, "", [], ""))
    devices = {**network.devices, name: device._replace(**fields)}
    return found._replace(**{place: network._replace(devices=devices)})


def with_port(found: Host, name: str, **fields: Any) -> Host:
    """The host with a port in Open vSwitch that is different from the recorded one."""
    ports = {**found.ovs.ports, name: found.ovs.ports[name]._replace(**fields)}
    return found._replace(ovs=found.ovs._replace(ports=ports))


WEB = (
    port("tap_1001_eth0", vlan=400, vm="web", interface="eth0", security=SECURITY),
    port("tap_1001_eth1", vlan=100, vm="web", interface="eth1"),
    port("tap_1001_eth2", vm="web", interface="eth2"),
    port("gw_vlan100", type="internal", vlan=100, address="192.168.100.1/24", forwarding=True),
    port("inet_1000", type="internal", vlan=400, address="10.60.7.254/24", gateway="10.60.7.1"),
)
