# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a guest that breaks out of its QEMU could do, and what other users of a host can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _cgroup

FOLDERS = ("/run/cloudrepo", "/var/lib/cloudrepo")
IMAGE = "/var/lib/cloudrepo/vm_images/cirros-0.6.2-x86_64-disk.img"
OTHERS = re.compile(r"/(vms|vm_images|dnsmasq|lock)/(?!modes\b)")
SPEC = {"name": "modes", "vms": [{"name": "a", "flavor": "cirros", "worker": "worker1", "internet": True}]}
QEMU, ROOT = "slices-qemu:slices-qemu", "root:root"

# Everything of ours on a worker and on the network node, with its type, mode and owner.
ON_WORKER = {
    "/run/cloudrepo": f"d 755 {ROOT}",
    "/run/cloudrepo/lock": f"d 755 {ROOT}",
    "/run/cloudrepo/vms": f"d 755 {ROOT}",
    "/run/cloudrepo/vms/modes": f"d 755 {ROOT}",
    "/run/cloudrepo/vms/modes/a": f"d 700 {QEMU}",
    "/run/cloudrepo/vms/modes/a/console.sock": f"s 700 {QEMU}",
    "/run/cloudrepo/vms/modes/a/qemu.log": f"f 600 {ROOT}",
    "/run/cloudrepo/vms/modes/a/qemu.pid": f"f 600 {QEMU}",
    "/run/cloudrepo/vms/modes/a/qmp.sock": f"s 700 {QEMU}",
    "/var/lib/cloudrepo": f"d 755 {ROOT}",
    # QEMU's user passes through, and nobody lists it.
    "/var/lib/cloudrepo/vm_images": f"d 711 {ROOT}",
    "/var/lib/cloudrepo/vm_images/modes": f"d 755 {ROOT}",
    "/var/lib/cloudrepo/vm_images/modes/a.console.log": f"f 600 {QEMU}",
    "/var/lib/cloudrepo/vm_images/modes/a.json": f"f 600 {ROOT}",
    "/var/lib/cloudrepo/vm_images/modes/a_img.qcow2": f"f 600 {QEMU}",
}
DNSMASQ = "/var/lib/cloudrepo/dnsmasq/modes"
ON_NETWORK_NODE = {
    "/run/cloudrepo": f"d 755 {ROOT}",
    "/run/cloudrepo/dnsmasq": f"d 755 {ROOT}",
    "/run/cloudrepo/dnsmasq/modes.pid": "f 644 dnsmasq:nogroup",
    "/run/cloudrepo/lock": f"d 755 {ROOT}",
    "/var/lib/cloudrepo": f"d 755 {ROOT}",
    "/var/lib/cloudrepo/dnsmasq": f"d 755 {ROOT}",
    DNSMASQ: f"d 711 {ROOT}",
    f"{DNSMASQ}/dnsmasq.conf": f"f 600 {ROOT}",
    f"{DNSMASQ}/hosts": "f 600 dnsmasq:root",
    f"{DNSMASQ}/leases": "f 600 dnsmasq:root",
    f"{DNSMASQ}/names": "f 600 dnsmasq:root",
    f"{DNSMASQ}/options": "f 600 dnsmasq:root",
    "/var/lib/cloudrepo/registry": f"d 700 {ROOT}",
    "/var/lib/cloudrepo/registry/slices.sqlite": f"f 600 {ROOT}",
}

Shell = Callable[..., str]


@pytest.fixture
def shell(run_module: Any) -> Shell:
    """`shell("worker1", "id", "-u")` runs a command as root."""

    def run(host: str, *argv: str) -> str:
        done = run_module(host, "ansible.builtin.command", {"argv": list(argv)})
        assert not done["failed"], done
        return str(done["stdout"])

    return run


@pytest.fixture
def deployed(run_playbook: Any) -> Iterator[None]:
    played = run_playbook("deploy_slice", slice_spec=SPEC)
    assert played.rc == 0, played.output
    yield
    deleted = run_playbook("delete_slice", slice="modes")
    assert deleted.rc == 0, deleted.output


def modes(shell: Shell, host: str) -> dict[str, str]:
    """What there is on a host, without base images, locks, and what other slices have there."""
    listed = shell(host, "find", *FOLDERS, "-printf", "%p %y %m %u:%g\n").splitlines()
    found = dict(line.split(" ", 1) for line in listed)
    return {path: mode for path, mode in found.items() if not OTHERS.search(path)}


@pytest.mark.usefixtures("deployed")
def test_files_are_for_their_owner_and_qemu_can_do_nothing_else(shell: Shell, run_module: Any) -> None:
    assert modes(shell, "worker1") == ON_WORKER
    assert modes(shell, "network1") == ON_NETWORK_NODE
    # What every VM starts from is no secret of any, and none can change it.
    assert shell("worker1", "stat", "--format=%a %U:%G", IMAGE) == f"644 {ROOT}"

    info = run_module("worker1", "qemu_vm_info", {"slice": "modes", "base_dir": "/var/lib/cloudrepo/vm_images"})
    [vm] = info["vms"]
    status = dict(line.split(":\t", 1) for line in shell("worker1", "cat", f"/proc/{vm['pid']}/status").splitlines())
    uid, gid = (shell("worker1", "id", flag, "slices-qemu") for flag in ("-u", "-g"))
    assert uid != "0" and status["Uid"].split() == [uid] * 4 and status["Gid"].split() == [gid] * 4
    kvm = run_module("worker1", "ansible.builtin.getent", {"database": "group", "fail_key": False, "key": "kvm"})
    known = [gid, *([entry[1]] if (entry := kvm["ansible_facts"]["getent_group"]["kvm"]) else [])]
    assert sorted(status["Groups"].split()) == sorted(known)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")  # 2: system calls are filtered.
    assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}

    argv = shell("worker1", "cat", f"/proc/{vm['pid']}/cmdline").split("\0")
    sandbox = argv[argv.index("-sandbox") + 1]
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert {"-nodefaults", "-no-user-config"} <= set(argv)
    assert argv[argv.index("-vnc") + 1].startswith("127.0.0.1:")
    # Not a single network but TAPs: QEMU's own would let a guest out through the host's.
    assert not {"-net", "-nic"} & set(argv)
    networks = [after for before, after in pairwise(argv) if before == "-netdev"]
    assert networks and all(network.startswith("tap,") for network in networks)
    # Where the machine has cgroups v2 with these controllers; unit tests have recorded ones.
    assert (vm["limits"] is None) == (_cgroup.find() is None)
