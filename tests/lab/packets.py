# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames between guests: made byte by byte, sent by the guests themselves, and heard wherever they arrive."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LAB_RUN = ROOT / "collections/ansible_collections/cloudrepo/slices/roles/lab/files/lab_run.py"
FRAMES = Path(__file__).with_name("frames.pl")
PERL = Path("/usr/bin/perl")
BROADCAST = "ff:ff:ff:ff:ff:ff"
EVERYBODY = "255.255.255.255"
ARP, IPV4, IPV6, EXPERIMENTAL, C_TAG, S_TAG = 0x0806, 0x0800, 0x86DD, 0x88B5, 0x8100, 0x88A8

# What is sent: the bytes of a frame that bears a mark of four bytes.
Build = Callable[[bytes], bytes]


class Port(NamedTuple):
    """Where a frame is sent or heard: an interface of a guest, of a slice's namespace, or of the network node."""

    slice: str
    station: str
    interface: str


class Heard(NamedTuple):
    """A port at which a frame arrived, or an answer to it, and the MAC that it came from."""

    port: Port
    source: str


def lab_run(*argv: str, stdin: bytes = b"", timeout: float = 120) -> str:
    done = subprocess.run(
        [sys.executable, str(LAB_RUN), *argv],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{argv}: {output}"
    return output


@dataclass
class Station:
    """Something that sends and hears: how to run a command in it, and its interfaces with their MACs."""

    slice: str
    name: str
    place: tuple[str, ...]
    macs: dict[str, str]
    addresses: dict[str, str] = field(default_factory=dict)

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """What a script prints that has to succeed."""
        # ssh joins its arguments for the guest's shell anyway.
        argv = [script] if self.is_guest else ["sh", "-c", script]
        return lab_run(*self.place, *argv, stdin=stdin)

    @property
    def is_guest(self) -> bool:
        return len(self.place) > 1

    def equip(self) -> None:
        """Give a guest the interpreter that it needs to send frames."""
        packed = io.BytesIO()
        listing = subprocess.run(["ldd", str(PERL)], stdout=subprocess.PIPE, text=True, check=True).stdout
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(PERL.resolve(), "tmp/perl")
            archive.add(FRAMES, "tmp/frames.pl")
            for library in re.findall(r"=> (/\S+)", listing):
                archive.add(Path(library).resolve(), "tmp/lib/" + Path(library).name)
        self.sh("tar -xf - -C /", stdin=packed.getvalue())

    def open(self) -> subprocess.Popen[str]:
        """The program that sends and hears at this station."""
        perl = ["LD_LIBRARY_PATH=/tmp/lib", "/tmp/perl", "/tmp/frames.pl"]
        if not self.is_guest:
            perl = ["perl", "-e", FRAMES.read_text(encoding="utf-8")]
        return subprocess.Popen(
            [sys.executable, str(LAB_RUN), *self.place, *perl, *self.macs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def passing(self, checks: Mapping[str, str]) -> set[str]:
        """Names of the commands that succeed in the guest's shell, all run at the same time."""
        lines = [f"({command}) > /dev/null 2>&1 && echo {name} &" for name, command in checks.items()]
        return set(self.sh("\n".join([*lines, "wait"])).split())


class Wire:
    """All stations at once."""

    def __init__(self, stations: Iterable[Station]) -> None:
        self.stations = list(stations)
        self.marks = 0

    def exchange(self, frames: Iterable[tuple[Port, Build]]) -> list[set[Heard]]:
        """Send frames, each from a guest's port; for each, where it was heard.

        Gateways and servers speak first: until it has heard of a MAC, a switch sends what is for it everywhere.
        """
        first = self.marks
        lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        for port, build in frames:
            frame = build(struct.pack(">HH", 0xC51D, self.marks)).ljust(60, b"\0")
            lines[port.slice, port.station].append(f"{port.interface} {frame.hex()}\n")
            self.marks += 1
        assert self.marks < 1 << 16
        for station in self.stations:
            if not station.is_guest:
                known = [f"{name} {anything(mac)(bytes(4)).hex()}\n" for name, mac in station.macs.items()]
                lines[station.slice, station.name] += known
        heard: list[set[Heard]] = [set() for _ in range(first, self.marks)]
        with ExitStack() as stack:
            programs = [(station, stack.enter_context(station.open())) for station in self.stations]
            for _station, program in programs:
                _expect(program, "ready")
            for guests in (False, True):
                turn = [(station, program) for station, program in programs if station.is_guest == guests]
                for station, program in turn:
                    _tell(program, "".join(lines[station.slice, station.name]) + "go\n")
                for _station, program in turn:
                    _expect(program, "sent")
                time.sleep(0.3)
            # What is still under way.
            time.sleep(1.5)
            for _station, program in programs:
                _tell(program, "end\n")
            for station, program in programs:
                assert program.stdout
                for line in program.stdout.read().splitlines():
                    interface, mark, source = line.split()
                    at = Heard(Port(station.slice, station.name, interface), _colons(source))
                    if first <= int(mark, 16) < self.marks:
                        heard[int(mark, 16) - first].add(at)
        return heard


def _expect(program: subprocess.Popen[str], word: str) -> None:
    assert program.stdout
    line = program.stdout.readline().strip()
    assert line == word, f"{program.args}: {line!r} instead of {word}"


def _tell(program: subprocess.Popen[str], text: str) -> None:
    assert program.stdin
    program.stdin.write(text)
    program.stdin.flush()


def _colons(mac: str) -> str:
    return ":".join(re.findall("..", mac))


# --- frames -------------------------------------------------------------------------------------------------------


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ip_bytes(address: str) -> bytes:
    return IPv4Address(address.partition("/")[0]).packed


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack(">H", kind) + payload


def anything(source: str, target: str = BROADCAST, kind: int = EXPERIMENTAL) -> Build:
    """A frame of a protocol that nobody knows."""
    return lambda mark: ethernet(source, target, kind, mark)


def tagged(inner: Build, *tags: tuple[int, int]) -> Build:
    """A frame with tags in front of it, each its protocol and VLAN."""

    def build(mark: bytes) -> bytes:
        frame = inner(mark)
        return frame[:12] + b"".join(struct.pack(">HH", *tag) for tag in tags) + frame[12:]

    return build


def arp(
    source: str, sender: str, target: str, *, to: str = BROADCAST, reply: bool = False, claims: str | None = None
) -> Build:
    """Who has ``target``? Or, as a reply, I have ``sender``. ``claims`` is the MAC in the message itself."""
    body = struct.pack(">HHBBH", 1, IPV4, 6, 4, 2 if reply else 1)
    body += mac_bytes(claims or source) + ip_bytes(sender)
    body += mac_bytes(to if reply else "00:00:00:00:00:00") + ip_bytes(target)
    # The mark is in what pads the frame.
    return lambda mark: ethernet(source, to, ARP, body + mark)


def ipv4(
    source: str, sender: str, target: str, protocol: int, payload: Callable[[bytes], bytes], *, to: str, flags: int = 0
) -> Build:
    def build(mark: bytes) -> bytes:
        body = payload(mark)
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, flags, 64, protocol, 0)
        header += ip_bytes(sender) + ip_bytes(target)
        header = header[:10] + checksum(header) + header[12:]
        return ethernet(source, to, IPV4, header + body)

    return build


def echo(source: str, sender: str, target: str, *, to: str) -> Build:
    """A ping, whose answer bears the mark too."""

    def payload(mark: bytes) -> bytes:
        body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + mark
        return body[:2] + checksum(body) + body[4:]

    return ipv4(source, sender, target, 1, payload, to=to)


def udp(
    source: str, sender: str, target: str, ports: tuple[int, int], *, to: str, data: bytes = b"", flags: int = 0
) -> Build:
    # A checksum of zero is none.
    return ipv4(
        source,
        sender,
        target,
        17,
        lambda mark: struct.pack(">HHHH", *ports, 8 + len(mark + data), 0) + mark + data,
        to=to,
        flags=flags,
    )


def dhcp(source: str, *, to: str = BROADCAST, offers: tuple[str, str] | None = None, flags: int = 0) -> Build:
    """A discovery; or an offer of an address by a server, (address, server). The mark is the transaction's ID."""
    address, server = offers or ("0.0.0.0", "0.0.0.0")

    def payload(mark: bytes) -> bytes:
        body = struct.pack(">BBBB", 2 if offers else 1, 1, 6, 0) + mark + bytes(4)
        body += bytes(4) + ip_bytes(address) + ip_bytes(server) + bytes(4)
        body += (mac_bytes(to if offers else source)).ljust(16 + 64 + 128, b"\0")
        body += bytes.fromhex("63825363") + bytes([53, 1, 2 if offers else 1])
        body += (bytes([54, 4]) + ip_bytes(server) if offers else b"") + b"\xff"
        ports = (67, 68) if offers else (68, 67)
        return struct.pack(">HHHH", *ports, 8 + len(body), 0) + body

    return ipv4(source, server, EVERYBODY, 17, payload, to=to, flags=flags)


def echo6(source: str, target: str, *, to: str) -> Build:
    """An IPv6 ping between link-local addresses, given by their MACs; its answer bears the mark too."""
    sender, receiver = link_local(source), link_local(target)

    def build(mark: bytes) -> bytes:
        body = struct.pack(">BBHHH", 128, 0, 0, 1, 1) + mark
        pseudo = sender + receiver + struct.pack(">II", len(body), 58)
        body = body[:2] + checksum(pseudo + body) + body[4:]
        header = struct.pack(">IHBB", 6 << 28, len(body), 58, 64) + sender + receiver
        return ethernet(source, to, IPV6, header + body)

    return build


def link_local(mac: str) -> bytes:
    """The address that a guest makes from its MAC."""
    octets = bytearray(mac_bytes(mac))
    octets[0] ^= 2
    return bytes.fromhex("fe80000000000000") + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])


