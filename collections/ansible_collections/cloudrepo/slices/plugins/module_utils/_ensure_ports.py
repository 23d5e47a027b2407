# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports of a slice on one host: made what they should be."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any, Callable, Mapping

from ansible_collections.cloudrepo.slices.plugins.module_utils import _ovs_host, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import serialized
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import diff
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import Options, actions, check_host, validate

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "slice_id": {"type": "int", "required": True},
    "owner": {"type": "str"},
    "vlan_pool": {"type": "dict", "options": _specs.POOL},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "bridge": {"type": "str", "default": "br-int"},
    "namespace": {"type": "str"},
    "tap_user": {"type": "str", "default": "slices-qemu"},
    "ports": {"type": "list", "elements": "dict", "default": [], "options": _specs.PORT},
}


def ensure(params: Mapping[str, Any], check_mode: bool, prepared: Callable[[], None] = lambda: None) -> Result:
    """As ``ovs_vlan`` documents its options and what it returns. ``prepared`` is called when new TAPs are there."""
    os.umask(0o022)  # Others have to enter the folder of the locks' folder, which may be made here.
    options = Options(
        slice=params["slice"],
        slice_id=params["slice_id"],
        bridge=params["bridge"],
        namespace=params["namespace"],
        tap_user=params["tap_user"],
        ports=params["ports"],
        present=params["state"] == "present",
        purge=params["purge"],
        owner=params["owner"],
        vlan_pool=params["vlan_pool"],
    )
    validate(options)
    with nullcontext() if check_mode else serialized("ovs_vlan-" + options.slice):
        host = _ovs_host.scan(options)
        check_host(options, host, _ovs_host.is_user(options.tap_user))
        todo = actions(options, host)
        if todo and not check_mode:
            _ovs_host.apply(todo, options, host, prepared)
    return {"changed": bool(todo), "diff": diff(todo)}
