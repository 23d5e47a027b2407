# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two slices of equal shape on the same workers: who reaches whom, shown by packets of real guests.

In each, a and b are on worker1, r and s on worker2: links span workers, and workers have guests of both slices.
Frames that must not pass are sent together with ones that must, by the same guests, and heard by the same listeners.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .packets import (
    ARP,
    BROADCAST,
    C_TAG,
    EVERYBODY,
    S_TAG,
    Build,
    Heard,
    Port,
    Station,
    Wire,
    anything,
    arp,
    dhcp,
    echo,
    echo6,
    network_node,
    stations_of,
    tagged,
    udp,
)
from .test_playbooks import slices_in, vms_of

SLICES = ("red", "blue")
SECURED = "safe"
GATEWAY = "10.60.7.1"
OUTSIDE = "203.0.113.1"
# The workers, the network node with its outer address, the controller.
INFRASTRUCTURE = ["10.0.10.1", "10.0.10.2", "10.0.10.3", "10.0.10.4", "10.0.10.254", "203.0.113.2"]
FOREIGN_MAC = "52:54:00:ff:ff:01"
UNKNOWN_MAC = "52:54:00:ff:ff:02"


def spec(name: str, port_security: bool = True) -> dict[str, Any]:
    placed = [("a", "worker1", True), ("b", "worker1", True), ("r", "worker2", False), ("s", "worker2", True)]
    return {
        "name": name,
        "owner": name,
        "vms": [
            {"name": vm, "flavor": "tiny", "worker": worker, "internet": internet} for vm, worker, internet in placed
        ],
        "links": [
            {"name": "front", "endpoints": ["a", "r"]},
            {"name": "back", "endpoints": ["r", "b"]},
            {"name": SECURED, "endpoints": ["a", "b", "s"], "port_security": port_security},
        ],
    }


