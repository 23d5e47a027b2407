# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU's arguments, a VM's identity, and what changes about a VM. Pure: it reads and runs nothing."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._cgroup import vm_limits
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, labels
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_interface_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, State, reconcile

BINARY = "qemu-system-x86_64"
ACCELERATORS = ("auto", "kvm", "tcg")
RUNNING = "running"
PRELAUNCH = "prelaunch"  # Its guest has not begun, and waits for that.
STOPPED = "stopped"
SILENT = "unresponsive"  # Its process is there, but QMP does not answer.

# Everything about a VM that its QEMU is started with; the rest follows from its names and folders.
CONFIG = (
    "id",
    "cores",
    "memory_mb",
    "vnc_port",
    "vnc_listen",
    "vnc_password",  # Whether there is one. Which, stands nowhere on the host.
    "accelerator",
    "nic_offload",
    "user",
    "interfaces",
)

DISK_SUFFIX = "_img.qcow2"
DISK_NODE = "disk"  # How QMP calls a VM's disk.
# What a manifest holds of a VM: beside its configuration the registry's record of it, which no process sees.
MANIFEST = (*CONFIG, "record")

NIC_MAX = 24
VNC_BASE = 5900
TCG_BUFFER_MB = 256  # For translated code. QEMU's own choice is up to 1 GiB for each VM.
# Every device has its own slot whatever else there is, so that a guest never sees one of them move.
_SLOT_VGA, _SLOT_DISK, _SLOT_RNG, _SLOT_NIC = 2, 3, 4, 5
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_SOCKET_PATH_MAX = 107
_ATTACHED = re.compile(r"^iff:\t(.+)$", re.MULTILINE)
_VNC_PASSWORD = re.compile("[!-~]{1,8}")  # The protocol has no room for more.
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")


class Paths(NamedTuple):
    """Where a VM's files are."""

    disk: str
    manifest: str
    folder: str
    pidfile: str
    qmp: str
    console: str
    console_log: str
    qemu_log: str


def vm_paths(base_dir: str, run_dir: str, slice_name: str, name: str) -> Paths:
    """The files of one VM."""
    folder = os.path.join(run_dir, slice_name, name)
    return Paths(
        disk=os.path.join(base_dir, slice_name, name + DISK_SUFFIX),
        manifest=os.path.join(base_dir, slice_name, name + ".json"),
        folder=folder,
        pidfile=os.path.join(folder, "qemu.pid"),
        qmp=os.path.join(folder, "qmp.sock"),
        console=os.path.join(folder, "console.sock"),
        # Beside the disk: a guest that never stops printing must not fill /run, which is memory.
        console_log=os.path.join(base_dir, slice_name, name + ".console.log"),
        qemu_log=os.path.join(folder, "qemu.log"),
    )


def parse(
    vms: Sequence[Mapping[str, Any]], common: Mapping[str, Any], passwords: Mapping[str, Any]
) -> Dict[str, State]:
    """The configuration of each wanted VM by name, checked as far as that goes without looking at the host.

    Args:
        vms: the ``vms`` option.
        common: the fields that are the same for all VMs of the call.
        passwords: the ``vnc_passwords`` option.
    """
    configs: Dict[str, State] = {}
    taken: Dict[Tuple[str, Any], str] = {}
    for vm, where in zip(vms, labels("vms", vms).values()):
        secret = _has_password(vm["name"], where, common["vnc_listen"], passwords)
        config = configs[vm["name"]] = {**_config(vm, where, common), "vnc_password": secret}
        unique = [("vnc_port", vm["vnc_port"])]
        for nic in config["interfaces"]:
            unique += [("tap", nic["tap"]), ("mac", nic["mac"])]
        for key in unique:
            if key in taken:
                raise ItemError("%s: %s %s is used by %s already" % ((where, *key, taken[key])))
            taken[key] = where
    return configs


