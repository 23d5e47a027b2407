# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: several real hosts on one machine, each a set of namespaces with a PID 1 of its own.

Pure part first (what a host's disk holds, which cables are missing), then the machine it is done on.
"""
from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MANAGEMENT_BRIDGE = "slmgmt0"
TRUNK_BRIDGE = "sltrunk0"
CONTROLLER = "10.0.10.254/24"
INTERNET = "internet"
INTERNET_ADDRESS = "203.0.113.1"
UPLINK = "203.0.113.2/24"
USER = "ubuntu"
END_TIMEOUT = 60.0
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
    """What this lab started since the machine booted: enough to end it and nothing else."""

    boot_id: str
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)


# --- pure ---------------------------------------------------------------------------------------------------------


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
        address = CONTROLLER.split("/")[0]
        lines += [
            "link add %s address %s type bridge" % (MANAGEMENT_BRIDGE, mac_of(address)),
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
        inside = (
            "mgmt0 address " + mac_of(host.address) if bridge == MANAGEMENT_BRIDGE else "trunk0"
        )
        lines += [
            "link add %s type veth peer name %s netns %d" % (name, inside, pid),
            "link set %s addrgenmode none master %s up" % (name, bridge),
        ]
    return lines


def address_commands(host: Host) -> list[str]:
    """`ip -batch` lines, run inside the host."""
    return [
        "link set lo up",
        "address replace %s/%s dev mgmt0" % (host.address, CONTROLLER.split("/")[1]),
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
    network = ipaddress.IPv4Interface(CONTROLLER).network
    seen = {INTERNET, CONTROLLER.split("/")[0]}
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
    if sum(host.uplink for host in hosts) > 1:
        raise LabError("more than one host has the uplink")


# --- the machine --------------------------------------------------------------------------------------------------


def run(argv: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(
        argv, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True
    )
    if done.returncode != 0:
        message = " ".join((done.stderr or done.stdout).split())
        raise LabError("%s failed (rc=%d): %s" % (" ".join(argv), done.returncode, message))
    return done.stdout


def ip_batch(lines: list[str], pid: int | None = None) -> None:
    if lines:
        enter = [] if pid is None else ["nsenter", "--target", str(pid), "--net"]
        run([*enter, "ip", "-batch", "-"], "\n".join(lines) + "\n")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs: a PID alone may have been given to another one since."""
    try:
        return start_time(Path("/proc/%d/stat" % pid).read_text()) == started
    except (FileNotFoundError, ProcessLookupError):
        return False


def links_present() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]))}


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One lab_up or lab_down at a time. Locks the folder around the lab: a lock file would be a trace."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Lab:
    """The lab on this machine. Its state is written before each step, so that a crash leaves nothing unknown."""

    def __init__(self, directory: Path, hosts: list[Host]) -> None:
        self.directory = directory
        self.hosts = hosts
        self.state_file = directory / "state.json"
        self.state = self._load()

    def _load(self) -> State:
        now = boot_id()
        try:
            saved = State(**json.loads(self.state_file.read_text()))
        except FileNotFoundError:
            return State(now)
        except (ValueError, TypeError) as error:
            raise LabError("%s is not readable: %s" % (self.state_file, error)) from error
        return saved if saved.boot_id == now else State(now)  # nothing survives a reboot of the machine

    def _save(self) -> None:
        self.directory.mkdir(mode=0o755, exist_ok=True)
        fresh = self.state_file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self.state), indent=2) + "\n")
        fresh.replace(self.state_file)

    @property
    def names(self) -> list[str]:
        return [INTERNET, *(host.name for host in self.hosts)]

    def running(self) -> dict[str, int]:
        """PID by name of the hosts that live."""
        return {name: known["pid"] for name, known in self.state.hosts.items() if is_alive(known["pid"], known["start"])}

    def missing_hosts(self) -> list[str]:
        running = self.running()
        return [name for name in self.names if name not in running]

    def missing_links(self) -> list[str]:
        wanted = [MANAGEMENT_BRIDGE, TRUNK_BRIDGE, *(name for host in self.hosts for name in cables(host))]
        present = links_present()
        return [name for name in wanted if name not in present]

    # up

    def check_machine(self) -> None:
        """Say what stands in the way before anything is changed."""
        mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        apart = sorted({"/etc", "/usr", "/var", "/var/lib"} & mounts)
        if apart:
            raise LabError("the lab needs the system on one file system, but these are mounts: " + ", ".join(apart))
        strangers = sorted(
            {MANAGEMENT_BRIDGE, TRUNK_BRIDGE, *(name for host in self.hosts for name in cables(host))}
            & links_present() - set(self.state.links)
        )
        if strangers:
            raise LabError("network interfaces that this lab did not make are in its way: " + ", ".join(strangers))
        routes = json.loads(run(["ip", "-json", "-4", "route", "show"]))
        taken = clashes([str(ipaddress.IPv4Interface(CONTROLLER).network)], routes, [MANAGEMENT_BRIDGE])
        if taken:
            raise LabError("the lab's network is in use on this machine: " + ", ".join(taken))

    def up(self, public_key: str, files: Path) -> None:
        """Bring up what is missing."""
        self.check_machine()
        starting = self.missing_hosts()
        if starting:
            self.end_connections()
        self._write_keys()
        for name in starting:
            self._write_disk(name, public_key, files)
        inits = {name: self._spawn(name, files) for name in starting}
        try:
            for name, init in inits.items():
                _expect(name, init, "booted")
            self._plug(starting)
            for init in inits.values():
                _tell(init)
            for name, init in inits.items():
                _expect(name, init, "ready")
        finally:
            for init in inits.values():
                _close(init)

    def _write_keys(self) -> None:
        """Host keys are made once per lab, so that a host started again is still known."""
        keys = self.directory / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        public = {}
        for host in self.hosts:
            path = keys / host.name
            if not path.with_suffix(".pub").exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(path)])
            public[host.name] = path.with_suffix(".pub").read_text()
        (self.directory / "known_hosts").write_text(known_hosts(self.hosts, public))

    def disk(self, name: str) -> Path:
        return self.directory / "hosts" / name

    def _write_disk(self, name: str, public_key: str, files: Path) -> None:
        """Prepare a host's disk once; a host that is started again keeps what was written to it."""
        disk = self.disk(name)
        upper = disk / "upper"
        done = disk / "installed"
        if done.exists():
            return
        if disk.exists():
            shutil.rmtree(disk)
        for part in ("root", "upper", "work"):
            (disk / part).mkdir(parents=True)
        for folder, mode in EMPTY_DIRS.items():
            _make_dirs(upper, folder)
            path = upper / folder
            path.chmod(mode)
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        for entry in os.listdir("/"):
            if entry not in SYSTEM_DIRS:
                _whiteout(upper / entry)
        own = self.directory.relative_to("/")
        _make_dirs(upper, str(own.parent))
        _whiteout(upper / own)
        _write(upper, File("etc/machine-id", os.urandom(16).hex() + "\n"), 0)
        host = next((host for host in self.hosts if host.name == name), None)
        script = (files / ("boot_host.sh" if host else "boot_internet.sh")).read_text()
        _write(upper, File("etc/lab_boot.sh", script, 0o755), 0)
        if host is None:
            _write(upper, File("etc/resolv.conf", ""), 0)
        else:
            passwd = {name: Path("/etc", name).read_text() for name in ("passwd", "group", "shadow")}
            uid = user_id(passwd["passwd"])
            for folder in ("home/" + USER, "home/" + USER + "/.ssh"):
                os.chown(upper / folder, uid, uid)
            host_key = (self.directory / "keys" / host.name).read_text()
            for file in disk_files(host, self.hosts, passwd, public_key, host_key):
                _write(upper, file, uid)
        done.touch()

    def _spawn(self, name: str, files: Path) -> subprocess.Popen[str]:
        host = {"name": name, "disk": str(self.disk(name)), "script": "/etc/lab_boot.sh"}
        init = subprocess.Popen(
            ["/usr/bin/python3", "-I", str(files / "lab_init.py"), json.dumps(host)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            text=True,
        )
        pid = int(_line(name, init))
        init.wait()
        started = start_time(Path("/proc/%d/stat" % pid).read_text())
        if started is None:
            raise LabError("%s: its init ended at once" % name)
        self.state.hosts[name] = {"pid": pid, "start": started}
        self._save()
        return init

    def _plug(self, started: list[str]) -> None:
        """Create the bridges and cables that are missing, the machine's side first."""
        present = links_present()
        self.state.links = [MANAGEMENT_BRIDGE, TRUNK_BRIDGE, *(name for host in self.hosts for name in cables(host))]
        self._save()
        lines = bridge_commands(present)
        for host in self.hosts:
            lines += cable_commands(host, self._pid(host.name), present)
        ip_batch(lines)
        for host in self.hosts:
            if host.name in started or not set(cables(host)) <= present:
                ip_batch(address_commands(host), self._pid(host.name))
        if not {MANAGEMENT_BRIDGE, TRUNK_BRIDGE} <= present:
            ip_batch(["link set %s master %s" % cable for host in self.hosts for cable in cables(host).items()])
        for host in self.hosts:
            if host.uplink and {host.name, INTERNET} & set(started):
                self._plug_uplink(host)

    def _plug_uplink(self, host: Host) -> None:
        outside, inside = self._pid(INTERNET), self._pid(host.name)
        ip_batch(["link add eth0 type veth peer name uplink0 netns %d" % inside], outside)
        prefix = UPLINK.split("/")[1]
        ip_batch(
            ["link set lo up", "address add %s/%s dev eth0" % (INTERNET_ADDRESS, prefix), "link set eth0 up"], outside
        )
        ip_batch(
            [
                "address add %s dev uplink0" % UPLINK,
                "link set uplink0 up",
                "route add default via %s dev uplink0" % INTERNET_ADDRESS,
            ],
            inside,
        )

    def _pid(self, name: str) -> int:
        try:
            return self.running()[name]
        except KeyError:
            raise LabError("%s: its init has ended" % name) from None

    # down

    def is_down(self) -> bool:
        return not self.directory.exists()

    def down(self) -> None:
        """End all that this lab started."""
        self.end_connections()
        for name in self.running():
            self._end(name)
        ours = set(self.state.links) & links_present()
        ip_batch(["link delete %s" % name for name in sorted(ours)])
        self._remove_files()

    def _end(self, name: str) -> None:
        """Ending PID 1 of a PID namespace ends everything in it."""
        known = self.state.hosts[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT
        while is_alive(known["pid"], known["start"]):
            if time.monotonic() > deadline:
                raise LabError("%s: its init (PID %d) does not end" % (name, known["pid"]))
            time.sleep(0.01)

    def end_connections(self) -> None:
        """SSH masters that plays left open to the hosts are processes of the lab, too."""
        sockets = self.directory / "cm"
        for path in sorted(sockets.iterdir()) if sockets.is_dir() else []:
            # A socket that nobody listens on any more is an error to ssh and nothing to us.
            subprocess.run(
                ["ssh", "-F", "none", "-O", "exit", "-o", "ControlPath=%s" % path, "lab"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            path.unlink(missing_ok=True)

    def _remove_files(self) -> None:
        if not self.directory.exists():
            return
        for part in ("hosts", "keys", "cm"):
            if (self.directory / part).exists():
                shutil.rmtree(self.directory / part)
        for part in ("known_hosts", "state.new", "state.json"):
            (self.directory / part).unlink(missing_ok=True)
        self.directory.rmdir()


def _make_dirs(upper: Path, folder: str) -> None:
    """Folders of a host's disk, with mode and owner of the machine's folder that they cover."""
    below = Path("/")
    path = upper
    for part in Path(folder).parts:
        below, path = below / part, path / part
        if path.exists():
            continue
        path.mkdir()
        if below.is_dir():
            covered = below.stat()
            path.chmod(covered.st_mode & 0o7777)
            os.chown(path, covered.st_uid, covered.st_gid)


def _whiteout(path: Path) -> None:
    """Hide what the machine has at this path."""
    os.mknod(path, 0o020000, os.makedev(0, 0))


def _write(upper: Path, file: File, uid: int) -> None:
    _make_dirs(upper, str(Path(file.path).parent))
    path = upper / file.path
    path.write_text(file.content)
    path.chmod(file.mode)
    if file.owned_by_user:
        os.chown(path, uid, uid)


def _line(name: str, init: subprocess.Popen[str]) -> str:
    """The next line that a host's init says."""
    assert init.stdout is not None
    line = init.stdout.readline().strip()
    if not line:
        raise LabError("%s: its init ended without a word" % name)
    if line.startswith("error: "):
        raise LabError("%s: %s" % (name, line[len("error: "):]))
    return line


def _tell(init: subprocess.Popen[str]) -> None:
    assert init.stdin is not None
    init.stdin.write("go\n")
    init.stdin.flush()


def _expect(name: str, init: subprocess.Popen[str], word: str) -> None:
    line = _line(name, init)
    if line != word:
        raise LabError("%s: its init said %r, not %r" % (name, line, word))


def _close(init: subprocess.Popen[str]) -> None:
    assert init.stdin is not None and init.stdout is not None
    init.stdin.close()
    init.stdout.close()
