# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host has and what it lacks, found out without starting a process."""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import socket
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils._iproute import NETNS_DIR
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_file_name, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import HeaderError, read_header
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu import (
    ACCELERATORS,
    DISK_SUFFIX,
    check_address,
    is_loopback,
)

WORKER = "worker"
NETWORK = "network"

_PROGRAMS = {
    WORKER: ("qemu-system-x86_64", "qemu-img", "ovs-vsctl", "ip"),
    NETWORK: ("dnsmasq", "nft", "ovs-vsctl", "ip"),
}
# An unprivileged login often lacks the sbin folders.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_MIB = 1024 * 1024
_NAMESPACE = re.compile(r"slice-([0-9]{1,10})")
_STAT_BLOCK = 512


def capacity(base_dir: str) -> Dict[str, int]:
    """Cores, memory and disk that all slices' VMs together can have, memory and disk in MiB."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": _memory_kib() // 1024,
        "disk_mb": (_free_bytes(base_dir) + _overlay_bytes(base_dir)) // _MIB,
    }


class Image(NamedTuple):
    """A base image's sizes in bytes: the disk's and the file's."""

    virtual_size: int
    size: int


def images(base_dir: str) -> Dict[str, Image]:
    """The base images in the cache that are whole, by name."""
    found = {}
    for name in sorted(os.listdir(base_dir)) if os.path.isdir(base_dir) else ():
        path = os.path.join(base_dir, name)
        # What is still being sent has a leading dot, which is_file_name() refuses.
        if is_file_name(name) and not name.endswith(".json") and os.path.isfile(path) and _is_whole(path):
            try:
                found[name] = Image(read_header(path).virtual_size, os.path.getsize(path))
            except HeaderError:
                continue
    return found


def missing(roles: Sequence[str], bridge: str, user: str) -> List[str]:
    """What the host lacks to be what ``roles`` say, each in a few words."""
    return list(_lacks(roles, bridge, user))


def _lacks(roles: Sequence[str], bridge: str, user: str) -> Iterator[str]:
    for program in dict.fromkeys(program for role in roles for program in _PROGRAMS[role]):
        if not _is_installed(program):
            yield "%s is not installed" % program
    if not _has_interface(bridge):
        yield "bridge %s does not exist" % bridge
    if WORKER in roles and not _has_user(user):
        yield "user %s does not exist" % user


def wrong(roles: Sequence[str], accelerator: str, vnc_listen: str, vnc_passwords: bool) -> List[str]:
    """The settings of a worker that it can't follow, each in a few words."""
    if WORKER not in roles:
        return []
    return [*_wrong_accelerator(accelerator), *_wrong_vnc(vnc_listen, vnc_passwords)]


def _wrong_accelerator(accelerator: str) -> Iterator[str]:
    if accelerator not in ACCELERATORS:
        yield 'slices_accelerator is "%s", which is none of %s' % (accelerator, ", ".join(ACCELERATORS))
    elif accelerator == "kvm" and not has_kvm():
        yield "slices_accelerator is kvm, but /dev/kvm can't be opened"


def _wrong_vnc(listen: str, passwords: bool) -> Iterator[str]:
    try:
        address = check_address(listen)
    except ItemError:
        yield 'slices_vnc_listen is "%s", which is not an IP address' % listen
        return
    if not is_loopback(address) and not passwords:
        yield "slices_vnc_listen is %s, which others reach, and slices_vnc_passwords is not true" % listen
    if not _has_address(address):
        yield "slices_vnc_listen is %s, which is no address of this host" % listen


def _has_address(address: str) -> bool:
    """Whether the host can listen at an address: on any port, which is given back at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def stamps(base_dir: str) -> List[Dict[str, Any]]:
    """What there is of slices, and the IDs given out: VMs by their manifests or disks, slices by their namespaces."""
    folders = os.path.join(glob.escape(base_dir), "*")
    found = [vm_stamp(path) for path in sorted(glob.glob(os.path.join(folders, "*.json")))]
    found += [disk_stamp(path) for path in sorted(glob.glob(os.path.join(folders, "*" + DISK_SUFFIX)))]
    found += [{"slice": "", "vm": "", "name": each["name"], "id": each["slice_id"]} for each in namespaces(NETNS_DIR)]
    return [stamp for stamp in found if stamp]


def namespaces(folder: str) -> List[Dict[str, Any]]:
    """The slices' network namespaces, whose names are their stamps."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    matches = [_NAMESPACE.fullmatch(name) for name in names]
    return [{"name": match.group(0), "slice_id": int(match.group(1))} for match in matches if match]


def vm_stamp(path: str) -> Optional[Dict[str, Any]]:
    """Whose VM the manifest at ``path`` is of; None if it is not one of a VM that belongs there."""
    folder, file_name = os.path.split(path)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        slice_name, vm, number = manifest["slice"], manifest["name"], int(manifest["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # Being removed, or nothing of ours.
    if (slice_name, "%s.json" % vm) != (os.path.basename(folder), file_name):
        return None
    return {"slice": slice_name, "vm": vm, "name": "VM %s/%s" % (slice_name, vm), "id": number}


def disk_stamp(path: str) -> Optional[Dict[str, Any]]:
    """Whose disk that at ``path`` is; None if it is none of ours, or a manifest says more about its VM."""
    folder, file_name = os.path.split(path)
    slice_name, vm = os.path.basename(folder), file_name[: -len(DISK_SUFFIX)]
    if not (is_name(slice_name) and is_name(vm)) or os.path.exists(os.path.join(folder, "%s.json" % vm)):
        return None
    return {"slice": slice_name, "vm": vm, "name": "the disk of VM %s/%s" % (slice_name, vm), "id": 0}


def has_kvm() -> bool:
    """Whether /dev/kvm can be opened. That a guest boots with it is not certain even then."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _memory_kib() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        return parse_meminfo(file.read())


def parse_meminfo(text: str) -> int:
    """The total memory in KiB, from the text of /proc/meminfo."""
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["MemTotal"].split()[0])


def _free_bytes(path: str) -> int:
    """What an unprivileged QEMU could still write to the file system on which ``path`` is or would be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _overlay_bytes(base_dir: str) -> int:
    """What our overlays occupy. It is counted to the room, for the plan takes their whole size from it."""
    paths = glob.glob(os.path.join(glob.escape(base_dir), "*", "*" + DISK_SUFFIX))
    return sum(_occupied_bytes(path) for path in paths)


def _occupied_bytes(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * _STAT_BLOCK
    except FileNotFoundError:  # A slice is being deleted just now.
        return 0


def _is_whole(path: str) -> bool:
    """Whether an image has the size that its sidecar recorded. One put there by hand has no sidecar."""
    try:
        with open(path + ".json", encoding="utf-8") as file:
            recorded: Any = json.load(file)["size"]
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):
        return False
    return bool(recorded == os.path.getsize(path))


def _is_installed(program: str) -> bool:
    return shutil.which(program, path=_SEARCH_PATH) is not None


def _has_interface(name: str) -> bool:
    """An Open vSwitch bridge always has an interface of its own name."""
    return name in (interface for _index, interface in socket.if_nameindex())


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
