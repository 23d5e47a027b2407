# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit of this host: read once, then judged slice by slice with what the modules themselves want and see."""

from __future__ import annotations

import os
import pwd
import re
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils import (
    _cgroup,
    _dnsmasq_process,
    _host,
    _images,
    _internet,
    _internet_host,
    _iproute,
    _nft,
    _orphans,
    _overlays,
    _ovs,
    _ovs_host,
    _qemu,
    _stamps,
    _vlan_ports,
    _vms,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import (
    DHCP,
    DISK,
    FILE,
    HOST,
    IMAGE,
    NAT,
    PORT,
    VM,
    Finding,
    drift,
    running_cards,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import is_part, locked, normal_path, serialized
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, run_each
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_file_name, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._qmp import QmpError
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run

Share = Mapping[str, Any]
Judge = Callable[[Share, "Look"], Tuple[List[Finding], int]]

WORKER, NETWORK = "worker", "network"

_ERRORS = (CommandError, ItemError, OSError, QmpError, ValueError)
_SLICES_AT_ONCE = 8
_LEASE_TIME = 3600  # The default of dnsmasq_dhcp, which the role leaves alone.


class Place(NamedTuple):
    """Where things of ours are on this host, and what it is there for."""

    roles: Sequence[str]
    bridge: str
    base_dir: str
    run_dir: str
    state_dir: str


class Settings(NamedTuple):
    """The modules' options that are the same for all slices on this host."""

    user: str
    accelerator: str
    vnc_listen: str
    vnc_passwords: bool
    nic_offload: bool
    internet_vlan: int
    internet_subnet: str
    uplink: Optional[str]
    protected_networks: Sequence[str]


class Scan(NamedTuple):
    """What was read once for all slices; ``ports`` is empty if ``has_ports`` says that Open vSwitch does not answer."""

    has_ports: bool
    ports: _ovs_host.Common
    table: Optional[_nft.Listing]
    processes: Sequence[_orphans.Process]


class Look(NamedTuple):
    """What a slice is judged by."""

    place: Place
    settings: Settings
    found: Scan


class Report(NamedTuple):
    """What is off, and how many resources were looked at, by slice and kind."""

    findings: List[Finding]
    checked: Dict[str, Dict[str, int]]


# --- one look at the host -----------------------------------------------------------------------------------------


def scan(place: Place) -> Tuple[Scan, List[Finding]]:
    """What there is, and what could not be read."""
    problems: List[Finding] = []

    def attempt(item: str, job: Callable[[], Any]) -> Any:
        try:
            return job()
        except _ERRORS as error:
            problems.append(Finding("", HOST, item, str(error)))
            return None

    ports = attempt("Open vSwitch", lambda: _ovs_host.scan_common(place.bridge))
    found = Scan(
        has_ports=ports is not None,
        ports=ports or _ovs_host.Common(_ovs.Database({}, {}), _iproute.Network({}, {}), []),
        table=attempt("nftables", _internet_host.scan_table) if NETWORK in place.roles else None,
        processes=_processes(place),
    )
    return found, problems


def orphans(found: Scan, known: _orphans.Known, place: Place) -> List[Finding]:
    """What belongs to no slice that is known."""
    host = _orphans.Host(
        bridge=place.bridge,
        now=time.time(),
        ovs=found.ports.ovs,
        root=found.ports.root,
        flows=found.ports.flows,
        table=found.table,
        namespaces=_listdir(_iproute.NETNS_DIR),
        processes=found.processes,
        folders=list(_slice_folders(place)),
        stale=list(_stale_files(place)),
    )
    return _orphans.orphans(host, known)


def _processes(place: Place) -> List[_orphans.Process]:
    """The VMs and DHCP servers that run, whatever is left of their files: one pass over /proc."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open("/proc/%s/cmdline" % name, encoding="utf-8", errors="replace") as file:
            argv = file.read().rstrip("\0").split("\0")
            process = _orphans.parse_process(int(name), argv, place.run_dir, place.state_dir)
            found += [process] if process else []
    return found


def _slice_folders(place: Place) -> Iterable[_orphans.Entry]:
    for path, name in _named_folders(place.base_dir):
        ours, others = _sorted_out(path, _is_disk_file)
        if ours:  # Its users put other folders there, too: the name alone says nothing.
            yield _orphans.Entry(path, name, _orphans.clear(path, ours, others))
    for path, name in _named_folders(place.run_dir):
        yield _orphans.Entry(path, name, [_orphans.remove_tree(path)])
    for path, name in _named_folders(place.state_dir):
        ours, others = _sorted_out(path, _is_dnsmasq_file)
        if ours or not others:
            yield _orphans.Entry(path, name, _orphans.clear(path, ours, others))
    groups = _cgroup.find()
    for name in _listdir(groups) if groups else []:
        slice_name = name.partition(".")[0]
        if "." in name and is_name(slice_name):
            path = os.path.join(str(groups), name)
            yield _orphans.Entry(path, slice_name, [_orphans.remove_empty(path)])
    for name in _listdir(_dnsmasq_process.RUN_DIR):
        slice_name, extension = os.path.splitext(name)
        if extension == ".pid" and is_name(slice_name):
            path = os.path.join(_dnsmasq_process.RUN_DIR, name)
            yield _orphans.Entry(path, slice_name, [_orphans.remove(path)])


def _named_folders(parent: str) -> Iterable[Tuple[str, str]]:
    for name in _listdir(parent):
        path = os.path.join(parent, name)
        if is_name(name) and os.path.isdir(path) and not os.path.islink(path):
            yield path, name


def _sorted_out(folder: str, is_ours: Callable[[str], bool]) -> Tuple[List[str], bool]:
    """The names in a folder that are ours, and whether there are others."""
    names = _listdir(folder)
    ours = [name for name in names if is_ours(os.path.join(folder, name))]
    return ours, len(ours) < len(names)


def _is_disk_file(path: str) -> bool:
    """Whether we put this file into a slice's folder of disks: by its name, and a manifest by what it says."""
    if not _is_file(path):
        return False
    folder, name = os.path.split(path)
    base_dir, slice_name = os.path.split(folder)
    vm = re.split("[._]", name)[0]
    paths = _qemu.vm_paths(base_dir, "", slice_name, vm)
    if path == paths.manifest:
        return _host.vm_stamp(path) is not None
    return is_part(name) or (is_name(vm) and path in (paths.disk, paths.console_log))


def _is_dnsmasq_file(path: str) -> bool:
    name = os.path.basename(path)
    return _is_file(path) and (name in _dnsmasq_process.OWNERS or is_part(name))


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _stale_files(place: Place) -> Iterable[_orphans.Entry]:
    """Base images on their way: those being renamed, those that were sent; and records of images that are gone."""
    images = _listdir(place.base_dir)
    for name in images:
        path = os.path.join(place.base_dir, name)
        may_be_lost = name.endswith(".json") and name[: -len(".json")] not in images
        if _is_file(path) and (is_part(name) or (may_be_lost and _images.is_record(path))):
            yield _entry(path)
    sent = {name for name in images if is_file_name(name) and _is_file(os.path.join(place.base_dir, name))}
    temporary = os.path.join(_login_home(), ".ansible", "tmp")
    for folder in _listdir(temporary):
        for name in _listdir(os.path.join(temporary, folder)):
            if name in sent:
                yield _entry(os.path.join(temporary, folder, name))


def _entry(path: str) -> _orphans.Entry:
    try:
        age = time.time() - os.lstat(path).st_mtime
    except OSError:
        age = 0.0
    return _orphans.Entry(path, "", [_orphans.remove(path)], age)


def _login_home() -> str:
    """The home of the user that Ansible logs in as."""
    user = os.environ.get("SUDO_USER")
    try:
        return pwd.getpwnam(user).pw_dir if user else os.path.expanduser("~")
    except KeyError:
        return os.path.expanduser("~")


def _listdir(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- slice by slice -----------------------------------------------------------------------------------------------


def judge(shares: Sequence[Share], look: Look) -> Report:
    """What differs from what the slices' shares say."""
    by_name = {share["name"]: share for share in shares}
    reports: Dict[str, Report] = {}

    def examine(name: str) -> None:
        reports[name] = _judge(by_name[name], look)

    # Most of the time goes into waiting for VMs that do not answer.
    run_each(examine, by_name, (), _SLICES_AT_ONCE)
    return Report(
        [finding for name in by_name for finding in reports[name].findings],
        {name: reports[name].checked[name] for name in by_name},
    )


def _judge(share: Share, look: Look) -> Report:
    judges: List[Tuple[str, Judge]] = [(PORT, _ports)] if look.found.has_ports else []
    if WORKER in look.place.roles:
        judges += [(DISK, _disks), (IMAGE, _base_images), (VM, _machines), (FILE, _files)]
    if NETWORK in look.place.roles:
        judges += [(DHCP, _dhcp)] + ([(NAT, _nat)] if look.found.has_ports else [])
    findings: List[Finding] = []
    checked: Dict[str, int] = {}
    for kind, examine in judges:
        try:
            off, checked[kind] = examine(share, look)
            off = [finding for finding in off if not _is_retired(finding, share, look)]
        except _ERRORS as error:
            off = [Finding(share["name"], kind, "", str(error))]
        findings += off
    return Report(findings, {share["name"]: {kind: count for kind, count in checked.items() if count}})


def _ports(share: Share, look: Look) -> Tuple[List[Finding], int]:
    options = _vlan_ports.Options(
        slice=share["name"],
        slice_id=share["id"],
        bridge=look.place.bridge,
        namespace="slice-%d" % share["id"] if NETWORK in look.place.roles else None,
        tap_user=look.settings.user,
        ports=share["ports"],
        present=share["present"],
        purge=True,
        owner=share["owner"],
        vlan_pool=share["vlan_pool"],
    )
    _vlan_ports.validate(options)
    host = _ovs_host.view(options, look.found.ports)
    off = [
        finding._replace(commands=_port_removal(finding.item, share, host)) if _is_surplus(finding) else finding
        for finding in drift(share["name"], PORT, _vlan_ports.actions(options, host))
    ]
    try:
        _vlan_ports.check_host(options, host, _ovs_host.is_user(options.tap_user))
    except (ItemError, ValueError) as error:
        off.append(Finding(share["name"], PORT, "", str(error)))
    return off, len(_vlan_ports.wanted(options))


def _is_retired(finding: Finding, share: Share, look: Look) -> bool:
    """Whether it is about a VM that the spec no longer names: until a deploy succeeds it goes on with all it has."""
    names = {vm["name"] for vm in share["retired"]}
    if finding.kind == PORT and finding.item in look.found.ports.ovs.ports:
        return look.found.ports.ovs.ports[finding.item].external_ids.get("cloudrepo-vm") in names
    return finding.kind in (VM, DISK) and finding.item in names


def _is_surplus(finding: Finding) -> bool:
    return finding.message == "should not be there"


def _port_removal(name: str, share: Share, host: _vlan_ports.Host) -> List[List[str]]:
    namespace = "slice-%d" % share["id"]
    if name == _vlan_ports.namespace_key(namespace):
        return [_orphans.delete_namespace(namespace)]
    return _orphans.delete_port(name, host.ovs, host.root)


def _disks(share: Share, look: Look) -> Tuple[List[Finding], int]:
    overlays = _overlays.parse(share["overlays"])
    folder = os.path.join(look.place.base_dir, share["name"])
    want = {overlay.name: _overlays.wanted(overlay, look.settings.user, overlay.size) for overlay in overlays}
    off = drift(share["name"], DISK, reconcile(want, _overlays.scan(folder), purge=True))
    return [
        finding._replace(commands=[_orphans.remove(_paths(share, look, finding.item).disk)])
        if _is_surplus(finding)
        else finding
        for finding in off
    ], len(want)


def _paths(share: Share, look: Look, vm: str) -> _qemu.Paths:
    return _qemu.vm_paths(look.place.base_dir, look.place.run_dir, share["name"], vm)


def _base_images(share: Share, look: Look) -> Tuple[List[Finding], int]:
    users = _overlays.image_users(_overlays.parse(share["overlays"]))
    off = []
    for image, user in users.items():
        try:
            cached = _images.scan_images(look.place.base_dir, {image: user}).get(image)
        except (ItemError, OSError) as error:
            off.append(Finding(share["name"], IMAGE, image, str(error)))
            continue
        if cached is None:
            off.append(Finding(share["name"], IMAGE, image, "is missing"))
        elif not cached.has_sidecar:
            off.append(Finding(share["name"], IMAGE, image, "has no record of its size"))
    return off, len(users)


def _machines(share: Share, look: Look) -> Tuple[List[Finding], int]:
    common = {
        "vnc_listen": _qemu.check_address(look.settings.vnc_listen),
        "accelerator": look.settings.accelerator,
        "nic_offload": look.settings.nic_offload,
        "user": look.settings.user,
    }
    # Which password a screen has, nobody can tell; only whether it has one.
    passwords = {vm["name"]: "?" for vm in share["vms"]} if look.settings.vnc_passwords else {}
    want = _qemu.parse(share["vms"], common, passwords)
    folder = _cgroup.find()
    groups = _cgroup.Groups(folder, share["name"]) if folder else None
    have = _vms.scan(_vms.Host(look.place.base_dir, look.place.run_dir, share["name"], groups))
    states = {name: vm.state for name, vm in have.items()}
    actions, _pending = _qemu.plan(want, states, purge=True, allow_restart=True, limited=groups is not None)
    processes = _orphans.by_vm(look.found.processes, share["name"])
    off = [
        finding._replace(commands=_vm_removal(_paths(share, look, finding.item), have[finding.item].pid))
        if _is_surplus(finding)
        else finding
        for finding in drift(share["name"], VM, actions)
    ]
    for name in {*processes, *have}:
        paths = _paths(share, look, name)
        pid = have[name].pid if name in have else None
        for process in processes.get(name, []):
            if process.pid != pid:
                off.append(_second(share["name"], process, pid))
            elif name in want:
                off += running_cards(share["name"], name, _qemu.cards(process.argv), _wanted_cards(want[name], paths))
    return off, len(want)


def _second(slice_name: str, process: _orphans.Process, pid: Optional[int]) -> Finding:
    message = "process %d also runs this VM" if pid else "process %d runs this VM and can't be reached"
    return Finding(slice_name, VM, process.vm, message % process.pid, commands=[_orphans.kill(process.pid)])


def _wanted_cards(config: Mapping[str, Any], paths: _qemu.Paths) -> Mapping[str, Mapping[str, str]]:
    return _qemu.cards(_qemu.argv("", "", config, paths, ""))


def _vm_removal(paths: _qemu.Paths, pid: Optional[int]) -> List[List[str]]:
    files = [path for path in (paths.console_log, paths.manifest) if os.path.lexists(path)]
    process = [_orphans.kill(pid)] if pid else []
    folder = [_orphans.remove_tree(paths.folder)] if os.path.lexists(paths.folder) else []
    return process + folder + ([_orphans.remove(*files)] if files else [])


def _files(share: Share, look: Look) -> Tuple[List[Finding], int]:
    """What is in the slice's folder of disks that is neither a VM's nor about to be."""
    folder = os.path.join(look.place.base_dir, share["name"])
    logs = {os.path.basename(_paths(share, look, vm["name"]).console_log) for vm in (*share["vms"], *share["retired"])}
    off = []
    for name in _listdir(folder):
        path = os.path.join(folder, name)
        # Disks and manifests too many were named where disks and VMs were judged.
        is_judged = name.endswith((_qemu.DISK_SUFFIX, ".json")) or name in logs
        is_young = is_part(name) and _entry(path).age < _orphans.STALE_SECONDS
        if not is_judged and not is_young:
            commands = [_orphans.remove(path)] if _is_disk_file(path) else []
            off.append(Finding(share["name"], FILE, path, "should not be there", commands=commands))
    if not share["present"] and not off and os.path.isdir(folder) and not os.listdir(folder):
        commands = [_orphans.remove_empty(folder)]
        off.append(Finding(share["name"], FILE, folder, "should not be there", commands=commands))
    return off, 0


def _dhcp(share: Share, look: Look) -> Tuple[List[Finding], int]:
    network = share["network"] or {"namespace": "slice-%d" % share["id"], "networks": []}
    where = _dnsmasq_process.place(look.place.state_dir, share["name"], network["namespace"])
    if not network["networks"]:
        surplus = reconcile({}, _dnsmasq_process.observed(where, None), purge=True)
        return drift(share["name"], DHCP, surplus), 0
    service = _dnsmasq_process.parse(share["name"], dict(network, upstream_servers=None, lease_time=_LEASE_TIME))
    want = _dnsmasq_process.wanted(where, service)
    actions = reconcile(want, _dnsmasq_process.observed(where, service), purge=True)
    return drift(share["name"], DHCP, actions), len(want)


def _nat(share: Share, look: Look) -> Tuple[List[Finding], int]:
    internet = (share["network"] or {}).get("internet") or {}
    options = _internet.parse_options(
        {
            "slice": share["name"],
            "state": "present" if internet else "absent",
            "bridge": look.place.bridge,
            "vlan": look.settings.internet_vlan,
            "subnet": look.settings.internet_subnet,
            "uplink": look.settings.uplink,
            "namespace": "slice-%d" % share["id"],
            "interface": internet.get("interface"),
            "server_address": internet.get("server_address"),
            "addresses": internet.get("addresses", []),
            "protected_networks": look.settings.protected_networks,
            "protected_addresses": internet.get("protected_addresses", []),
        }
    )
    host = _internet_host.view(options, look.found.ports.ovs, look.found.ports.root, look.found.table)
    have = _internet.observed(options, host)
    if not options.takes_part:
        # What is shared is no business of a slice without internet.
        actions: List[Action] = reconcile({}, _own(have), purge=True)
        return drift(share["name"], NAT, actions), 0
    _internet.validate(options, host)
    want = _internet.wanted(options, host)
    return drift(share["name"], NAT, reconcile(want, have, purge=True)), len(want)


def _own(have: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: state for name, state in have.items() if name.startswith(("slice ", "namespace "))}


# --- the orphans' end ---------------------------------------------------------------------------------------------


def stamped(findings: Iterable[Finding], only: Optional[str]) -> List[Finding]:
    """All orphans, or those that carry one slice's stamp."""
    return [finding for finding in findings if only is None or finding.slice == only]


@contextmanager
def held(place: Place, reported: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Keep the modules that realize a slice from what orphans are named by: their slices' names, and what all share."""
    with ExitStack() as stack:
        for name in sorted({one["slice"] for one in reported if is_name(one["slice"])}):
            # In the order in which qemu_vm and qcow_overlay lock folders.
            for parent in (place.run_dir, place.base_dir):
                _lock_folder(stack, os.path.join(parent, name))
            for module in ("ovs_vlan", "dnsmasq"):
                stack.enter_context(serialized("%s-%s" % (module, name)))
        stack.enter_context(serialized("slice_nat"))
        _lock_folder(stack, place.base_dir)
        yield


def _lock_folder(stack: ExitStack, folder: str) -> None:
    if os.path.isdir(folder):
        stack.enter_context(locked(folder))


def newcomers(found: Scan, place: Place, next_id: int) -> Set[str]:
    """The slices that got their ID after the registry was read, by what carries it here."""
    stamps = [(stamp["slice"], stamp["id"]) for stamp in _host.stamps(place.base_dir)]
    stamps += [(port["slice"], port["slice_id"] or 0) for port in _stamps.ports(found.ports.ovs)]
    return {name for name, number in stamps if name and number >= next_id}


def kept(newer: Set[str], reported: Iterable[Mapping[str, Any]]) -> List[str]:
    """Why orphans of these slices are not removed, a message for each slice of which there are any."""
    return [
        'slice "%s": it has an ID that the registry has not given out, '
        "so another run may be making it: audit again" % name
        for name in sorted(newer & {one["slice"] for one in reported})
    ]


def chosen(findings: Iterable[Finding], reported: Sequence[Mapping[str, Any]]) -> List[Finding]:
    """Those of the orphans that were reported before, and take the same commands still."""
    before = [(one["slice"], one["kind"], one["item"], one["commands"]) for one in reported]
    return [
        finding
        for finding in findings
        if (finding.slice, finding.kind, finding.item, list(map(list, finding.commands))) in before
    ]


def remove(findings: Iterable[Finding]) -> Tuple[List[Finding], List[str]]:
    """Run the commands of orphans, in their order. Returns those that are removed, and why others are not."""
    removed: List[Finding] = []
    errors: List[str] = []
    for finding in findings:
        try:
            for argv in finding.commands:
                run(argv)
        except CommandError as error:
            errors.append("%s %s: %s" % (finding.kind, finding.item, error))
        else:
            removed.append(finding)
    return removed, errors


# --- the modules' options -----------------------------------------------------------------------------------------


def place(params: Mapping[str, Any]) -> Place:
    """Where things are, by a module's options."""
    folders = {field: normal_path(field, params[field]) for field in ("base_dir", "run_dir", "state_dir")}
    return Place(roles=params["roles"], bridge=params["bridge"], **folders)


def known(options: Mapping[str, Any]) -> _orphans.Known:
    """What belongs to somebody, by the option of that name."""
    return _orphans.Known(frozenset(options["names"]), frozenset(options["ids"]), frozenset(options["ports"]))