def _config(vm: Mapping[str, Any], where: str, common: Mapping[str, Any]) -> Dict[str, Any]:
    for field in ("id", "cores", "memory_mb", "vnc_port"):
        if vm[field] is None:
            raise ItemError("%s: %s is required" % (where, field))
        if vm[field] < 1:
            raise ItemError("%s: %s must be at least 1, not %d" % (where, field, vm[field]))
    if not VNC_BASE <= vm["vnc_port"] <= 65535:
        raise ItemError("%s: vnc_port must be %d to 65535, not %d" % (where, VNC_BASE, vm["vnc_port"]))
    if len(vm["interfaces"]) > NIC_MAX:
        raise ItemError("%s: %d interfaces are more than %d" % (where, len(vm["interfaces"]), NIC_MAX))
    interfaces = [_interface(nic, where) for nic in vm["interfaces"]]
    names = [nic["name"] for nic in interfaces]
    for name in names:
        if names.count(name) > 1:
            raise ItemError('%s: there are two interfaces "%s"' % (where, name))
    fields = {field: vm[field] for field in ("id", "cores", "memory_mb", "vnc_port")}
    return {**fields, **common, "interfaces": interfaces, "record": vm["record"]}


def _has_password(name: str, where: str, listen: str, passwords: Mapping[str, Any]) -> bool:
    """Whether a VM's screen asks for a password; where others can reach it, it has to."""
    if name in passwords:
        password = passwords[name]
        if not isinstance(password, str) or not _VNC_PASSWORD.fullmatch(password):
            # Without the password: this becomes a message.
            raise ItemError("%s: a VNC password is a text of 1 to 8 ASCII characters" % where)
        return True
    if not is_loopback(listen):
        raise ItemError(
            "%s: its screen would be open to others on %s, without a password (slices_vnc_passwords=true)"
            % (where, listen)
        )
    return False


def _interface(nic: Mapping[str, Any], where: str) -> Dict[str, Any]:
    for field in ("name", "tap"):
        if not is_interface_name(nic[field]):
            raise ItemError('%s: "%s" is not the name of an interface' % (where, nic[field]))
    mac = nic["mac"].lower()
    if not _MAC.fullmatch(mac):
        raise ItemError('%s: interface "%s": "%s" is not a MAC address' % (where, nic["name"], nic["mac"]))
    return {"name": nic["name"], "tap": nic["tap"], "mac": mac, "connected": nic["connected"]}


def check_address(vnc_listen: str) -> str:
    """The address on which VNC listens, as Python writes it."""
    try:
        return str(ipaddress.ip_address(vnc_listen))
    except ValueError as error:
        raise ItemError('vnc_listen: "%s" is not an IP address' % vnc_listen) from error


def is_loopback(address: str) -> bool:
    """Whether only the host itself reaches an address."""
    return ipaddress.ip_address(address).is_loopback


def check_paths(paths: Paths, where: str) -> None:
    """Refuse a folder that is too deep for the kernel, which cuts the names of sockets."""
    for path in (paths.qmp, paths.console):
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
            raise ItemError("%s: %s is too long for a socket, use a shorter run_dir" % (where, path))


def option(values: Mapping[str, Any], *words: str) -> str:
    """One argument of the form ``word,key=value,...``. A comma in a value is doubled, which is QEMU's escape."""
    pairs = ["%s=%s" % (key, _text(value)) for key, value in values.items()]
    return ",".join([*words, *(pair.replace(",", ",,") for pair in pairs)])


