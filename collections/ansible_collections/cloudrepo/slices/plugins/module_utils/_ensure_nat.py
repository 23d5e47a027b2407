# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to the internet of a slice: made what it should be."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Mapping

from ansible_collections.cloudrepo.slices.plugins.module_utils import _internet, _internet_host, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import serialized
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import diff, reconcile

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "bridge": {"type": "str", "default": "br-int"},
    "vlan": {"type": "int", "default": 400},
    "subnet": {"type": "str", "default": "10.60.7.0/24"},
    "uplink": {"type": "str"},
    "namespace": {"type": "str"},
    "interface": {"type": "str"},
    "server_address": {"type": "str"},
    "addresses": {"type": "list", "elements": "dict", "default": [], "options": _specs.GUEST},
    "protected_networks": {"type": "list", "elements": "str", "default": []},
    "protected_addresses": {"type": "list", "elements": "str", "default": []},
}
REQUIRED_BY = {"interface": ("namespace", "server_address"), "server_address": ("interface",)}


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``slice_nat`` documents its options and what it returns."""
    options = _internet.parse_options(params)
    with nullcontext() if check_mode else serialized("slice_nat"):
        host = _internet_host.scan(options)
        _internet.validate(options, host)
        actions = reconcile(_internet.wanted(options, host), _internet.observed(options, host), purge=True)
        if actions and not check_mode:
            _internet_host.apply(actions, options, host)
    result = {"changed": bool(actions), "diff": diff(actions)}
    if options.present:
        result["uplink"] = _internet.uplink(options, host)
    return result
