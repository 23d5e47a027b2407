# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a host without a slice that it belongs to, and the commands that remove it. Pure.

Ours is what carries a stamp, and in our folders and on our bridge also what has a name that only we give.
"""

from __future__ import annotations

import os
import re
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils import _internet, _iproute, _nft, _openflow, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import (
    DHCP,
    FILE,
    FLOWS,
    NAMESPACE,
    NAT,
    PORT,
    VM,
    Argv,
    Finding,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import device_owner, port_owner

PROBE_KEY = "cloudrepo-probe"
STALE_SECONDS = 3600
PROBE_SECONDS = 300

_INTERFACE = re.compile(r"tap_[0-9]+_eth[0-9]+|t[0-9]+e[0-9]+|gw_vlan[0-9]+|inet_[0-9]+")
_NAMESPACE = re.compile(r"slice-([0-9]+)")
# The master of a port of Open vSwitch's kernel datapath.
_OVS_MASTER = "ovs-system"


class Known(NamedTuple):
    """What belongs to somebody: the slices that the registry knows, their IDs, and the names of all their ports."""

    names: FrozenSet[str]
    ids: FrozenSet[int]
    ports: FrozenSet[str]


class Process(NamedTuple):
    """A process of a slice's VM, or of its dnsmasq; then ``vm`` is empty."""

    pid: int
    slice: str
    vm: str
    argv: Sequence[str]


class Entry(NamedTuple):
    """A file, a folder or a group of processes, of a slice or of none; ``age`` is in seconds."""

    path: str
    slice: str
    commands: Sequence[Argv]
    age: float = 0.0


class Host(NamedTuple):
    """One scan of a host. What could not be read is empty.

    ``stale`` are files that were on their way to somewhere.
    """

    bridge: str
    now: float
    ovs: _ovs.Database
    root: _iproute.Network
    flows: Sequence[_openflow.Flow]
    table: Optional[_nft.Listing]
    namespaces: Sequence[str]
    processes: Sequence[Process]
    folders: Sequence[Entry]
    stale: Sequence[Entry]


def orphans(host: Host, known: Known) -> List[Finding]:
    """What belongs to no slice that is known, in the order in which it can be removed."""
    found = [
        *_processes(host, known),
        *_firewall(host, known),
        *_ports(host, known),
        *_flows(host, known),
        *_namespaces(host, known),
        *_folders(host, known),
        *_stale(host),
    ]
    return found


def remove(*paths: str) -> Argv:
    """The command that removes files."""
    return ["rm", "--", *paths]


def remove_empty(folder: str) -> Argv:
    """The command that removes an empty folder, or a group without processes."""
    return ["rmdir", "--", folder]


def remove_tree(folder: str) -> Argv:
    """The command that removes a folder with all that is in it: only for those that nobody else puts anything into."""
    return ["rm", "-r", "--", folder]


def clear(folder: str, ours: Sequence[str], others: bool) -> List[Argv]:
    """The commands that remove our files from a folder; the folder too, unless others' things are in it."""
    files = [remove(*(os.path.join(folder, name) for name in ours))] if ours else []
    return files if others else [*files, remove_empty(folder)]


def kill(pid: int) -> Argv:
    """The command that ends a process."""
    return ["kill", "-KILL", str(pid)]


def delete_namespace(name: str) -> Argv:
    """The command that deletes a network namespace."""
    return _iproute.ip(None, "netns", "delete", name)


def delete_port(name: str, ovs: _ovs.Database, root: _iproute.Network) -> List[Argv]:
    """The commands that delete a port and its device; the device of an internal one goes with it."""
    port = ovs.ports.get(name)
    commands = [["ovs-vsctl", "--if-exists", "del-port", port.bridge, name]] if port else []
    if name in root.devices and not (port and port.internal):
        commands.append(_iproute.ip(None, *_iproute.delete(name).split()))
    return commands


def _processes(host: Host, known: Known) -> Iterable[Finding]:
    for process in host.processes:
        if process.slice not in known.names:
            kind, item = (VM, process.vm) if process.vm else (DHCP, "process")
            message = "process %d runs for a slice that does not exist" % process.pid
            yield Finding(process.slice, kind, item, message, commands=[kill(process.pid)])


