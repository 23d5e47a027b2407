# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Become PID 1 of one lab host: own namespaces, own root, services, and reaping of what they leave behind.

Talks to whoever started it by lines: prints the PID of the new host, then "booted", waits for a line on stdin (the
caller has plugged its cables by then), prints "ready"; or "error: " and the reason instead. Without the line on
stdin it ends, and the host's namespaces with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

BOOT_LOG = "/var/log/boot.log"
# name, mode, major, minor
DEVICES = [
    ("null", 0o666, 1, 3),
    ("zero", 0o666, 1, 5),
    ("full", 0o666, 1, 7),
    ("random", 0o666, 1, 8),
    ("urandom", 0o666, 1, 9),
    ("tty", 0o666, 5, 0),
    ("net/tun", 0o666, 10, 200),
]
LINKS = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
]


def run(*argv: str) -> None:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)} failed (rc={done.returncode}): {' '.join(done.stdout.split())}")


def unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare failed: {os.strerror(error)}")


def make_dev(dev: str) -> None:
    """A /dev of the host's own: the machine's stays untouched."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755,nosuid,size=1m", "dev", dev)
    for name in ("pts", "shm", "net"):
        os.mkdir(os.path.join(dev, name), 0o755)
    for name, mode, major, minor in DEVICES:
        path = os.path.join(dev, name)
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(major, minor))
        os.chmod(path, mode)
    if os.path.exists("/dev/kvm"):
        kvm = os.stat("/dev/kvm")
        os.mknod(os.path.join(dev, "kvm"), kvm.st_mode, kvm.st_rdev)
        os.chown(os.path.join(dev, "kvm"), kvm.st_uid, kvm.st_gid)
    for name, target in LINKS:
        os.symlink(target, os.path.join(dev, name))
    run("mount", "-t", "devpts", "-o", "newinstance,mode=0620,gid=5,ptmxmode=0666", "devpts", os.path.join(dev, "pts"))
    run("mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "shm", os.path.join(dev, "shm"))


def enter_root(disk: str) -> None:
    """The machine's own files below, the host's disk above: every write is private to the host."""
    root, upper, work = (os.path.join(disk, name) for name in ("root", "upper", "work"))
    run("mount", "--make-rprivate", "/")
    try:
        run("mount", "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "lab", root)
    except OSError as error:
        raise OSError(f"the lab needs overlayfs, and {disk} on a file system that it can write to: {error}") from error
    run("mount", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", os.path.join(root, "proc"))
    run("mount", "-t", "sysfs", "-o", "nosuid,nodev,noexec", "sysfs", os.path.join(root, "sys"))
    run("mount", "-t", "tmpfs", "-o", "mode=0755,nosuid,nodev", "run", os.path.join(root, "run"))
    make_dev(os.path.join(root, "dev"))
    os.chdir(root)
    run("pivot_root", ".", ".")  # stacks the old root on the new one: no directory is needed to hold it
    run("umount", "--lazy", ".")
    os.chdir("/")
    run("mount", "--make-rshared", "/")  # as systemd does, so that `ip netns` behaves as on a real host


def start_services(script: str) -> None:
    """Run the boot script; every service in it returns only once it is up."""
    with open(BOOT_LOG, "ab") as log:
        done = subprocess.run(["/bin/sh", "-e", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        with open(BOOT_LOG, encoding="utf-8", errors="replace") as text:
            raise OSError(f"{script} failed (rc={done.returncode}): {' '.join(text.read().split())[-800:]}")


def boot(host: dict[str, Any]) -> None:
    os.setsid()
    socket.sethostname(host["name"])
    enter_root(host["disk"])
    print("booted", flush=True)
    if not sys.stdin.readline():
        raise OSError("nobody is waiting for this host any more")
    start_services(host["script"])
    print("ready", flush=True)


def reap_forever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # else one could arrive between look and wait
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        signal.sigwait({signal.SIGCHLD})


def main() -> None:
    host = json.loads(sys.argv[1])
    os.umask(0o022)
    try:
        unshare()
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            os._exit(0)
        boot(host)
    except OSError as error:
        print(f"error: {error}", flush=True)
        os._exit(1)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    reap_forever()


if __name__ == "__main__":
    main()
