# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VMs of a slice on one host: made what they should be."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.cloudrepo.slices.plugins.module_utils import _cgroup, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result, check_slice
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import locked, normal_path, tidy
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, labels
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu import (
    ACCELERATORS,
    RUNNING,
    SILENT,
    STOPPED,
    check_address,
    check_paths,
    parse,
    plan,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, State, diff, reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import (
    Host,
    Starter,
    Vm,
    apply,
    check_startable,
    check_started,
    must_start,
    names,
    scan,
    set_passwords,
    tidy_groups,
    usable_accelerator,
    user_argv,
)

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "vms": {"type": "list", "elements": "dict", "default": [], "options": _specs.VM},
    "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
    "purge": {"type": "bool", "default": False},
    "allow_restart": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 10},
    "base_dir": {"type": "path", "default": "~/vm_images"},
    "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
    "user": {"type": "str", "default": "slices-qemu"},
    "accelerator": {"type": "str", "choices": list(ACCELERATORS), "default": "auto"},
    "vnc_listen": {"type": "str", "default": "127.0.0.1"},
    "vnc_passwords": {"type": "dict", "default": {}, "no_log": True},
    "nic_offload": {"type": "bool", "default": True},
}


class _Planned(NamedTuple):
    actions: List[Action]
    pending: List[str]


def _wanted(params: Mapping[str, Any], host: Host, known: Mapping[str, str]) -> Dict[str, State]:
    common = {
        "vnc_listen": check_address(params["vnc_listen"]),
        "accelerator": params["accelerator"],
        "nic_offload": params["nic_offload"],
        "user": params["user"],
    }
    want = parse(params["vms"], common, params["vnc_passwords"])
    for name, where in known.items():
        check_paths(host.paths(name), where)
    user_argv(params["user"])
    return want


def _plan(
    params: Mapping[str, Any],
    want: Mapping[str, State],
    have: Mapping[str, Vm],
    known: Mapping[str, str],
    limited: bool,
) -> _Planned:
    states = {name: vm.state for name, vm in have.items()}
    started = params["state"] == "started"
    for name, vm in have.items():
        if vm.state["status"] != SILENT or not (name in known or params["purge"]):
            continue
        # What does not answer can't be changed, but can be killed if its process is known.
        if vm.pid is None or (started and name in known):
            where = known.get(name, 'vm "%s"' % name)
            raise ItemError("%s: its QEMU (pid %s) does not answer on QMP" % (where, vm.pid or "unknown"))
    if started:
        return _Planned(*plan(want, states, params["purge"], params["allow_restart"], limited))
    listed = {name: state for name, state in states.items() if name in known}
    if params["state"] == "stopped":
        goal = {name: {**state, "status": STOPPED} for name, state in listed.items()}
        return _Planned(reconcile(goal, states, params["purge"]), [])
    return _Planned(reconcile({}, states if params["purge"] else listed, purge=True), [])


def ensure(params: Mapping[str, Any], check_mode: bool, connected: Callable[[], None] = lambda: None) -> Result:
    """As ``qemu_vm`` documents its options and what it returns.

    ``connected`` returns when the VMs' TAPs are, and raises ``ItemError`` if that failed. QEMUs start before.
    """
    check_slice(params["slice"])
    os.umask(0o022)  # QEMU's user has to enter the folders that are made here.
    params = {**params, **{option: normal_path(option, params[option]) for option in ("base_dir", "run_dir")}}
    groups = _cgroup.find()
    limiting = _cgroup.Groups(groups, params["slice"]) if groups else None
    host = Host(params["base_dir"], params["run_dir"], params["slice"], limiting)
    known = labels("vms", params["vms"])
    started = params["state"] == "started"
    want = _wanted(params, host, known) if started else {}
    folder = os.path.join(host.run_dir, host.slice_name)
    with ExitStack() as stack:
        # A run that died may have left nothing but the folder.
        if not check_mode and (started or names(host) or os.path.isdir(folder)):
            stack.enter_context(locked(folder))
            stack.callback(tidy, folder)
        # The folders that QEMU's user has to enter are there. What is made now is for nobody else, QEMU's sockets too.
        os.umask(0o077)
        have = scan(host)
        planned = _plan(params, want, have, known, host.groups is not None)
        if check_mode:
            return _result(planned, {}, _predicted(host, planned.actions, have, known))
        to_start = [action.name for action in planned.actions if must_start(action)]
        check_startable(host, to_start, want, known)
        pids = {name: vm.pid for name, vm in have.items() if vm.pid is not None}
        errors = apply(
            host, planned.actions, pids, params["timeout"], lambda: _starter(host, params, connected), connected
        )
        now = scan(host) if planned.actions else have
        errors.update(check_started(host, [name for name in to_start if name not in errors], now))
        if started:
            errors.update(set_passwords(host, _without(params["vnc_passwords"], errors), now))
        tidy_groups(host, now)
        result = _result(planned, errors, _returned(host, now, known))
    if errors:
        failed = ["%s: %s" % (known.get(name, 'vm "%s"' % name), text) for name, text in errors.items()]
        result["msg"] = "; ".join(failed)
    return result


def _without(items: Mapping[str, Any], errors: Mapping[str, str]) -> Dict[str, Any]:
    return {name: value for name, value in items.items() if name not in errors}


def _starter(host: Host, params: Mapping[str, Any], connected: Callable[[], None]) -> Starter:
    as_user = user_argv(params["user"])
    return Starter(host, params["user"], as_user, usable_accelerator(params["accelerator"], as_user), connected)


def _result(planned: _Planned, errors: Mapping[str, str], vms: List[Dict[str, Any]]) -> Result:
    done = [action for action in planned.actions if action.name not in errors]
    return {"changed": bool(planned.actions), "vms": vms, "pending": planned.pending, "diff": diff(done)}


def _returned(host: Host, have: Mapping[str, Vm], known: Mapping[str, str]) -> List[Dict[str, Any]]:
    found = [(name, have[name], host.paths(name)) for name in known if name in have]
    return [
        {"name": name, "pid": vm.pid, "status": vm.state["status"], "console": paths.console}
        for name, vm, paths in found
    ]


def _predicted(
    host: Host, actions: Sequence[Action], have: Mapping[str, Vm], known: Mapping[str, str]
) -> List[Dict[str, Any]]:
    """What will be there once the actions are carried out, without the processes that only then exist."""
    after = dict(have)
    for action in actions:
        if action.after is None:
            after.pop(action.name)
        else:
            keeps = action.name in have and action.after["status"] == RUNNING and not must_start(action)
            after[action.name] = Vm(action.after, have[action.name].pid if keeps else None)
    return _returned(host, after, known)