def deploy(run_playbook: Any, wanted: dict[str, Any]) -> Any:
    flavor = {"name": "tiny", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": "cirros-0.6.2-x86_64-disk.img"}
    played = run_playbook(
        "deploy_slice", slice_spec=wanted, slices_flavors=[flavor], slices_wait_for_leases=True, output="json"
    )
    assert played.rc == 0, played.output
    return played


@dataclass
class Net:
    """A VLAN of a slice: the link's name, or ``internet``, and who is on it."""

    slice: str
    name: str
    ports: dict[str, Port]
    server: Port


class World:
    """Both slices: their stations, who is on which VLAN, and everything's MAC and address."""

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self.records = records
        self.stations = {(s.slice, s.name): s for name in SLICES for s in stations_of(records[name])}
        self.node = network_node()
        self.stations[self.node.slice, self.node.name] = self.node
        self.wire = Wire(self.stations.values())
        self.gateway = Port(self.node.slice, self.node.name, "gw_vlan400")
        self.nets = [net for name in SLICES for net in _nets(records[name])]

    @property
    def guests(self) -> list[Station]:
        return [station for station in self.stations.values() if station.is_guest]

    def guest(self, slice_name: str, vm: str) -> Station:
        return self.stations[slice_name, vm]

    def net(self, slice_name: str, name: str) -> Net:
        return next(net for net in self.nets if (net.slice, net.name) == (slice_name, name))

    def net_of(self, port: Port) -> Net:
        return next(net for net in self.nets if port in [*net.ports.values(), net.server])

    def mac(self, port: Port) -> str:
        return self.stations[port.slice, port.station].macs[port.interface]

    def address(self, port: Port) -> str:
        return self.stations[port.slice, port.station].addresses[port.interface]

    @property
    def senders(self) -> list[Port]:
        return [port for net in self.nets for port in net.ports.values()]

    @property
    def everybody(self) -> list[Port]:
        return [*self.senders, *(net.server for net in self.nets), self.gateway]

    def may_hear(self, sender: Port) -> set[Port]:
        """Who may hear a guest: its link; on the internet VLAN only the gateway and the slice's own server."""
        net = self.net_of(sender)
        if net.name == "internet":
            return {net.server, self.gateway}
        return {*net.ports.values(), net.server} - {sender}

    def misheard(self, sender: Port, heard: set[Heard]) -> set[Heard]:
        """What was heard at the wrong place, or answered by the wrong one."""
        allowed = self.may_hear(sender)
        sources = {self.mac(port) for port in allowed}
        return {at for at in heard if at.port not in allowed and not (at.port == sender and at.source in sources)}


def _nets(record: dict[str, Any]) -> Iterator[Net]:
    name = record["name"]
    for link in record["links"]:
        ports = {end["vm"]: Port(name, end["vm"], end["interface"]) for end in link["endpoints"]}
        yield Net(name, link["name"], ports, Port(name, "gateway", f"gw_vlan{link['vlan']}"))
    online = [vm["name"] for vm in record["vms"] if vm["interfaces"][0]["vlan"] is not None]
    ports = {vm: Port(name, vm, "eth0") for vm in online}
    yield Net(name, "internet", ports, Port(name, "gateway", f"inet_{record['id']}"))


@pytest.fixture(scope="module")
def world(run_playbook: Any) -> Iterator[World]:
    try:
        with ThreadPoolExecutor() as pool:
            played = list(pool.map(lambda name: deploy(run_playbook, spec(name)), SLICES))
            found = World({name: slices_in(run.output)[name] for name, run in zip(SLICES, played, strict=True)})
            list(pool.map(Station.equip, found.guests))
        yield found
    finally:
        with ThreadPoolExecutor() as pool:
            deleted = list(pool.map(lambda name: run_playbook("delete_slice", slice=name), SLICES))
    assert [run.rc for run in deleted] == [0, 0], deleted[0].output + deleted[1].output


def named(sent: list[tuple[str, Port, Build]], heard: list[set[Heard]]) -> dict[tuple[str, Port], set[Port]]:
    """Where each frame was heard, by what it is called and who sent it."""
    return {(what, port): {at.port for at in where} for (what, port, _build), where in zip(sent, heard, strict=True)}


def exchange(world: World, sent: list[tuple[str, Port, Build]]) -> dict[tuple[str, Port], set[Port]]:
    return named(sent, world.wire.exchange([(port, build) for _what, port, build in sent]))


def test_all_pairs_of_guests_gateways_and_servers(world: World) -> None:
    """Every interface to every other at layer 2 and 3: what is declared passes, nothing else does."""
    sent: list[tuple[Port, Port, str, Build]] = []
    for sender in world.senders:
        mac, own = world.mac(sender), world.address(sender)
        for target in world.everybody:
            if target != sender:
                there, where = world.mac(target), world.address(target)
                sent += [
                    (sender, target, "arp", arp(mac, own, where)),
                    (sender, target, "arp to its MAC", arp(mac, own, where, to=there)),
                    (sender, target, "ipv4", echo(mac, own, where, to=there)),
                    (sender, target, "ipv6", echo6(mac, there, to=there)),
                ]
    heard = world.wire.exchange([(sender, build) for sender, _target, _what, build in sent])
    passed = dict.fromkeys(("arp", "arp to its MAC", "ipv4", "ipv6"), 0)
    wrong = []
    for (sender, target, what, _build), where in zip(sent, heard, strict=True):
        wrong += [f"{what} from {sender} for {target}: {at}" for at in world.misheard(sender, where)]
        declared = target in world.may_hear(sender)
        # Where guests are held to their address there is no IPv6.
        if declared and not (what == "ipv6" and world.net_of(sender).name in (SECURED, "internet")):
            passed[what] += 1
            if target not in {at.port for at in where}:
                wrong.append(f"{what} from {sender} for {target}: lost")
            if what == "ipv4" and target.station in ("gateway", "network1") and sender not in {at.port for at in where}:
                wrong.append(f"{what} from {sender} for {target}: no answer")
    assert not wrong, "\n".join(wrong)
    # In each slice: 10 pairs on its links, 7 of guest and gateway, 3 of guest and server and 3 with the gateway.
    assert passed == {"arp": 46, "arp to its MAC": 46, "ipv4": 46, "ipv6": 16}


def test_what_is_for_everybody_stays_in_its_own_link(world: World) -> None:
    """Broadcast and multicast; and a DHCP discovery is answered by the slice's own server alone."""
    sent: list[tuple[str, Port, Build]] = []
    for sender in world.senders:
        mac, own = world.mac(sender), world.address(sender)
        sent += [
            ("dhcp", sender, dhcp(mac)),
            ("unknown protocol", sender, anything(mac)),
            ("multicast", sender, udp(mac, own, "224.0.0.251", (5353, 5353), to="01:00:5e:00:00:fb")),
            ("ipv6 to all", sender, echo6(mac, FOREIGN_MAC, to="33:33:00:00:00:01")),
            ("broadcast", sender, udp(mac, own, EVERYBODY, (9, 9), to=BROADCAST)),
            ("to an unknown MAC", sender, udp(mac, own, "192.0.2.1", (9, 9), to=UNKNOWN_MAC)),
            # Of the addresses that it may talk to, but not to the MAC.
            ("gateway's address", sender, echo(mac, own, GATEWAY, to=BROADCAST)),
        ]
    heard = world.wire.exchange([(port, build) for _what, port, build in sent])
    wrong = []
    for (what, sender, _build), where in zip(sent, heard, strict=True):
        wrong += [f"{what} from {sender}: {at}" for at in world.misheard(sender, where)]
        net = world.net_of(sender)
        others = {*net.ports.values(), net.server} - {sender}
        if net.name in ("front", "back") and not others <= {at.port for at in where}:
            wrong.append(f"{what} from {sender}: heard by {where} only")
        answers = {at.source for at in where if at.port == sender}
        if what == "dhcp" and answers != {world.mac(net.server)}:
            wrong.append(f"dhcp from {sender}: answered by {answers or 'nobody'}")
    assert not wrong, "\n".join(wrong)


def test_nobody_is_the_gateway_or_the_dhcp_server(world: World) -> None:
    """Forged answers: heard on a link where guests may do as they like, and nowhere else."""
    sent: list[tuple[str, Port, Build]] = []
    for sender in world.senders:
        net = world.net_of(sender)
        mac, own = world.mac(sender), world.address(sender)
        router = GATEWAY if net.name == "internet" else world.address(net.server)
        router_mac = world.mac(world.gateway if net.name == "internet" else net.server)
        for victim in [*net.ports.values(), *world.net("blue", net.name).ports.values()]:
            to = world.mac(victim)
            sent += [
                (f"arp reply to {victim}", sender, arp(mac, router, world.address(victim), to=to, reply=True)),
                (f"offer to {victim}", sender, dhcp(mac, to=to, offers=(world.address(victim), router))),
            ]
        sent += [
            ("gratuitous arp", sender, arp(mac, router, router)),
            ("gratuitous reply", sender, arp(mac, router, router, reply=True)),
            ("arp for another MAC", sender, arp(mac, own, router, claims=FOREIGN_MAC)),
            ("as the router", sender, arp(router_mac, router, router)),
            ("offer", sender, dhcp(mac, offers=(own, router))),
            ("offer of its own", sender, dhcp(mac, offers=(own, own))),
            # Its ports are not looked at if it claims that more fragments follow.
            ("offer in a fragment", sender, dhcp(mac, offers=(own, own), flags=0x2000)),
        ]
    wrong, passed = [], 0
    for (what, sender), where in exchange(world, sent).items():
        if world.net_of(sender).name in ("front", "back"):
            passed += bool(where)
        elif where:
            wrong.append(f"{what} from {sender}: heard by {where}")
    assert not wrong, "\n".join(wrong)
    assert passed > 50


def test_a_changed_mac_or_address_gets_nothing_through(world: World) -> None:
    sent: list[tuple[str, Port, Build]] = []
    for net in world.nets:
        ports = list(net.ports.values())
        for sender, other in zip(ports, ports[1:] + ports[:1], strict=True):
            mac, own = world.mac(sender), world.address(sender)
            target = world.gateway if net.name == "internet" else other
            to, where = world.mac(target), world.address(target)
            free = own.rpartition(".")[0] + ".77"
            sent += [
                ("true", sender, echo(mac, own, where, to=to)),
                ("true arp", sender, arp(mac, own, where)),
                ("another MAC", sender, echo(FOREIGN_MAC, own, where, to=to)),
                ("another address", sender, echo(mac, free, where, to=to)),
                ("another's address", sender, echo(mac, world.address(other), where, to=to)),
                ("another network", sender, echo(mac, "192.0.2.77", where, to=to)),
                ("no address", sender, echo(mac, "0.0.0.0", where, to=to)),
                ("arp of another MAC", sender, arp(FOREIGN_MAC, own, where)),
                ("arp of another address", sender, arp(mac, free, where)),
                ("arp of another's address", sender, arp(mac, world.address(other), where)),
                ("arp with another MAC in it", sender, arp(mac, own, where, claims=FOREIGN_MAC)),
                ("ipv6", sender, echo6(mac, to, to=to)),
                ("unknown protocol", sender, anything(mac, to)),
                ("arp that is none", sender, anything(mac, kind=ARP)),
            ]
            if net.name in (SECURED, "internet"):
                sent += [
                    ("another's MAC", sender, echo(world.mac(other), own, where, to=to)),
                    ("all of another's", sender, echo(world.mac(other), world.address(other), where, to=to)),
                    ("the server's MAC", sender, echo(world.mac(net.server), own, where, to=to)),
                ]
    wrong = []
    for (what, sender), where in exchange(world, sent).items():
        free = world.net_of(sender).name in ("front", "back")
        if bool(where) != (free or what.startswith("true")):
            wrong.append(f"{what} from {sender}: heard by {where or 'nobody'}")
    assert not wrong, "\n".join(wrong)


def test_tagged_frames_pass_nowhere(world: World) -> None:
    vlans = sorted({0, 1, 400, *(link["vlan"] for record in world.records.values() for link in record["links"])})
    sent: list[tuple[str, Port, Build]] = []
    for sender in world.senders:
        mac, own = world.mac(sender), world.address(sender)
        net = world.net_of(sender)
        target = world.gateway if net.name == "internet" else net.server
        true = echo(mac, own, world.address(target), to=world.mac(target))
        sent.append(("untagged", sender, true))
        for vlan in vlans:
            for kind in (C_TAG, S_TAG):
                sent.append((f"tag {kind:x} {vlan}", sender, tagged(true, (kind, vlan))))
                sent.append((f"broadcast with tag {kind:x} {vlan}", sender, tagged(anything(mac), (kind, vlan))))
            for outer in (0, 400, world.records[sender.slice]["links"][0]["vlan"]):
                for kind in (C_TAG, S_TAG):
                    sent.append((f"tags {kind:x} {outer} {vlan}", sender, tagged(true, (kind, outer), (C_TAG, vlan))))
    wrong = []
    for (what, sender), where in exchange(world, sent).items():
        if bool(where) != (what == "untagged"):
            wrong.append(f"{what} from {sender}: heard by {where or 'nobody'}")
    assert not wrong, "\n".join(wrong)


def peers(world: World, port: Port) -> list[str]:
    """Whom a guest reaches through an interface: by address."""
    net = world.net_of(port)
    if net.name == "internet":
        return [GATEWAY, world.address(net.server)]
    return [world.address(other) for other in [*net.ports.values(), net.server] if other != port]


def strangers(world: World, port: Port) -> list[str]:
    """Every address of the other slice, and on the internet VLAN those of the own slice's other guests."""
    others = [net for net in world.nets if net.slice != port.slice or net.name == "internet" == world.net_of(port).name]
    ports = [other for net in others for other in net.ports.values() if other != port]
    ports += [net.server for net in others if net.slice != port.slice]
    return [world.address(other) for other in ports]


def test_nor_with_addresses_and_routes_set_by_hand(world: World) -> None:
    """A guest that gives itself addresses in the other slice's subnets, then routes through what it reaches."""

    def attempt(guest: Station) -> tuple[set[str], set[str]]:
        expected, found = set(), set()
        for interface, own in guest.addresses.items():
            port = Port(guest.slice, guest.name, interface)
            near, far = peers(world, port), strangers(world, port)
            subnets = {address.rpartition(".")[0] for address in far} - {own.rpartition(".")[0]}
            checks = {f"near-{interface}-{address}": f"ping -c 3 -W 5 -I {interface} {address}" for address in near}
            expected |= set(checks)
            for address in far:
                checks[f"ping-{interface}-{address}"] = f"ping -c 2 -W 2 -I {interface} {address}"
                checks[f"arping-{interface}-{address}"] = f"arping -f -c 2 -w 3 -I {interface} {address}"
            guest.sh("".join(f"ip address add {subnet}.66/24 dev {interface}\n" for subnet in subnets))
            found |= guest.passing(checks)
            guest.sh("".join(f"ip address del {subnet}.66/24 dev {interface}\n" for subnet in subnets))
            routes = [f"{address} via {near[-1]} dev {interface}" for address in far]
            guest.sh("".join(f"ip route replace {route}\n" for route in routes))
            found |= guest.passing(
                {f"routed-{interface}-{address}": f"ping -c 2 -W 2 -I {interface} {address}" for address in far}
            )
            guest.sh("".join(f"ip route del {route}\n" for route in routes))
        return expected, found

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(attempt, world.guests))
    for guest, (expected, found) in zip(world.guests, outcomes, strict=True):
        assert found == expected and len(expected) >= 2, f"{guest.slice} {guest.name}: {found ^ expected}"


