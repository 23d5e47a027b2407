# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong: each function breaks the play that runs inside of it, and mends what it broke."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import lab, slices
from .lab import BASE_DIR, NODE, REGISTRY
from .slices import BROKEN, BYSTANDER_SPEC, CACHE, SETTINGS
from .world import DELETE, DEPLOY, HOOKED, REDEPLOY, Run

REGISTRY_DIR = os.path.dirname(REGISTRY)
OVS_SOCKET = "/run/openvswitch/db.sock"


@contextmanager
def meanwhile(run: Run, is_time: Callable[[], bool], action: Callable[[], None]) -> Iterator[None]:
    """Do something at a certain time while the play runs."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if is_time():
                run.struck = True
                try:
                    action()
                except Exception as error:
                    run.problems.append(f"harness: {error}")
                return
            time.sleep(0.005)

    run.struck = False
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def give_order(run: Run, host: str, **order: Any) -> None:
    """The play's modules count what they do, and on one host it is acted on."""
    for other in lab.HOSTS:
        lab.give_order(other)
    lab.give_order(host, **order)
    run.play.extra |= HOOKED


# --- the controller


@contextmanager
def signal_at(run: Run, kind: str, task: int | str) -> Iterator[None]:
    """ansible-playbook ends before its n-th task, or that of a name."""
    hit = CACHE / "hit"
    hit.unlink(missing_ok=True)
    run.play.env |= {"FAULTS_TASK": str(task), "FAULTS_DO": kind, "FAULTS_HIT": str(hit)}
    yield
    run.struck = hit.exists()


@contextmanager
def signal_inside(run: Run, kind: str, host: str, module: str, call: int, action: int) -> Iterator[None]:
    """ansible-playbook ends while a module works, which goes on some seconds later."""
    give_order(run, host, do="pause", seconds=3, module=module, call=call, action=action)
    with meanwhile(run, lambda: lab.hit(host) is not None, lambda: run.play.signal(getattr(signal, kind))):
        yield


# Where a host is in the middle of its share: the first command of that name.
MIDDLE = {DEPLOY: "setpriv", REDEPLOY: "ovs-vsctl", DELETE: "ovs-vsctl"}


@contextmanager
def late(run: Run, action: Callable[[], None], host: str) -> Iterator[None]:
    """Do something while a host is in the middle of its share, which waits. The network node is done by then."""
    text = "dnsmasq" if host == NODE and run.case.scenario == DEPLOY else MIDDLE[run.case.scenario]
    give_order(run, host, do="pause", seconds=60, module="slice_host", call=1, text=text)
    if host != NODE:
        lab.give_order(NODE, do="count")

    def is_late() -> bool:
        done = host == NODE or any(
            what == "result" for m, _c, _n, what in lab.counted_actions(NODE) if m == "slice_host"
        )
        return done and lab.hit(host) is not None

    def act() -> None:
        try:
            action()
        finally:
            lab.go_on(host)

    with meanwhile(run, is_late, act):
        yield


# --- a module


@contextmanager
def module_killed(run: Run, host: str, module: str, call: int, action: int) -> Iterator[None]:
    """A module's process is killed on its host before its n-th action."""
    give_order(run, host, do="kill", module=module, call=call, action=action)
    yield
    run.struck = lab.hit(host) is not None


# --- what modules work with


def new_vnc_ports() -> list[int]:
    """The ports that the planner gives out next."""
    taken = {vm["vnc_port"] for record in lab.registry()["slices"] for vm in record["vms"]}
    return [port for port in range(5901, 5940) if port not in taken]


@contextmanager
def vnc_port_taken(run: Run) -> Iterator[None]:
    """Somebody listens where a VM's VNC server wants to: QEMU refuses to start."""
    place, worker = (2, "worker2") if run.case.scenario == DEPLOY else (0, "worker3")
    port = new_vnc_ports()[place]
    listen = f"import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); time.sleep(600)"
    listener = subprocess.Popen(
        ["nsenter", f"--net=/proc/{lab.pid_of(worker)}/ns/net", "/usr/bin/python3", "-c", listen]
    )
    try:
        yield
    finally:
        listener.kill()
        listener.wait()


