# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as the benchmarks see it: Ansible and SSH with the inventory's own settings, timed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.faults.lab import HOSTS, NODE, ROOT, WORKERS, run_in, write_in

__all__ = ["CACHE", "HOSTS", "NODE", "ROOT", "WORKERS", "run_in", "write_in"]

CACHE = ROOT / ".cache" / "bench"
# What the loops use, from the last release of this package that has both.
_LOOPS_COLLECTIONS = ("ansible_collections/community/libvirt/", "ansible_collections/openvswitch/openvswitch/")
_LOOPS_PACKAGE = "ansible==10.7.0"
_PATIENCE = 900.0


class BenchError(Exception):
    """Something that is measured did not do what it should."""


def timed(*commands: Sequence[str]) -> float:
    """The seconds that all the commands take, started at once.

    Raises:
        BenchError: one of them failed.
    """
    began = time.monotonic()
    running = [start(argv) for argv in commands]
    said = [process.communicate(timeout=_PATIENCE)[0] for process in running]
    took = time.monotonic() - began
    for argv, process, output in zip(commands, running, said, strict=True):
        if process.returncode != 0:
            raise BenchError(f"{shlex.join(argv)[:300]} failed (rc={process.returncode}):\n{output[-4000:]}")
    return took


def start(argv: Sequence[str]) -> subprocess.Popen[str]:
    """A command that runs here, with what it says in a pipe."""
    environ = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/collections:{CACHE}/collections"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # A developer's setting: a user's Python keeps its bytecode.
    return subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play_argv(playbook: str | Path, variables: Mapping[str, Any]) -> list[str]:
    """The command of a user who runs a playbook with these extra variables."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # A file: a spec of a hundred VMs is too long for a command line. One for each run of this, as there may be two.
    file = CACHE / f"{Path(playbook).stem}-{os.getpid()}.json"
    file.write_text(json.dumps(variables))
    return ["ansible-playbook", str(playbook), "-e", f"@{file}"]


def play(playbook: str | Path, variables: Mapping[str, Any]) -> float:
    """The seconds that ansible-playbook takes."""
    return timed(play_argv(playbook, variables))


def play_with(playbook: str | Path, inventory: Mapping[str, Any]) -> float:
    """The seconds that ansible-playbook takes with variables that the lab's inventory does not have."""
    file = CACHE / f"{Path(playbook).stem}-{os.getpid()}-hosts.json"
    file.write_text(json.dumps(inventory))
    return timed(["ansible-playbook", str(playbook), "-i", str(ROOT / "inventories/lab/hosts.yml"), "-i", str(file)])


def empty_play() -> Path:
    """A playbook that does nothing on the hosts of ours."""
    path = CACHE / "empty.yml"
    path.write_text("- hosts: localhost,workers,network_node\n  gather_facts: false\n")
    return path


def warm() -> None:
    """Open the connections, Ansible's and ours, that are kept for a minute after their last use."""
    timed(["ansible", "workers,network_node", "-m", "ansible.builtin.ping"])
    timed(*(ssh(host, "true", ciphers) for host in HOSTS for ciphers in (True, False)))


def at_once(path: str) -> float:
    """The seconds until the shell script of this path has ended on all hosts, as root, started on all at once."""
    return timed(*(ssh(host, f"sudo -n bash {path}") for host in HOSTS))


@cache
def host_vars(host: str) -> dict[str, Any]:
    """What the inventory says of a host."""
    found = subprocess.run(["ansible-inventory", "--host", host], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    values: dict[str, Any] = json.loads(found.stdout)
    return values


def ssh_options(host: str, ciphers: bool = True) -> list[str]:
    """The options that Ansible gives to ssh for this host, with a shared connection of our own.

    Without ``ciphers``, OpenSSH chooses which one to use, as for whoever types a command.
    """
    known = host_vars(host)
    control = f"{known['ansible_control_path_dir']}/bench-{'own' if ciphers else 'typed'}-%C"
    pairs = shlex.split(known["ansible_ssh_args"].replace("-o ", "-o"))
    options = [option for option in pairs if ciphers or not option.startswith("-oCiphers=")]
    return [*options, f"-oControlPath={control}", f"-oIdentityFile={known['ansible_ssh_private_key_file']}"]


def address(host: str) -> str:
    """``user@address``, as ssh and scp take it."""
    return f"{host_vars(host)['ansible_user']}@{host_vars(host)['ansible_host']}"


def ssh(host: str, command: str, ciphers: bool = True) -> list[str]:
    """The argument list that runs a command line on a host."""
    return ["ssh", *ssh_options(host, ciphers), address(host), command]


def running(slice_name: str) -> dict[str, int]:
    """The PIDs of a slice's VMs that run, by worker and VM, whatever the product says of them."""
    script = """
        for file in /run/cloudrepo/vms/$1/*/qemu.pid; do
            [ -e "$file" ] && grep -qzxF "$file" "/proc/$(cat "$file")/cmdline" && echo "$file $(cat "$file")"
        done; true
    """
    found = {}
    for host in WORKERS:
        for line in run_in(host, "bash", "-c", script, "bash", slice_name).splitlines():
            file, pid = line.split()
            found[f"{host}/{Path(file).parent.name}"] = int(pid)
    return found


def parts(slice_name: str) -> set[str]:
    """What the hosts have of a slice and of what it runs on: lines that are others once one of it was touched.

    Its DHCP server is not among them: it is started again to serve a new link, and keeps its leases.
    """
    script = r"""
        vms=/var/lib/cloudrepo/vm_images/$1
        grep -H . /run/cloudrepo/vms/$1/*/qemu.pid
        stat -c '%n %i' $vms/*.qcow2
        stat -c '%n %i %Y' $vms/*.json
        ip -o link | cut -d: -f1,2
        for namespace in $(ip netns | cut -d' ' -f1); do ip -n $namespace -o -4 address; done
        ovs-vsctl -f csv --columns=_uuid,name,tag,external_ids list Port
        ovs-vsctl -f csv --columns=_uuid,name,ofport list Interface
        ovs-ofctl --no-stats dump-flows br-int
        true
    """
    found = {host: run_in(host, "bash", "-c", f"{{ {script} }} 2>/dev/null", "bash", slice_name) for host in HOSTS}
    return {f"{host}: {line}" for host, said in found.items() for line in said.splitlines()}


def install_loops() -> None:
    """Get the collections that the loops need, once, into the cache."""
    target = CACHE / "collections"
    if all((target / collection).is_dir() for collection in _LOOPS_COLLECTIONS):
        return
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--dest", str(CACHE), _LOOPS_PACKAGE], check=True)
    wheel = next(CACHE.glob(f"{_LOOPS_PACKAGE.replace('==', '-')}-*.whl"))
    with zipfile.ZipFile(wheel) as package:
        package.extractall(target, [name for name in package.namelist() if name.startswith(_LOOPS_COLLECTIONS)])
    wheel.unlink()


def versions() -> dict[str, str]:
    """The versions of what does the work."""
    qemu = run_in(WORKERS[0], "qemu-system-x86_64", "--version").split()[3]
    ovs = run_in(WORKERS[0], "ovs-vsctl", "--version").splitlines()[0].split()[-1]
    return {"ansible-core": version("ansible-core"), "QEMU": qemu, "Open vSwitch": ovs}
