# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""DHCP and names of a slice: made what they should be."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any, Mapping, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils import _dnsmasq_process, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import serialized
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import diff, reconcile

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "absent"], "default": "started"},
    "namespace": {"type": "str"},
    "domain": {"type": "str"},
    "state_dir": {"type": "path", "default": "/var/lib/cloudrepo/dnsmasq"},
    "lease_time": {"type": "int", "default": 3600},
    "upstream_servers": {"type": "list", "elements": "str"},
    "networks": {"type": "list", "elements": "dict", "default": [], "options": _specs.NETWORK},
    "names": {"type": "list", "elements": "dict", "default": [], "options": _specs.NAMES},
}
REQUIRED_IF = [("state", "started", ("namespace",))]


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``dnsmasq_dhcp`` documents its options and what it returns."""
    where = _where(params["slice"], params["state_dir"], params["namespace"])
    service = _dnsmasq_process.parse(params["slice"], params)
    serve = params["state"] == "started" and bool(service.networks)
    with nullcontext() if check_mode else serialized("dnsmasq-" + params["slice"]):
        have = _dnsmasq_process.observed(where, service if serve else None)
        want = _dnsmasq_process.wanted(where, service) if serve else {}
        actions = reconcile(want, have, purge=True)
        if actions and not check_mode:
            if serve:
                _dnsmasq_process.apply(actions, where, service)
            else:
                _dnsmasq_process.remove(where)
    result = {"changed": bool(actions), "diff": diff(actions)}
    if params["state"] == "started":
        result["restarted"] = serve and _dnsmasq_process.needs_restart(actions)
    return result


def _where(slice_name: str, state_dir: str, namespace: Optional[str]) -> _dnsmasq_process.Place:
    for option, name in (("slice", slice_name), ("namespace", namespace)):
        if name is not None and not is_name(name):
            raise ValueError("%s %r: a name is %s" % (option, name, NAME_RULE))
    # The path becomes part of dnsmasq's configuration.
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", state_dir):
        raise ValueError("state_dir %r is not an absolute path of letters, digits and ._-" % state_dir)
    return _dnsmasq_process.place(state_dir, slice_name, namespace or "")
