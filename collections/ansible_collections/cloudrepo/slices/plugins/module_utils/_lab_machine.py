# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab on this machine: each host a set of namespaces with a PID 1 of its own, ended by what was recorded of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Iterator, cast

from ansible_collections.cloudrepo.slices.plugins.module_utils._lab import (
    CONTROLLER,
    EMPTY_DIRS,
    INTERNET,
    MANAGEMENT_BRIDGE,
    SYSTEM_DIRS,
    TRUNK_BRIDGE,
    USER,
    File,
    Host,
    LabError,
    State,
    address_commands,
    bridge_commands,
    cable_commands,
    cables,
    clashes,
    disk_files,
    internet_commands,
    known_hosts,
    start_time,
    uplink,
    uplink_commands,
    user_id,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run

END_TIMEOUT = 60.0


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


def links_present(pid: int | None = None) -> set[str]:
    enter = [] if pid is None else ["nsenter", "--target", str(pid), "--net"]
    return {link["ifname"] for link in json.loads(run([*enter, "ip", "-json", "link", "show"]))}


def delete_links(names: set[str], pid: int | None = None) -> None:
    """Delete those of these links that are there; one that the kernel is deleting right now may be gone before us."""
    deadline = time.monotonic() + END_TIMEOUT
    while True:
        left = sorted(names & links_present(pid))
        if not left:
            return
        try:
            ip_batch(["link delete " + name for name in left], pid)
        except CommandError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One lab_up or lab_down at a time. Locks the folder around the lab: a lock file would be a trace."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class _Init:
    """The conversation with the init of a host that is being started; see lab_init.py."""

    def __init__(self, name: str, disk: Path, script: Path) -> None:
        self.name = name
        host = {"name": name, "disk": str(disk), "script": "/etc/lab_boot.sh"}
        process = subprocess.Popen(
            ["/usr/bin/python3", "-I", str(script), json.dumps(host)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            universal_newlines=True,
        )
        self.stdin = cast(IO[str], process.stdin)
        self.stdout = cast(IO[str], process.stdout)
        self.pid = int(self._line())
        process.wait()  # it has forked the init, and ends
        self.started = self._start_time()

    def _start_time(self) -> int:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            started = start_time(Path("/proc/%d/stat" % self.pid).read_text())
            if started is not None:
                return started
        self.expect("booted")  # it has left the reason
        raise LabError("%s: its init ended at once" % self.name)

    def _line(self) -> str:
        line = self.stdout.readline().strip()
        if not line:
            raise LabError("%s: its init ended without a word" % self.name)
        if line.startswith("error: "):
            raise LabError("%s: %s" % (self.name, line.partition(" ")[2]))
        return line

    def expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            raise LabError("%s: its init said %r, not %r" % (self.name, line, word))

    def go_on(self) -> None:
        self.stdin.write("go\n")
        self.stdin.flush()

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()


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
        return {
            name: known["pid"] for name, known in self.state.hosts.items() if is_alive(known["pid"], known["start"])
        }

    def missing_hosts(self) -> list[str]:
        running = self.running()
        return [name for name in self.names if name not in running or name not in self.state.ready]

    def unwanted_hosts(self) -> list[str]:
        return [name for name in self.running() if name not in self.names]

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
        taken = clashes([str(CONTROLLER.network)], routes, [MANAGEMENT_BRIDGE])
        if taken:
            raise LabError("the lab's network is in use on this machine: " + ", ".join(taken))

    def up(self, public_key: str, files: Path) -> None:
        """Bring up what is missing, and end what is not named any more."""
        self.check_machine()
        starting, leaving = self.missing_hosts(), self.unwanted_hosts()
        if starting or leaving:
            self.end_connections()
        for name in leaving:
            self._forget(name)
        self._write_keys()
        for name in starting:
            self._end(name)
            self._write_disk(name, public_key, files)
        inits = [self._spawn(name, files) for name in starting]
        try:
            for init in inits:
                init.expect("booted")
            self._plug(starting)
            for init in inits:
                init.go_on()
            for init in inits:
                init.expect("ready")
                self.state.ready.append(init.name)
            self._save()
        finally:
            for init in inits:
                init.close()

    def _write_keys(self) -> None:
        """Host keys are made once per lab, so that a host started again is still known."""
        keys = self.directory / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        public = {}
        for host in self.hosts:
            path = keys / host.name
            if not path.with_suffix(".pub").exists():
                path.unlink(missing_ok=True)
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
        disk.parent.mkdir(mode=0o700, exist_ok=True)
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

    def _spawn(self, name: str, files: Path) -> _Init:
        init = _Init(name, self.disk(name), files / "lab_init.py")
        self.state.hosts[name] = {"pid": init.pid, "start": init.started}
        self.state.ready = [other for other in self.state.ready if other != name]
        self._save()
        return init

    def _plug(self, started: list[str]) -> None:
        """Create the bridges and cables that are missing, the machine's side first."""
        delete_links({name for host in self.hosts if host.name in started for name in cables(host)})
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
        if INTERNET in started:
            ip_batch(internet_commands(), self._pid(INTERNET))
        for host in self.hosts:
            if host.uplink and {host.name, INTERNET} & set(started):
                self._plug_uplink(host)

    def _plug_uplink(self, host: Host) -> None:
        outside, inside = self._pid(INTERNET), self._pid(host.name)
        delete_links({uplink(host)}, outside)
        delete_links({"uplink0"}, inside)
        for pid, lines in zip((outside, inside), uplink_commands(host, self.hosts, inside)):
            ip_batch(lines, pid)

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
        for name in self.state.hosts:
            self._end(name)
        delete_links(set(self.state.links))
        self._remove_files()

    def _end(self, name: str) -> None:
        """End a host if it lives. Ending PID 1 of a PID namespace ends everything in it."""
        deadline = time.monotonic() + END_TIMEOUT
        while name in self.running():
            if time.monotonic() > deadline:
                raise LabError("%s: its init (PID %d) does not end" % (name, self._pid(name)))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.state.hosts[name]["pid"], signal.SIGKILL)
            time.sleep(0.01)

    def _forget(self, name: str) -> None:
        """End a host and remove its disk."""
        self._end(name)
        delete_links(set(cables(Host(name, ""))))
        shutil.rmtree(self.disk(name))
        del self.state.hosts[name]
        self._save()

    def end_connections(self) -> None:
        """SSH masters that plays left open to the hosts are processes of the lab, too."""
        sockets = self.directory / "cm"
        for path in sorted(sockets.iterdir()) if sockets.is_dir() else []:
            # A socket that nobody listens on any more is an error to ssh and nothing to us.
            subprocess.run(
                ["ssh", "-F", "none", "-O", "exit", "-o", "ControlPath=%s" % path, "lab"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
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