def test_no_guest_reaches_the_infrastructure(world: World) -> None:
    """Not the hosts' own network, the controller, or a service of the network node; the outside, yes."""
    checks = {"outside": f"ping -c 3 -W 5 {OUTSIDE}", "gateway": f"ping -c 3 -W 5 {GATEWAY}"}
    checks["service"] = f"nc -w 5 {OUTSIDE} 80 < /dev/null"
    allowed = set(checks)
    for address in INFRASTRUCTURE:
        checks[f"ping-{address}"] = f"ping -c 2 -W 2 {address}"
        checks[f"route-{address}"] = f"ping -c 2 -W 2 -I eth0 {address}"
    for address in [*INFRASTRUCTURE, GATEWAY]:
        checks[f"ssh-{address}"] = f"nc -w 3 {address} 22 < /dev/null"
    online = [guest for guest in world.guests if "eth0" in guest.addresses]
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda guest: guest.passing(checks), online))
    assert outcomes == [allowed] * 6


def test_a_guest_that_changes_itself(world: World) -> None:
    """Its MAC, then its address: nothing passes where port security is on, all where it is off."""

    def change(slice_name: str, vm: str, interface: str, other: str) -> set[str]:
        guest = world.guest(slice_name, vm)
        own = guest.addresses[interface]
        free = own.rpartition(".")[0] + ".77"
        # Not over the interface that changes.
        assert not guest.place[1].endswith(own)
        # With what it knows of its neighbours forgotten it asks, and so tells them its MAC.
        script = f"""
            attempt() {{
              ip neigh flush dev {interface} > /dev/null
              ping -c 3 -W 2 -I $2 {other} > /dev/null && echo $1
            }}
            set_mac() {{
              ip link set {interface} down; ip link set {interface} address $1; ip link set {interface} up
            }}
            attempt before {interface}
            set_mac {FOREIGN_MAC}
            attempt mac {interface}
            set_mac {guest.macs[interface]}
            ip address add {free}/24 dev {interface}
            attempt address {free}
            ip address del {free}/24 dev {interface}
            attempt after {interface}
            true"""
        return set(guest.sh(script).split())

    for name in SLICES:
        safe, back = world.net(name, SECURED), world.net(name, "back")
        for other in ("b", "s"):
            assert change(name, "a", "eth2", world.address(safe.ports[other])) == {"before", "after"}
        assert change(name, "r", "eth2", world.address(back.ports["b"])) == {"before", "mac", "address", "after"}


