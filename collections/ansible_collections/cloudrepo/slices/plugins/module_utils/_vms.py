# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VMs of one host: find, start, change, stop and remove the QEMU of each.

A VM is known by its manifest beside its disk. Its process is known by the QMP socket and the pidfile in the VM's own
folder, and no process gets a signal whose command line does not name that pidfile.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils._cgroup import Groups
from ansible_collections.cloudrepo.slices.plugins.module_utils._cgroup import find as find_groups
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import locked, remove_file, tidy, write_whole
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, run_each
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu import (
    CONFIG,
    MANIFEST,
    PRELAUNCH,
    PROBE_INPUT,
    RUNNING,
    SILENT,
    STOPPED,
    Paths,
    argv,
    attached_tap,
    changed_links,
    is_ours,
    nic_id,
    probe_argv,
    restart_changes,
    vm_paths,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._qmp import Qmp, QmpError, connect, connect_now
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import DELETE, Action, State
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run

_QMP_SECONDS = 30.0  # A host on which many VMs boot at once is slow to answer.
_QUICK_SECONDS = 0.5  # Those that have answered wait as long for one that has not.
_START_SECONDS = 60.0
_QUIT_SECONDS = 10.0
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.02
_MESSAGE_MAX = 2000
_CONSOLE_LOG_MAX = 16 * 1024 * 1024
_WAITING = 32  # Threads that only wait for an answer.
_AT_ONCE = 64  # Connections, each of which is an open file.
_STARTING = 64  # Most of the time they wait for the kernel, whose network devices are made and moved one by one.
_ERRORS = (ItemError, QmpError, CommandError, OSError)
_NO_STATUS = (QmpError, KeyError, TypeError)  # What QEMU answers is its guest's, if that has taken it over.


class Host(NamedTuple):
    """Where one slice's VMs are on this host. Without ``groups`` it can't limit what they use."""

    base_dir: str
    run_dir: str
    slice_name: str
    groups: Optional[Groups] = None

    def paths(self, name: str) -> Paths:
        """The files of a VM."""
        return vm_paths(self.base_dir, self.run_dir, self.slice_name, name)


class Process(NamedTuple):
    """A VM's QEMU. ``status`` is what QMP says, or that it says nothing; then ``pid`` may be unknown."""

    pid: Optional[int]
    status: str


class Vm(NamedTuple):
    """A VM that exists: its state as reconcile() compares it, and its process if it has one."""

    state: State
    pid: Optional[int]


def slices(base_dir: str, run_dir: str) -> List[str]:
    """The slices that have a folder on this host."""
    return sorted({*_folders(base_dir), *_folders(run_dir)})


def _folders(folder: str) -> List[str]:
    return [name for name in _listdir(folder) if is_name(name) and os.path.isdir(os.path.join(folder, name))]


def _listdir(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def names(host: Host) -> List[str]:
    """The VMs of a slice: those with a manifest and those with a folder of their own."""
    disks = _listdir(os.path.join(host.base_dir, host.slice_name))
    with_manifest = [entry[: -len(".json")] for entry in disks if entry.endswith(".json")]
    return sorted({*filter(is_name, with_manifest), *_folders(os.path.join(host.run_dir, host.slice_name))})


def scan(host: Host) -> Dict[str, Vm]:
    """The VMs of a slice by name, each with its process. Starts no process."""
    processes = find_all({name: host.paths(name) for name in names(host)})
    found: Dict[str, Vm] = {}
    errors: List[str] = []
    for name, process in processes.items():
        try:
            found[name] = _vm(host, name, process)
        except _ERRORS as error:
            errors.append('vm "%s": %s' % (name, error))
    if errors:
        raise ItemError("; ".join(errors))
    return found


def _vm(host: Host, name: str, process: Optional[Process]) -> Vm:
    paths = host.paths(name)
    pid = process.pid if process else None
    state = {"status": process.status if process else STOPPED, **_read_manifest(paths.manifest)}
    if state["status"] == PRELAUNCH:
        state["interfaces"] = _links_up(state.get("interfaces", []))
    if pid is not None:
        state.update(_losses(pid, paths.disk, state.get("interfaces", [])))
        if host.groups is not None:
            state["limits"] = host.groups.limits(name, pid)
    return Vm(state, pid)


def _links_up(interfaces: Sequence[State]) -> List[State]:
    """The interfaces as QEMU starts with them, whatever the manifest says that they will be."""
    return [{**nic, "connected": True} for nic in interfaces]


def running(base_dir: str, run_dir: str, only: Optional[str]) -> List[Dict[str, Any]]:
    """What there is of VMs on this host, of one slice or of all, in the words of ``qemu_vm_info``."""
    folder = find_groups()
    return [
        {
            "slice": name,
            "name": vm,
            "id": state.get("id"),
            "pid": pid,
            "status": state["status"],
            "vnc_port": state.get("vnc_port"),
            "console": vm_paths(base_dir, run_dir, name, vm).console,
            "limits": state.get("limits"),
        }
        for name in ([only] if only else slices(base_dir, run_dir))
        for vm, (state, pid) in scan(Host(base_dir, run_dir, name, Groups(folder, name) if folder else None)).items()
    ]


def _losses(pid: int, disk: str, interfaces: Sequence[State]) -> State:
    """What was deleted while a QEMU had it. It notices nothing, and goes on with what nobody else sees.

    Nobody wants these fields, so that a VM which has one differs from what is wanted.
    """
    try:
        lost_taps = _lost_taps(pid, interfaces)
        lost_disk = not _has_open(pid, disk)
    except (FileNotFoundError, ProcessLookupError):
        return {}  # It has just ended.
    return {**({"lost_taps": lost_taps} if lost_taps else {}), **({"lost_disk": True} if lost_disk else {})}


def _lost_taps(pid: int, interfaces: Sequence[State]) -> List[str]:
    """The TAPs to which a QEMU is no longer attached."""
    attached = set()
    for path in _entries(pid, "fd"):
        with suppress(FileNotFoundError):
            if "/tun" in os.readlink(path):  # Reading all the others, too, takes as long as the rest.
                with open(path.replace("/fd/", "/fdinfo/"), encoding="utf-8") as file:
                    attached.add(attached_tap(file.read()))
    return [nic["tap"] for nic in interfaces if nic["tap"] not in attached]


def _has_open(pid: int, path: str) -> bool:
    """Whether a process has the file open that is at ``path`` now."""
    try:
        wanted = os.stat(path)
    except FileNotFoundError:
        return False
    for entry in _entries(pid, "fd"):
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(entry), wanted):
                return True
    return False


def _entries(pid: int, folder: str) -> Iterator[str]:
    """What /proc has for each open file of a process."""
    parent = "/proc/%d/%s" % (pid, folder)
    return (os.path.join(parent, entry) for entry in os.listdir(parent))


def _read_manifest(path: str) -> Dict[str, Any]:
    """A VM's configuration; empty if it was lost, so that it differs from whatever is wanted."""
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        return {**{field: manifest[field] for field in CONFIG}, "record": manifest.get("record")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ItemError("%s is not the manifest of a VM" % path) from error


def _write_manifest(host: Host, name: str, config: State) -> None:
    manifest = {"slice": host.slice_name, "name": name, **{field: config[field] for field in MANIFEST}}
    write_whole(host.paths(name).manifest, json.dumps(manifest, indent=1) + "\n", 0o600)


class _Asked(NamedTuple):
    """A VM's QEMU that was asked for its status."""

    pid: int
    qmp: Qmp


def find_all(paths: Mapping[str, Paths]) -> Dict[str, Optional[Process]]:
    """find() for several VMs, by name.

    All are asked before the first is heard, without a thread for each. Who does not answer at once gets one, and the
    others' QEMUs talk to somebody else meanwhile.
    """
    found: Dict[str, Optional[Process]] = dict.fromkeys(paths)
    late: List[str] = []
    order = list(paths)
    for first in range(0, len(order), _AT_ONCE):
        asked = {name: _ask(paths[name]) for name in order[first : first + _AT_ONCE]}
        deadline = time.monotonic() + _QUICK_SECONDS
        for name, one in asked.items():
            found[name] = _hear(one, deadline) if one else None
            if found[name] is None:
                late.append(name)

    def look(name: str) -> None:
        found[name] = find(paths[name])

    run_each(look, late, (), _WAITING)
    return found


def _ask(paths: Paths) -> Optional[_Asked]:
    """Ask a VM's QEMU for its status, if it listens and others are not before us."""
    try:
        qmp = connect_now(paths.qmp, _QUICK_SECONDS)
    except OSError:
        return None
    with suppress(QmpError, OSError):
        pid = qmp.peer_pid()
        if _is_alive(pid, paths):
            qmp.ask("query-status")
            return _Asked(pid, qmp)
    qmp.close()
    return None


def _hear(asked: _Asked, deadline: float) -> Optional[Process]:
    with suppress(*_NO_STATUS), asked.qmp as qmp:
        return Process(asked.pid, str(qmp.hear("query-status", deadline)["status"]))
    return None


def find(paths: Paths) -> Optional[Process]:
    """The QEMU of a VM, by its socket, and where that is silent or lost by its pidfile. Stale ones find nothing."""
    silent = None
    try:
        with connect(paths.qmp, _QMP_SECONDS) as qmp:
            pid = qmp.peer_pid()
            if _is_alive(pid, paths):
                return Process(pid, _status(qmp))
    except socket.timeout:  # It listens, but others are before us.
        silent = Process(None, SILENT)
    except OSError:
        pass  # Nobody listens.
    saved = _read_pid(paths.pidfile)
    return Process(saved, SILENT) if saved and _is_alive(saved, paths) else silent


def _status(qmp: Qmp) -> str:
    try:
        return str(qmp.open_with("query-status")["status"])
    except _NO_STATUS:
        return SILENT


def _read_pid(pidfile: str) -> Optional[int]:
    """The content of a pidfile, which QEMU's user may have replaced with anything."""
    try:
        descriptor = os.open(pidfile, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return int(os.read(descriptor, 32))
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None


def _is_alive(pid: int, paths: Paths) -> bool:
    """Whether ``pid`` is this VM's QEMU. A zombie has no command line and is not."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return is_ours(file.read(), paths)
    except OSError:
        return False


def _ended(pid: int, paths: Paths, deadline: float) -> bool:
    """Wait until a VM's process has ended, up to ``deadline``."""
    while _is_alive(pid, paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def check_startable(host: Host, names: Iterable[str], configs: Mapping[str, State], known: Mapping[str, str]) -> None:
    """Refuse to start anything if a disk or a TAP is missing."""
    taps = {name for _index, name in socket.if_nameindex()}
    for name in names:
        disk = host.paths(name).disk
        if not os.path.isfile(disk):
            raise ItemError("%s: there is no disk %s" % (known[name], disk))
        for nic in configs[name]["interfaces"]:
            if nic["tap"] not in taps:
                raise ItemError('%s: there is no TAP "%s" on this host' % (known[name], nic["tap"]))


def user_argv(user: str) -> List[str]:
    """The command that runs the next one as ``user``, without root's groups and without a way back.

    Raises:
        ItemError: there is no such user, or we may not become it.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise ItemError('user: there is no user "%s" on this host' % user) from error
    if entry.pw_uid == os.geteuid():
        return []
    if os.geteuid() != 0:
        raise ItemError('user: only root can run QEMU as "%s" (become: true)' % user)
    groups = sorted({*os.getgrouplist(user, entry.pw_gid), *_kvm_group()})
    return [
        "setpriv",
        "--reuid=%d" % entry.pw_uid,
        "--regid=%d" % entry.pw_gid,
        "--groups=%s" % ",".join(map(str, groups)),
        "--no-new-privs",
    ]


def _kvm_group() -> List[int]:
    try:
        return [grp.getgrnam("kvm").gr_gid]
    except KeyError:
        return []


def usable_accelerator(wanted: str, as_user: Sequence[str]) -> str:
    """KVM if QEMU's user can make a virtual CPU with it, else TCG. Which one is wanted explicitly is taken as it is."""
    if wanted != "auto":
        return wanted
    try:
        run([*as_user, *probe_argv()], stdin=PROBE_INPUT, timeout=10.0)
    except CommandError:
        return "tcg"
    return "kvm"


class Starter(NamedTuple):
    """How VMs are started on this host."""

    host: Host
    user: str
    as_user: Sequence[str]
    accelerator: str
    connected: Callable[[], None]

    def start(self, name: str, config: State) -> None:
        """Start a VM and wait until it runs."""
        paths = self.host.paths(name)
        self._make_files(paths)
        _write_manifest(self.host, name, config)
        command = argv(self.host.slice_name, name, config, paths, self.accelerator)
        remove_file(paths.qemu_log)
        # Read again through this very file: its folder belongs to QEMU's user, who may put another one there.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(paths.qemu_log, flags, 0o600), "w+b") as log:
            process = self._spawn([*self.as_user, *command], log)
            try:
                _limit(self.host, name, process.pid, config)
                self._wait_until_ready(process, paths, log)
                self.connected()
                if process.poll() is not None:
                    raise ItemError("QEMU ended (rc=%d): %s" % (process.returncode, _end_of(log)))
                self._release(paths, config)
            except BaseException:
                process.kill()
                process.wait()
                raise

    def _make_files(self, paths: Paths) -> None:
        user = pwd.getpwnam(self.user)
        os.makedirs(paths.folder, 0o700, exist_ok=True)
        os.chown(paths.folder, user.pw_uid, user.pw_gid)
        # QEMU's user may write the log, and make no file beside it.
        log = os.open(paths.console_log, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(log, user.pw_uid, user.pw_gid)
            if os.fstat(log).st_size > _CONSOLE_LOG_MAX:
                os.ftruncate(log, 0)
        finally:
            os.close(log)

    @staticmethod
    def _spawn(command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes]:
        """Run a command that outlives us, in a session of its own, with its messages in a log."""
        try:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ItemError("%s is not installed" % command[0]) from error

    @staticmethod
    def _wait_until_ready(process: subprocess.Popen[bytes], paths: Paths, log: BinaryIO) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            found = find(paths)
            if found is not None and found.status == PRELAUNCH:
                return
            if time.monotonic() > deadline:
                status = found.status if found else "not there"
                raise ItemError("QEMU is %s %d seconds after its start" % (status, _START_SECONDS))
            time.sleep(_POLL_SECONDS)
        raise ItemError("QEMU did not start (rc=%d): %s" % (process.returncode, _end_of(log)))

    @staticmethod
    def _release(paths: Paths, config: State) -> None:
        """Make the links what they should be, and let the guest begin."""
        with connect(paths.qmp, _QMP_SECONDS) as qmp:
            qmp.negotiate()
            _set_links(qmp, changed_links({"interfaces": _links_up(config["interfaces"])}, config))
            qmp.execute("cont")
            if qmp.status() != RUNNING:
                raise ItemError("QEMU does not run after its start")


def _set_links(qmp: Qmp, links: Mapping[str, bool]) -> None:
    for interface, connected in links.items():
        qmp.execute("set_link", name=nic_id(interface), up=connected)


def _end_of(log: BinaryIO) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _MESSAGE_MAX))
    return log.read().decode("utf-8", "replace").strip() or "it said nothing"


def check_started(host: Host, names: Iterable[str], have: Mapping[str, Vm]) -> Dict[str, str]:
    """The messages of those VMs whose QEMU was started and has ended since."""
    gone = [name for name in names if name not in have or have[name].pid is None]
    return {name: "QEMU ended right after its start: %s" % _last_words(host.paths(name).qemu_log) for name in gone}


def _last_words(path: str) -> str:
    """The end of a log, in whose place QEMU's user may have put anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return str(error)
    with os.fdopen(descriptor, "rb") as log:
        return _end_of(log)


def set_passwords(host: Host, passwords: Mapping[str, Any], have: Mapping[str, Vm]) -> Dict[str, str]:
    """Set the VNC passwords of the VMs that ask for one; QEMU has none until then, and can't tell which it has.

    Returns:
        The messages of the VMs that refused.
    """

    def set_one(name: str) -> None:
        with connect(host.paths(name).qmp, _QMP_SECONDS) as qmp:
            qmp.open_with("set_password", protocol="vnc", password=passwords[name])

    asking = [name for name in passwords if name in have and have[name].pid and have[name].state.get("vnc_password")]
    return run_each(set_one, asking, _ERRORS, _WAITING)


def _limit(host: Host, name: str, pid: int, state: State) -> None:
    """Limit what a VM's process may use, if the host can."""
    if host.groups is not None and state.get("limits"):
        host.groups.limit(name, pid, state["limits"])


def tidy_groups(host: Host, have: Mapping[str, Vm]) -> None:
    """Remove the groups of VMs that do not run, however they ended."""
    if host.groups is not None:
        for name in host.groups.names():
            if name not in have or have[name].state["status"] == STOPPED:
                host.groups.remove(name)


def change(host: Host, name: str, before: State, after: State) -> None:
    """Change what can be changed while a VM runs: its limits, its links, whether it is paused, and its record."""
    links = changed_links(before, after)
    limited = before.get("limits") != after.get("limits")
    if links or limited or before["status"] != RUNNING:
        with connect(host.paths(name).qmp, _QMP_SECONDS) as qmp:
            if limited:
                _limit(host, name, qmp.peer_pid(), after)
            qmp.negotiate()
            _set_links(qmp, links)
            if before["status"] != RUNNING:
                qmp.execute("cont")
    if links or before.get("record") != after.get("record"):
        _write_manifest(host, name, after)


def stop(host: Host, pids: Mapping[str, int], grace: float) -> Dict[str, str]:
    """Stop VMs: the guests are asked first, all at once, and have ``grace`` seconds together; then QEMU is told.

    Args:
        host: where they are.
        pids: the processes by VM.
        grace: 0 asks no guest.

    Returns:
        The messages of the VMs that are still there.
    """
    if grace > 0:
        run_each(lambda name: _power_down(host.paths(name)), pids, (), _WAITING)
    deadline = time.monotonic() + grace
    return run_each(lambda name: _end(pids[name], host.paths(name), deadline), pids, _ERRORS, _WAITING)


def _power_down(paths: Paths) -> None:
    try:
        with connect(paths.qmp, _QUIT_SECONDS) as qmp:
            qmp.open_with("system_powerdown")
    except (QmpError, OSError):
        pass  # Then it does not end in time, and is ended.


def _end(pid: int, paths: Paths, deadline: float) -> None:
    if _ended(pid, paths, deadline):
        return
    try:
        with connect(paths.qmp, _QUIT_SECONDS) as qmp:
            qmp.open_with("quit")
    except (QmpError, OSError):
        pass  # It may have closed the connection first. If it is still there, it is killed.
    else:
        if _ended(pid, paths, time.monotonic() + _QUIT_SECONDS):
            return
    _kill(pid, paths)
    if not _ended(pid, paths, time.monotonic() + _KILL_SECONDS):
        raise ItemError("QEMU (pid %d) does not end" % pid)


def _kill(pid: int, paths: Paths) -> None:
    """Kill a VM's process, having made sure that it still is one."""
    try:
        if hasattr(os, "pidfd_open"):
            descriptor = os.pidfd_open(pid)
            try:
                if _is_alive(pid, paths):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)
        elif _is_alive(pid, paths):
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def remove(host: Host, name: str) -> None:
    """Remove what a stopped VM leaves: its folder, its console's log and its manifest. Its disk is not ours."""
    paths = host.paths(name)
    if os.path.isdir(paths.folder):
        shutil.rmtree(paths.folder)
    remove_file(paths.console_log)
    remove_file(paths.manifest)


def _tidy_disks(host: Host) -> None:
    """Remove the slice's folder of disks if its disks went first and the last manifest has just gone."""
    folder = os.path.join(host.base_dir, host.slice_name)
    if os.path.isdir(folder):
        # The lock under which disks are made: none is about to be put there.
        with locked(folder):
            tidy(folder)


def apply(
    host: Host,
    actions: Sequence[Action],
    pids: Mapping[str, int],
    grace: float,
    starter: Callable[[], Starter],
    connected: Callable[[], None],
) -> Dict[str, str]:
    """Carry the actions out: first everything that ends, so that its ports are free, then everything that starts.

    Nothing ends, and no guest begins or gets another link, before the TAPs are connected.

    Args:
        host: where the VMs are.
        actions: what was planned.
        pids: the processes of the VMs that have one.
        grace: seconds for guests that are stopped or restarted; those that are deleted get none.
        starter: made when something has to be started.
        connected: returns when the TAPs are, and raises ``ItemError`` if that failed.

    Returns:
        The messages of the VMs that failed.
    """
    deleted = [action for action in actions if action.kind == DELETE]
    stopped = [action for action in actions if action.kind != DELETE and _must_stop(action)]
    if deleted or stopped:
        connected()
    errors = stop(host, _pids_of(deleted, pids), 0)
    errors.update(run_each(lambda name: remove(host, name), _names_without(deleted, errors), _ERRORS))
    if deleted:
        _tidy_disks(host)

    errors.update(stop(host, _pids_of(stopped, pids), grace))

    kept = [action for action in actions if action.kind != DELETE and (action.after or {})["status"] == RUNNING]
    by_name = {action.name: action for action in kept}
    make = starter() if any(map(must_start, kept)) else None

    def advance(name: str) -> None:
        action = by_name[name]
        before, after = action.before or {}, action.after or {}
        if make is not None and must_start(action):
            make.start(name, after)
        else:
            connected()
            change(host, name, before, after)

    errors.update(run_each(advance, _names_without(kept, errors), _ERRORS, _STARTING))
    return errors


def must_start(action: Action) -> bool:
    """Whether an action starts a QEMU, be it again."""
    if (action.after or {}).get("status") != RUNNING:
        return False
    return (action.before or {}).get("status", STOPPED) == STOPPED or _must_stop(action)


def _must_stop(action: Action) -> bool:
    before, after = action.before or {}, action.after or {}
    if before.get("status", STOPPED) == STOPPED:
        return False
    return bool(after["status"] == STOPPED or restart_changes(before, after))


def _pids_of(actions: Sequence[Action], pids: Mapping[str, int]) -> Dict[str, int]:
    return {action.name: pids[action.name] for action in actions if action.name in pids}


def _names_without(actions: Sequence[Action], errors: Mapping[str, str]) -> List[str]:
    return [action.name for action in actions if action.name not in errors]
