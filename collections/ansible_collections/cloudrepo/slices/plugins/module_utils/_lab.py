# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab is made of: hosts, what their disks hold, which cables are missing. Pure: no I/O."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

MANAGEMENT_BRIDGE = "slmgmt0"
TRUNK_BRIDGE = "sltrunk0"
CONTROLLER = ipaddress.IPv4Interface("10.0.10.254/24")
INTERNET = "internet"
INTERNET_ADDRESS = "203.0.113.1"
UPLINKS = ipaddress.IPv4Interface("203.0.113.2/24")
USER = "ubuntu"
NAME = re.compile(r"[a-z][a-z0-9-]{0,10}\Z")

# Parts of the machine that must not shine through: a host starts with these empty.
EMPTY_DIRS = {
    "etc/netns": 0o755,
    "etc/openvswitch": 0o755,
    "etc/ssh": 0o755,
    "home": 0o755,
    "home/" + USER: 0o750,
    "home/" + USER + "/.ssh": 0o700,
    "root": 0o700,
    "srv": 0o755,
    "tmp": 0o1777,
    "var/cache": 0o755,
    "var/cache/apt": 0o755,
    "var/cache/apt/archives": 0o755,
    "var/cache/apt/archives/partial": 0o700,
    "var/lib/cloudrepo": 0o755,
    "var/lib/misc": 0o755,
    "var/lib/openvswitch": 0o755,
    "var/log": 0o755,
    "var/log/apt": 0o755,
    "var/log/openvswitch": 0o755,
    "var/tmp": 0o1777,
}
# Top-level directories of a Debian system; anything else of the machine's root is hidden from the hosts.
SYSTEM_DIRS = frozenset(
    "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var".split()
)
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


class LabError(Exception):
    """What went wrong, in one line."""


@dataclass(frozen=True)
class Host:
    """One lab host as the caller names it."""

    name: str
    address: str
    uplink: bool = False


@dataclass(frozen=True)
class File:
    """A file on a host's disk. Written by root, owned by the SSH user if it is in his home."""

    path: str
    content: str
    mode: int = 0o644
    owned_by_user: bool = False


@dataclass
class State:
    """What this lab started since the machine booted: enough to end it and nothing else.

    Attributes:
        boot_id: of the machine, when all of this was started.
        hosts: PID and start time of each host's init.
        ready: the hosts that came up; any other one was given up half-way.
        links: the network interfaces on the machine's side.
    """

    boot_id: str
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def start_time(stat: str) -> int | None:
    """Start time (field 22) out of /proc/PID/stat, or None for a process that has ended."""
    fields = stat.rpartition(")")[2].split()  # the name in field 2 may hold blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def user_id(passwd: str) -> int:
    """The lowest free user ID from 1000 up, or that of the user if the machine knows him already."""
    ids = {line.split(":")[0]: int(line.split(":")[2]) for line in passwd.splitlines() if line.count(":") >= 6}
    if USER in ids:
        return ids[USER]
    taken = set(ids.values())
    return next(uid for uid in range(1000, 60000) if uid not in taken)


def replace_entry(database: str, entry: str) -> str:
    """A passwd-like database with this entry in place of the one of the same name, if any."""
    name = entry.split(":")[0]
    lines = [line for line in database.splitlines() if line and line.split(":")[0] != name]
    return "\n".join([*lines, entry]) + "\n"


def mac_of(address: str) -> str:
    """A stable MAC address: a host that was started again is found without waiting for ARP to forget the old one."""
    return "02:00:" + ":".join("%02x" % octet for octet in ipaddress.IPv4Address(address).packed)


def hosts_file(name: str, hosts: list[Host]) -> str:
    lines = ["127.0.0.1 localhost", "127.0.1.1 " + name]
    return "\n".join(lines + ["%s %s" % (host.address, host.name) for host in hosts if host.name != name]) + "\n"


def known_hosts(hosts: list[Host], keys: dict[str, str]) -> str:
    """The known_hosts file of the lab; a public key is `type base64 comment`."""
    return "".join("%s %s\n" % (host.address, " ".join(keys[host.name].split()[:2])) for host in hosts)


def clashes(networks: list[str], routes: list[dict[str, Any]], own: list[str]) -> list[str]:
    """Routes of the machine (`ip -j route`) that the lab would take over, as `destination dev name`."""
    wanted = [ipaddress.IPv4Network(network) for network in networks]
    found = []
    for route in routes:
        destination, device = route["dst"], route.get("dev", "")
        if destination == "default" or device in own:
            continue
        if any(ipaddress.IPv4Network(destination).overlaps(network) for network in wanted):
            found.append("%s dev %s" % (destination, device))
    return found