def test_a_guest_that_routes_for_others(world: World) -> None:
    a, r, b = (world.guest("red", vm) for vm in "arb")
    front, back = world.net("red", "front"), world.net("red", "back")
    near, far = world.address(front.ports["a"]), world.address(back.ports["b"])
    a.sh(f"ip route add {far} via {world.address(front.ports['r'])}")
    b.sh(f"ip route add {near} via {world.address(back.ports['r'])}")
    ping = {"reached": f"ping -c 3 -W 2 -I {near} {far}"}
    assert a.passing(ping) == set()
    r.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
    assert a.passing(ping) == {"reached"}
    r.sh("echo 0 > /proc/sys/net/ipv4/ip_forward")
    a.sh(f"ip route del {far}")
    b.sh(f"ip route del {near}")


def test_port_security_of_a_running_slice_is_changed_without_a_restart(world: World, run_playbook: Any) -> None:
    safe = world.net("red", SECURED)
    sender, target = safe.ports["a"], safe.ports["s"]
    spoofed = echo(FOREIGN_MAC, world.address(sender), world.address(target), to=world.mac(target))
    before = vms_of(world.records["red"])
    assert world.wire.exchange([(sender, spoofed)]) == [set()]
    played = deploy(run_playbook, spec("red", port_security=False))
    assert [played.recap[host]["changed"] for host in ("worker1", "worker2")] == [1, 1], played.output
    after = vms_of(slices_in(played.output)["red"])
    assert {name: vm["pid"] for name, vm in after.items()} == {name: vm["pid"] for name, vm in before.items()}
    [heard] = world.wire.exchange([(sender, spoofed)])
    assert target in {at.port for at in heard}


