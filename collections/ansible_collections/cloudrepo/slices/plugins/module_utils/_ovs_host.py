# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports of a slice on this host: found in one scan, changed in a constant number of processes."""

from __future__ import annotations

import os
import pwd
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _openflow, _ovs, _sysctl
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, label
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import ALL_SETTINGS, Host, Options, owned
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_steps import Line, Sysctls, steps


class Common(NamedTuple):
    """What the ports of all slices on this host have in common."""

    ovs: _ovs.Database
    root: _iproute.Network
    flows: Sequence[_openflow.Flow]


def scan(options: Options) -> Host:
    """What there is on this host, read in one process each for the database, the flows and each network namespace.

    Raises:
        ValueError: Open vSwitch does not answer.
    """
    return view(options, scan_common(options.bridge))


def scan_common(bridge_name: str) -> Common:
    """What is read once for all slices.

    Raises:
        ValueError: Open vSwitch does not answer.
    """
    try:
        ovs = _ovs.parse_scan(run(_ovs.scan()))
        bridge = ovs.bridges.get(bridge_name)
        flows = _openflow.parse_dump(run(_openflow.dump(bridge.name))) if bridge and bridge.ready else []
    except CommandError as error:
        raise ValueError("%s: run the playbook prepare_hosts" % _ovs.explain(error)) from error
    return Common(ovs, _network(None), flows)


def view(options: Options, common: Common) -> Host:
    """The host as one slice's module sees it: what all slices have in common, and the slice's own namespace."""
    inside = _network(options.namespace) if options.namespace and _exists(options.namespace) else None
    names = owned(options, common.ovs, common.root, inside)
    sysctls = _settings(names & set(common.root.devices))
    if inside:
        with _sysctl.network_namespace(options.namespace):
            # The one outside, where there are two, is what counts.
            sysctls.update(_settings(names & set(inside.devices) - set(sysctls)))
    return Host(common.ovs, common.root, inside, sysctls, common.flows)


def is_user(name: str) -> bool:
    """Whether a user of this name exists."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def apply(todo: Sequence[Action], options: Options, host: Host, prepared: Callable[[], None]) -> None:
    """Do the actions.

    Args:
        todo: what was planned.
        options: the task's.
        host: what was there.
        prepared: called when the TAPs are there, before Open vSwitch has them.

    Raises:
        ValueError: processes are still in the namespace that is to be deleted, and nothing was done; or Open vSwitch
            refused the transaction, and nothing of it was done.
        ItemError: a port could not be changed.
        CommandError: a namespace could not be created or deleted, or the flows not changed, and none of them was.
    """
    plan, namespace = steps(todo, options, host), options.namespace
    if plan.delete_namespace:
        _refuse_processes(str(namespace))
    if plan.create_namespace:
        run(_iproute.ip(None, "netns", "add", str(namespace)))
    _batch(namespace, _removal(plan.leftovers), options)
    _transaction(plan.detach)
    _batch(None, plan.prepare, options)
    _write_settings(plan.deafen, options)
    prepared()
    _transaction(plan.connect)
    if plan.secure:
        run(_openflow.change(options.bridge), stdin="".join(line + "\n" for line in plan.secure))
    _batch(None, plan.place + _removal(plan.remove), options)
    _write_settings(plan.sysctls, options)
    _batch(namespace, plan.settle, options)
    if plan.delete_namespace:
        run(_iproute.ip(None, "netns", "delete", str(namespace)))


def _removal(names: Sequence[str]) -> List[Line]:
    """The lines that delete devices, all at once: for each that is deleted alone the kernel waits some 20 ms.

    They become a group that nobody else is in, as its number has just been made up. Group 0 is that of all others.
    """
    group = 1 << 30 | int.from_bytes(os.urandom(4), "big") >> 2
    grouped = [Line(_iproute.set_group(name, group), name) for name in names]
    return [*grouped, Line(_iproute.delete_group(group), names[0])] if names else []


def _network(namespace: Optional[str]) -> _iproute.Network:
    return _iproute.parse_scan(run(_iproute.scan(namespace), stdin=_iproute.SCAN))


def _exists(namespace: str) -> bool:
    return os.path.exists(os.path.join(_iproute.NETNS_DIR, namespace))


def _settings(names: Iterable[str]) -> Dict[str, Mapping[str, int]]:
    return {name: _sysctl.read(name, ALL_SETTINGS) for name in names}


def _write_settings(changes: Sequence[Sysctls], options: Options) -> None:
    for namespace in {change.namespace for change in changes}:
        with _sysctl.network_namespace(namespace):
            for change in changes:
                if change.namespace == namespace:
                    _write(change, options)


def _write(change: Sysctls, options: Options) -> None:
    try:
        _sysctl.write(change.name, change.values)
    except OSError as error:
        raise ItemError("%s: %s" % (_label(change.name, options), error)) from error


def _batch(namespace: Optional[str], lines: List[Line], options: Options) -> None:
    if not lines:
        return
    try:
        run(_iproute.batch(namespace), stdin="".join(line.text + "\n" for line in lines))
    except CommandError as error:
        number = _iproute.failed_line(error.stderr)
        if number is None:
            raise
        failed = lines[number]
        reason = error.stderr.splitlines()[0]
        raise ItemError("%s: ip %s failed: %s" % (_label(failed.name, options), failed.text, reason)) from error


def _transaction(commands: List[_ovs.Command]) -> None:
    if not commands:
        return
    try:
        run(_ovs.transaction(commands))
    except CommandError as error:
        raise ValueError(_ovs.explain(error)) from error


def _label(name: str, options: Options) -> str:
    """How errors call a port: by its place in the list, if it is there."""
    indexes = [index for index, port in enumerate(options.ports) if port["name"] == name]
    return label("ports", indexes[0], name) if indexes else name


def _refuse_processes(namespace: str) -> None:
    pids = run(_iproute.ip(None, "netns", "pids", namespace)).split()
    if pids:
        users = ", ".join("%s (PID %s)" % (_program(pid), pid) for pid in pids)
        raise ValueError("namespace %s cannot be deleted: it is in use by %s" % (namespace, users))


def _program(pid: str) -> str:
    try:
        with open("/proc/%s/comm" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"