def _text(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def parse_option(text: str) -> Dict[str, str]:
    """The keys and values of an argument that ``option`` made; its words have the value ""."""
    parts = text.replace(",,", "\0").split(",")
    pairs = (part.replace("\0", ",").partition("=") for part in parts)
    return {key: value for key, _equals, value in pairs}


def cards(arguments: Sequence[str]) -> Dict[str, Dict[str, str]]:
    """The network cards that a QEMU was started with, by interface: their MAC addresses and TAPs."""
    pairs = list(zip(arguments, arguments[1:]))
    backends = {values["id"]: values for flag, text in pairs if flag == "-netdev" for values in [parse_option(text)]}
    found = {}
    for flag, text in pairs:
        card = parse_option(text) if flag == "-device" else {}
        name = card.get("id", "")
        if name.startswith(nic_id("")):
            tap = backends.get(card.get("netdev", ""), {}).get("ifname", "")
            found[name[len(nic_id("")) :]] = {"mac": card.get("mac", ""), "tap": tap}
    return found


def argv(slice_name: str, name: str, config: State, paths: Paths, accelerator: str) -> List[str]:
    """The command that runs a VM in the foreground, and waits for ``cont`` before the guest's first instruction.

    It can't put itself into the background: that needs a fork, which its sandbox forbids.
    """
    return [
        BINARY,
        *("-name", option({"guest": "%s/%s" % (slice_name, name)})),
        *("-nodefaults", "-no-user-config", "-S"),
        *("-sandbox", _SANDBOX),
        # i440fx boots every image there is, and its one bus has a fixed slot for each device.
        *("-machine", "pc"),
        *_accelerator_argv(accelerator),
        *("-smp", str(config["cores"])),
        *("-m", "%dM" % config["memory_mb"]),
        *("-boot", option({"strict": True})),
        *("-pidfile", paths.pidfile),
        *("-chardev", _socket("qmp", paths.qmp)),
        *("-mon", option({"chardev": "qmp", "mode": "control"})),
        *("-chardev", _socket("console", paths.console, {"logfile": paths.console_log, "logappend": True})),
        *("-serial", "chardev:console"),
        *("-vnc", _vnc(config["vnc_listen"], config["vnc_port"], config["vnc_password"])),
        *("-device", option({"addr": _slot(_SLOT_VGA)}, "VGA")),
        *_disk_argv(paths.disk),
        *("-object", option({"id": "rng"}, "rng-builtin")),
        *("-device", option({"rng": "rng", "addr": _slot(_SLOT_RNG)}, "virtio-rng-pci")),
        *_nics_argv(config),
    ]


def probe_argv() -> List[str]:
    """A machine that makes a virtual CPU with KVM, and is told on standard input to end."""
    machine = ["-machine", "pc", "-m", "16M", "-display", "none", "-S", "-qmp", "stdio"]
    return [BINARY, "-nodefaults", "-no-user-config", *machine, *_accelerator_argv("kvm")]


PROBE_INPUT = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'


def _accelerator_argv(accelerator: str) -> List[str]:
    if accelerator == "tcg":
        return ["-accel", option({"tb-size": TCG_BUFFER_MB}, "tcg"), "-cpu", "max"]
    return ["-accel", accelerator, "-cpu", "host"]


def _socket(name: str, path: str, more: Optional[Mapping[str, Any]] = None) -> str:
    return option({"id": name, "path": path, "server": True, "wait": False, **(more or {})}, "socket")


def _vnc(address: str, port: int, password: bool) -> str:
    """Where the screen is. With ``password=on`` nobody is let in until one is set."""
    display = "%s:%d" % ("[%s]" % address if ":" in address else address, port - VNC_BASE)
    return option({"password": True} if password else {}, display)


def _disk_argv(disk: str) -> List[str]:
    node = {"driver": "qcow2", "node-name": DISK_NODE, "discard": "unmap"}
    file = {"file.driver": "file", "file.filename": disk, "file.discard": "unmap"}
    device = {"drive": DISK_NODE, "addr": _slot(_SLOT_DISK), "bootindex": 1}
    return ["-blockdev", option({**node, **file}), "-device", option(device, "virtio-blk-pci")]


def _slot(number: int) -> str:
    return "0x%x" % number  # QEMU reads it as hexadecimal with or without the prefix.


def _nics_argv(config: State) -> List[str]:
    # Without a vnet header the guest gets no offloads: a userspace datapath would pass on packets without checksums.
    offload = {} if config["nic_offload"] else {"vnet_hdr": False}
    arguments: List[str] = []
    for index, nic in enumerate(config["interfaces"]):
        backend = "net-" + nic["name"]
        tap = {"id": backend, "ifname": nic["tap"], "script": "no", "downscript": "no", **offload}
        # No ROM: these VMs boot from their disk.
        card = {"netdev": backend, "id": nic_id(nic["name"]), "mac": nic["mac"], "romfile": ""}
        arguments += ["-netdev", option(tap, "tap")]
        arguments += ["-device", option({**card, "addr": _slot(_SLOT_NIC + index)}, "virtio-net-pci")]
    return arguments


def nic_id(interface: str) -> str:
    """How QMP calls a VM's interface."""
    return "nic-" + interface


def is_ours(cmdline: bytes, paths: Paths) -> bool:
    """Whether a process is the QEMU of the VM with these paths, by its ``/proc/<pid>/cmdline``.

    The program's own name is not asked: it differs between distributions.
    """
    arguments = cmdline.split(b"\0")
    wanted = (b"-pidfile", os.fsencode(paths.pidfile))
    return wanted in zip(arguments, arguments[1:])


def attached_tap(fdinfo: str) -> Optional[str]:
    """The TAP to which a descriptor is attached, by its ``/proc/<pid>/fdinfo/<fd>``.

    It is attached to none once that TAP was deleted, also if there is one of that name again.
    """
    found = _ATTACHED.search(fdinfo)
    return found.group(1) if found else None


def plan(
    want: Mapping[str, State],
    have: Mapping[str, State],
    purge: bool,
    allow_restart: bool,
    limited: bool,
) -> Tuple[List[Action], List[str]]:
    """The actions that make the VMs run as wanted, and what waits for a restart that is not allowed.

    Args:
        want: the configurations of the wanted VMs by name.
        have: the configurations of those that exist, with their ``status``, their ``limits`` where the host has such,
            and what they have lost: ``lost_taps``, ``lost_disk``.
        purge: whether other VMs of the slice are removed.
        allow_restart: whether a running VM may be restarted.
        limited: whether the host can limit what they use.
    """
    goal: Dict[str, State] = {}
    pending = []
    for name, config in want.items():
        goal[name] = {"status": RUNNING, **config}
        before = have.get(name)
        if before is None or before["status"] == STOPPED or allow_restart:
            continue
        changes = restart_changes(before, config)
        if changes:
            pending.append("vm %s: %s needs a restart (slices_allow_restart=true)" % (name, ", ".join(changes)))
            goal[name] = {**before, "status": RUNNING, **_live(before, config)}
    if limited:
        # By what a VM has, which while its restart is pending is not what is wanted.
        goal = {name: {**state, **_limits(state)} for name, state in goal.items()}
    return reconcile(goal, have, purge), pending


def _limits(state: State) -> State:
    """A VM's limits; nothing if its manifest was lost, as its size is not known then."""
    return {"limits": vm_limits(state["cores"], state["memory_mb"])} if "cores" in state else {}


def restart_changes(before: State, after: State) -> List[str]:
    """The differences that a running VM can't take over, as messages name them."""
    old, new = _fixed(before), _fixed(after)
    lost = set(before.get("lost_taps", [])) - set(after.get("lost_taps", []))
    dead = [nic for nic in after.get("interfaces", []) if nic["tap"] in lost]
    lost_disk = before.get("lost_disk", False) and not after.get("lost_disk", False)
    disk = ["lost its disk"] * lost_disk
    return (
        disk
        + ["%s lost its TAP %s" % (nic["name"], nic["tap"]) for nic in dead]
        + [
            "%s %s -> %s" % (key, old.get(key, "none"), new.get(key, "none"))
            for key in [*new, *(key for key in old if key not in new)]
            if old.get(key) != new.get(key)
        ]
    )


def _fixed(state: State) -> Dict[str, Any]:
    """What is fixed while a VM runs: its configuration, but for the links of its interfaces."""
    fixed = {field: state.get(field, "unknown") for field in CONFIG if field != "interfaces"}
    interfaces = state.get("interfaces", [])
    fixed["interfaces"] = " ".join(nic["name"] for nic in interfaces) or "none"
    for nic in interfaces:
        fixed[nic["name"]] = "%s (%s)" % (nic["tap"], nic["mac"])
    return fixed


def _live(before: State, after: State) -> State:
    """What a running VM takes over: its record and the links of its interfaces; nothing if its manifest was lost."""
    if "interfaces" not in before:
        return {}
    links = {nic["name"]: nic["connected"] for nic in after["interfaces"]}
    interfaces = [{**nic, "connected": links.get(nic["name"], nic["connected"])} for nic in before["interfaces"]]
    return {"interfaces": interfaces, "record": after["record"]}


def changed_links(before: State, after: State) -> Dict[str, bool]:
    """The interfaces whose link goes up or down, by name. None of a VM whose manifest was lost: they are unknown."""
    links = {nic["name"]: nic["connected"] for nic in before.get("interfaces", [])}
    wanted = {nic["name"]: nic["connected"] for nic in after.get("interfaces", [])}
    return {name: connected for name, connected in wanted.items() if connected != links.get(name, True)}