def _firewall(host: Host, known: Known) -> Iterable[Finding]:
    elements = host.table.elements if host.table else {}
    owners = {owner for values in elements.values() for owner in values.values()}
    if host.table and not owners & known.names:
        yield Finding("", NAT, "table %s" % _internet.TABLE, "no slice uses it",
                      commands=[_nft.delete_table_argv(_internet.TABLE)])  # fmt: skip
    else:
        for name, values in elements.items():
            for value, owner in values.items():
                # The set in a slice's own namespace goes with that; here every element has an owner.
                if name in _internet.SETS and owner not in known.names:
                    argv = _nft.delete_element_argv(_internet.TABLE, name, value)
                    slice_name = owner if is_name(owner) else ""
                    yield Finding(slice_name, NAT, "%s %s" % (name, value), "lets a guest of nobody pass",
                                  commands=[argv])  # fmt: skip
    for port in host.ovs.ports.values():
        if _internet.STAMP.items() <= port.external_ids.items() and not owners & known.names:
            yield Finding("", PORT, port.name, "no slice uses this gateway",
                          commands=delete_port(port.name, host.ovs, host.root))  # fmt: skip


def _ports(host: Host, known: Known) -> Iterable[Finding]:
    for name in sorted({*host.ovs.ports, *host.root.devices}):
        port, device = host.ovs.ports.get(name), host.root.devices.get(name)
        owners = {port_owner(port) if port else None, device_owner(device) if device else None} - {None}
        commands = delete_port(name, host.ovs, host.root)
        if owners:
            if not owners & known.names:
                owner = sorted(str(owner) for owner in owners)[0]
                yield Finding(owner, PORT, name, "its slice does not exist", commands=commands)
        elif port and PROBE_KEY in port.external_ids:
            if _is_left_over(port.external_ids[PROBE_KEY], host.now):
                yield Finding("", PORT, name, "was left by a probe", commands=commands)
        elif _INTERFACE.fullmatch(name) and name not in known.ports and _is_unclaimed(port, device, host):
            yield Finding("", PORT, name, "has a name of ours and belongs to no slice", commands=commands)


def _is_left_over(started: str, now: float) -> bool:
    return not started.isdigit() or now - int(started) > PROBE_SECONDS


def _is_unclaimed(port: Optional[_ovs.Port], device: Optional[_iproute.Device], host: Host) -> bool:
    """Whether nobody else has a use for it: it is on our bridge or on none, and is not the gateway of all slices."""
    if port:
        return port.bridge == host.bridge and not _internet.STAMP.items() <= port.external_ids.items()
    return device is not None and device.master in ("", _OVS_MASTER)


def _flows(host: Host, known: Known) -> Iterable[Finding]:
    numbers = sorted({flow.slice_id for flow in host.flows} - known.ids)
    for number in numbers:
        yield Finding("", FLOWS, "slice ID %d" % number, "this slice does not exist",
                      commands=[_openflow.delete_slice(host.bridge, number)])  # fmt: skip


def _namespaces(host: Host, known: Known) -> Iterable[Finding]:
    for name in host.namespaces:
        match = _NAMESPACE.fullmatch(name)
        if match and int(match.group(1)) not in known.ids:
            yield Finding("", NAMESPACE, name, "its slice does not exist",
                          commands=[delete_namespace(name)])  # fmt: skip


def _folders(host: Host, known: Known) -> Iterable[Finding]:
    for entry in host.folders:
        if entry.slice not in known.names:
            yield Finding(entry.slice, FILE, entry.path, "its slice does not exist", commands=entry.commands)


def _stale(host: Host) -> Iterable[Finding]:
    for entry in host.stale:
        if entry.age > STALE_SECONDS:
            yield Finding("", FILE, entry.path, "was left by a transfer that did not end", commands=entry.commands)


def by_vm(processes: Iterable[Process], slice_name: str) -> Dict[str, List[Process]]:
    """The QEMUs of a slice, by VM."""
    found: Dict[str, List[Process]] = {}
    for process in processes:
        if process.slice == slice_name and process.vm:
            found.setdefault(process.vm, []).append(process)
    return found


def parse_process(pid: int, argv: Sequence[str], run_dir: str, state_dir: str) -> Optional[Process]:
    """Whose process this is, by its command line, if it is one of ours."""
    for flag, value in zip(argv, argv[1:]):
        parts = _below(value, run_dir) if flag == "-pidfile" else []
        if len(parts) == 3 and parts[2] == "qemu.pid" and is_name(parts[0]) and is_name(parts[1]):
            return Process(pid, parts[0], parts[1], argv)
    if argv and os.path.basename(argv[0]) == "dnsmasq":
        for word in argv:
            option, _equals, value = word.partition("=")
            parts = _below(value, state_dir) if option == "--conf-file" else []
            if len(parts) == 2 and is_name(parts[0]):
                return Process(pid, parts[0], "", argv)
    return None


def _below(path: str, folder: str) -> List[str]:
    start = folder.rstrip("/") + "/"
    return path[len(start) :].split("/") if path.startswith(start) else []