def bridge_commands(present: set[str]) -> list[str]:
    """`ip -batch` lines for the bridges that are missing."""
    lines: list[str] = []
    if MANAGEMENT_BRIDGE not in present:
        lines += [
            "link add %s address %s type bridge" % (MANAGEMENT_BRIDGE, mac_of(str(CONTROLLER.ip))),
            "address add %s dev %s" % (CONTROLLER, MANAGEMENT_BRIDGE),
            "link set %s up" % MANAGEMENT_BRIDGE,
        ]
    if TRUNK_BRIDGE not in present:
        # Without an address of its own and without snooping: a cable, not a participant.
        lines += [
            "link add %s type bridge mcast_snooping 0" % TRUNK_BRIDGE,
            "link set %s addrgenmode none up" % TRUNK_BRIDGE,
        ]
    return lines


def cables(host: Host) -> dict[str, str]:
    """The machine's end of each of a host's cables, and the bridge that it is plugged into."""
    return {"slm-" + host.name: MANAGEMENT_BRIDGE, "slt-" + host.name: TRUNK_BRIDGE}


def cable_commands(host: Host, pid: int, present: set[str]) -> list[str]:
    """`ip -batch` lines, run on the machine, for the cables of a host that are missing."""
    lines = []
    for name, bridge in cables(host).items():
        if name in present:
            continue
        inside = "mgmt0 address " + mac_of(host.address) if bridge == MANAGEMENT_BRIDGE else "trunk0"
        lines += [
            "link add %s type veth peer name %s netns %d" % (name, inside, pid),
            "link set %s addrgenmode none master %s up" % (name, bridge),
        ]
    return lines


def uplink(host: Host) -> str:
    """The internet's end of a host's uplink."""
    return "slu-" + host.name


def uplink_commands(host: Host, hosts: list[Host], pid: int) -> tuple[list[str], list[str]]:
    """`ip -batch` lines for a host's uplink, to be run in the internet, which has a switch, and in the host."""
    address = str(UPLINKS.ip + [each.name for each in hosts if each.uplink].index(host.name))
    outside = [
        "link add %s type veth peer name uplink0 address %s netns %d" % (uplink(host), mac_of(address), pid),
        "link set %s master ext0 up" % uplink(host),
    ]
    inside = [
        "address add %s/%d dev uplink0" % (address, UPLINKS.network.prefixlen),
        "link set uplink0 up",
        "route add default via %s dev uplink0" % INTERNET_ADDRESS,
    ]
    return outside, inside


def internet_commands() -> list[str]:
    """`ip -batch` lines, run in the internet, for what the uplinks are plugged into."""
    return [
        "link set lo up",
        # A bridge without an address of its own takes one of its ports', and another one when that port goes.
        "link add ext0 address %s type bridge" % mac_of(INTERNET_ADDRESS),
        "address add %s/%d dev ext0" % (INTERNET_ADDRESS, UPLINKS.network.prefixlen),
        "link set ext0 up",
    ]


def address_commands(host: Host) -> list[str]:
    """`ip -batch` lines, run inside the host."""
    return [
        "link set lo up",
        "address replace %s/%d dev mgmt0" % (host.address, CONTROLLER.network.prefixlen),
        "link set mgmt0 up",
        "link set trunk0 up",
    ]


def disk_files(host: Host, hosts: list[Host], passwd: dict[str, str], public_key: str, host_key: str) -> list[File]:
    """What distinguishes a host's disk from the machine's; `passwd` holds the machine's passwd, shadow and group."""
    uid = user_id(passwd["passwd"])
    home = "home/" + USER
    return [
        File("etc/hostname", host.name + "\n"),
        File("etc/hosts", hosts_file(host.name, hosts)),
        File("etc/resolv.conf", "nameserver %s\n" % INTERNET_ADDRESS if host.uplink else ""),
        File("etc/passwd", replace_entry(passwd["passwd"], "%s:x:%d:%d::/%s:/bin/bash" % (USER, uid, uid, home))),
        File("etc/group", replace_entry(passwd["group"], "%s:x:%d:" % (USER, uid))),
        File("etc/shadow", replace_entry(passwd["shadow"], USER + ":*:19700:0:99999:7:::"), 0o640),
        File("etc/sudoers.d/90-" + USER, "%s ALL=(ALL:ALL) NOPASSWD: ALL\n" % USER, 0o440),
        File("etc/ssh/sshd_config", SSHD_CONFIG),
        File("etc/ssh/ssh_host_ed25519_key", host_key, 0o600),
        File(home + "/.ssh/authorized_keys", public_key, 0o600, owned_by_user=True),
    ]


def check_hosts(hosts: list[Host]) -> None:
    """Refuse hosts that cannot be, naming the one at fault."""
    network = CONTROLLER.network
    seen = {INTERNET, str(CONTROLLER.ip)}
    for index, host in enumerate(hosts):
        item = "hosts[%d] %r: " % (index, host.name)
        if not NAME.match(host.name):
            raise LabError(item + "a name is 1 to 11 lower-case letters, digits or dashes, a letter first")
        try:
            inside = ipaddress.IPv4Address(host.address) in network
        except ValueError:
            inside = False
        if not inside:
            raise LabError(item + "%r is no address in %s" % (host.address, network))
        if host.name in seen or host.address in seen:
            raise LabError(item + "name or address is taken")
        seen |= {host.name, host.address}
