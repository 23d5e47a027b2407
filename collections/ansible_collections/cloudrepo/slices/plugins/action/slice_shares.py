# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cut all slices of the registry up by host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.action.slice_plan import internet_of
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._audit_shares import all_shares
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._netaddr import require_netaddr
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Worker
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, Settings, parse_network_node


class ActionModule(ActionBase):
    """Runs on the controller only."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "registry": {"type": "dict", "required": True},
                "slice": {"type": "str"},
                "internet_vlan": {"type": "int", "default": 400},
                "internet_subnet": {"type": "str", "default": "10.60.7.0/24"},
            }
        )
        require_netaddr()
        variables = task_vars or {}
        groups = variables["groups"]
        cluster = Cluster(
            workers=[Worker(name, _address(name, variables)) for name in groups.get("workers", [])],
            network_nodes=[
                parse_network_node({"name": name, "address": _address(name, variables), **internet_of(name, variables)})
                for name in groups["network_node"]
            ],
        )
        settings = Settings(internet_vlan=args["internet_vlan"], internet_subnet=args["internet_subnet"])
        return {"changed": False, **all_shares(args["registry"], cluster, settings, args["slice"], time.time())}


def _address(name: str, variables: Mapping[str, Any]) -> str:
    return str(variables["hostvars"][name].get("ansible_host", name))