@contextmanager
def vm_dies(run: Run) -> Iterator[None]:
    """A QEMU ends right after its start."""
    if run.case.scenario == DEPLOY:
        vm, worker = "vm3", "worker2"
    else:  # The one that the changed spec adds.
        vm, worker = run.play.extra["slice_spec"]["vms"][5]["name"], "worker3"
    pidfile = lab.root_of(worker) / f"run/cloudrepo/vms/{BROKEN}/{vm}/qemu.pid"

    def started() -> bool:
        try:
            return pidfile.read_text().strip() != ""
        except OSError:
            return False

    with meanwhile(run, started, lambda: lab.kill_in(worker, [int(pidfile.read_text())])):
        yield


_SYNC = """
import pathlib, shutil, sys
used, real = map(pathlib.Path, sys.argv[1:])
for path in sorted(real.rglob("*"), reverse=True):
    if not (used / path.relative_to(real)).exists():
        path.rmdir() if path.is_dir() else path.unlink()
for path in sorted(used.rglob("*")):
    target = real / path.relative_to(used)
    if path.is_dir():
        target.mkdir(exist_ok=True)
    elif not target.exists() or (path.suffix == ".json" and path.read_bytes() != target.read_bytes()):
        shutil.copy2(path, target)
    status = path.stat()
    target.chmod(status.st_mode & 0o7777)
    shutil.os.chown(target, status.st_uid, status.st_gid)
"""


@contextmanager
def disk_full(run: Run, host: str, folder: str) -> Iterator[None]:
    """A folder is on a file system without a free block. What was in it is in it."""
    full = "/mnt/full"
    lab.run_in(host, "mkdir", "-p", full, folder)
    lab.run_in(host, "mount", "-t", "tmpfs", "-o", "size=96m", "full", full)
    lab.run_in(host, "cp", "-a", folder, f"{full}/used")
    lab.run_in(host, "dd", "if=/dev/zero", f"of={full}/filler", "bs=4k", check=False)
    lab.run_in(host, "mount", "--bind", f"{full}/used", folder)
    try:
        yield
    finally:
        lab.run_in(host, "umount", "--lazy", folder)
        lab.run_in(host, "/usr/bin/python3", "-c", _SYNC, f"{full}/used", folder)
        lab.run_in(host, "umount", "--lazy", full)


@contextmanager
def image_truncated(run: Run, pipelining: bool) -> Iterator[None]:
    """Half of the base image arrives on a worker, with pipelining on standard input and without it as a file."""
    run.play.extra["ansible_pipelining"] = pipelining
    files = "" if pipelining else f"/home/ubuntu/.ansible/tmp/*/{slices.BLANK}"
    give_order(run, "worker2", do="truncate", files=files, module="qcow_overlay", call=1)
    yield
    run.struck = lab.hit("worker2") is not None


@contextmanager
def ovsdb_gone(run: Run, host: str) -> Iterator[None]:
    """The socket of Open vSwitch's database is gone: ovs-vsctl fails, and what is connected stays so."""
    lab.run_in(host, "mv", OVS_SOCKET, f"{OVS_SOCKET}.away")
    try:
        yield
    finally:
        lab.run_in(host, "mv", f"{OVS_SOCKET}.away", OVS_SOCKET)


@contextmanager
def ovsdb_hangs(run: Run, host: str) -> Iterator[None]:
    """The database of Open vSwitch does not answer: ovs-vsctl waits."""
    pids = lab.pids_in(host, "ovsdb-server")
    lab.kill_in(host, pids, signal.SIGSTOP)
    try:
        yield
    finally:
        lab.kill_in(host, pids, signal.SIGCONT)


# --- by hand


@contextmanager
def done_by_hand(run: Run, action: Callable[[], None]) -> Iterator[None]:
    """Something of the slice is destroyed: while it is deployed, or before what runs is changed or deleted."""
    if run.case.scenario == DEPLOY:
        with late(run, action, "worker1"):
            yield
    else:
        action()
        yield


def tap_of(vm: str, interface: str) -> str:
    record = lab.record_of(BROKEN)
    assert record
    [found] = [i for v in record["vms"] if v["name"] == vm for i in v["interfaces"] if i["name"] == interface]
    return str(found["tap"])


def delete_tap() -> None:
    lab.run_in("worker1", "ip", "link", "delete", tap_of("vm1", "eth1"))


def delete_port() -> None:
    lab.run_in("worker1", "ovs-vsctl", "del-port", "br-int", tap_of("vm1", "eth1"))