def checksum(data: bytes) -> bytes:
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def stations_of(record: Mapping[str, Any]) -> list[Station]:
    """The guests of a slice, and its namespace as the station ``gateway``."""
    namespace = f"{record['network_node']}/slice-{record['id']}"
    found = []
    for vm in record["vms"]:
        macs = {interface["name"]: interface["mac"] for interface in vm["interfaces"]}
        addresses = {i["name"]: i["address"].partition("/")[0] for i in vm["interfaces"] if i["address"]}
        way = next(i["address"] for i in vm["interfaces"] if i["link"] is not None and i["address"])
        place = (namespace, "ssh:" + way.partition("/")[0])
        found.append(Station(record["name"], vm["name"], place, macs, addresses))
    return [*found, _host_station(record["name"], "gateway", namespace)]


def network_node() -> Station:
    """The network node itself, with the internet VLAN's gateway."""
    station = _host_station("", "network1", "network1")
    station.macs = {"gw_vlan400": station.macs["gw_vlan400"]}
    return station


def _host_station(slice_name: str, name: str, place: str) -> Station:
    macs, addresses = {}, {}
    for line in lab_run(place, "ip", "-o", "link").splitlines():
        if found := re.match(r"\d+: ([^:@]+).* link/ether (\S+)", line):
            macs[found[1]] = found[2]
    for line in lab_run(place, "ip", "-o", "-4", "address").splitlines():
        if found := re.match(r"\d+: (\S+) +inet ([0-9.]+)", line):
            addresses[found[1]] = found[2]
    return Station(
        slice_name, name, (place,), {name: mac for name, mac in macs.items() if name in addresses}, addresses
    )