def test_a_changed_host_key_ends_the_play(run_playbook: Any, inventory: Path, tmp_path: Path) -> None:
    """The network node answers with a key that is not the one in known_hosts."""
    own = yaml.safe_load((inventory / "group_vars" / "all.yml").read_text(encoding="utf-8"))["ansible_ssh_args"]
    [known] = re.findall(r"UserKnownHostsFile=(\S+)", own)
    lines = [line.split(" ") for line in Path(known).read_text(encoding="utf-8").splitlines()]
    keys = {line[0]: line[1:] for line in lines}
    assert "10.0.10.4" in keys
    outcomes = []
    for case, key in (("true", keys["10.0.10.4"]), ("false", keys["10.0.10.1"])):
        other = tmp_path / case
        other.write_text("".join(" ".join([host, *kept]) + "\n" for host, kept in {**keys, "10.0.10.4": key}.items()))
        played = run_playbook(
            "show_slices",
            ansible_ssh_args=own.replace(known, str(other)),
            # A connection that is open already would be used again.
            ansible_control_path_dir=str(tmp_path / f"cm-{case}"),
        )
        # Of the host that has the registry, by the name of which it is said.
        refused = re.search(r"registry on network1: .*Host key verification failed", played.output, re.DOTALL)
        outcomes.append((played.rc == 0, bool(refused)))
    assert outcomes == [(True, False), (False, True)]