def delete_overlay() -> None:
    lab.run_in("worker1", "rm", f"{BASE_DIR}/{BROKEN}/vm1_img.qcow2")


def delete_namespace() -> None:
    record = lab.record_of(BROKEN)
    assert record
    lab.run_in(NODE, "ip", "netns", "delete", f"slice-{record['id']}")


def kill_dnsmasq() -> None:
    pid = lab.run_in(NODE, "cat", f"/run/cloudrepo/dnsmasq/{BROKEN}.pid").strip()
    lab.kill_in(NODE, [int(pid)])


def kill_vm() -> None:
    pid = lab.run_in("worker1", "cat", f"/run/cloudrepo/vms/{BROKEN}/vm1/qemu.pid").strip()
    lab.kill_in("worker1", [int(pid)])


# --- hosts


@contextmanager
def unplugged(run: Run, host: str, in_the_middle: bool) -> Iterator[None]:
    """A host's management cable is out, from the start or from the middle of its share on."""
    try:
        if not in_the_middle:
            lab.plug(host, False)
            yield
        else:
            with late(run, lambda: lab.plug(host, False), host):
                yield
    finally:
        lab.plug(host, True)


@contextmanager
def without_sshd(run: Run, host: str, in_the_middle: bool) -> Iterator[None]:
    """A host's SSH server and all its sessions end, at the start or in the middle of its share."""

    def end() -> None:
        lab.kill_in(host, lab.pids_in(host, "sshd"))

    try:
        if not in_the_middle:
            end()
            yield
        else:
            with late(run, end, host):
                yield
    finally:
        lab.kill_in(host, lab.pids_in(host, "sshd"))
        lab.run_in(host, "/usr/sbin/sshd")


def reboot(host: str) -> None:
    lab.end_host(host)
    lab.start_hosts()
    lab.playbook("prepare_hosts")


@contextmanager
def rebooted(run: Run, host: str) -> Iterator[None]:
    """A host is rebooted: while the slice is deployed, or before what ran is changed or deleted."""
    with done_by_hand(run, lambda: reboot(host)):
        yield
    if host == NODE:
        # Whoever reboots a network node deploys its slices again.
        lab.playbook("deploy_slice", slice_spec=BYSTANDER_SPEC, **SETTINGS)


# --- the registry


@contextmanager
def registry_locked(run: Run, seconds: float) -> Iterator[None]:
    """Somebody holds the registry."""
    hold = (
        "import select, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); select.select([0], [], [], float(sys.argv[2]))"
    )
    argv = lab.inside(NODE, "/usr/bin/python3", "-c", hold, REGISTRY, str(seconds))
    # It ends with its standard input.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()


@contextmanager
def registry_read_only(run: Run) -> Iterator[None]:
    """The registry's file system is mounted read-only."""
    lab.run_in(NODE, "mount", "--bind", REGISTRY_DIR, REGISTRY_DIR)
    lab.run_in(NODE, "mount", "-o", "remount,ro,bind", REGISTRY_DIR)
    try:
        yield
    finally:
        lab.run_in(NODE, "umount", "--lazy", REGISTRY_DIR)


@contextmanager
def registry_damaged(run: Run, damage: Callable[[Path], None]) -> Iterator[None]:
    """The registry is cut or gone: the play says how to rebuild it, and rebuilt it is as before."""
    path = Path(f"{lab.root_of(NODE)}{REGISTRY}")
    before = lab.registry()
    copy = CACHE / "registry.copy"
    shutil.copyfile(path, copy)
    damage(path)
    yield
    said = run.play.log.read_text(errors="replace")
    if "rebuild_registry" not in said:
        run.problems.append("the error does not name rebuild_registry")
    try:
        lab.playbook("rebuild_registry")
        if lab.registry()["slices"] != before["slices"]:
            raise OSError(f"not as before: {before['slices']} became {lab.registry()['slices']}")
    except Exception as error:
        run.problems.append(f"rebuild_registry: {str(error)[-1500:]}")
        shutil.copyfile(copy, path)
    # What rebuild_registry keeps of the old one is for its user to look at.
    for kept in path.parent.glob(f"{path.name}.damaged-*"):
        kept.unlink()


def truncate_whole(path: Path) -> None:
    os.truncate(path, 0)


def truncate_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path) -> None:
    path.unlink()
