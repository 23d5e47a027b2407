# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the registry holds of the slice that is planned. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._addressing import number_of

# No disk exists yet in these states, so anything about a VM may still change.
_NOTHING_STARTED = ("design",)


class Known:
    """What the registry holds of the slice, by the names that its numbers are kept under."""

    def __init__(self, old: Mapping[str, Any] | None) -> None:
        old = old or {
            "id": 0,
            "owner": "",
            "status": "",
            "reason": "",
            "has_run": False,
            "network_node": "",
            "vlan_pool": None,
            "vms": [],
            "links": [],
            "internet": None,
        }
        self.id: int = old["id"]
        self.owner: str = old["owner"]
        self.status: str = old["status"]
        self.reason: str = old["reason"]
        self.has_run: bool = old["has_run"]
        self.network_node: str = old["network_node"]
        self.pool: Mapping[str, int] | None = old["vlan_pool"]
        self.started = bool(self.id) and self.status not in _NOTHING_STARTED
        self.vms: dict[str, Mapping[str, Any]] = {vm["name"]: vm for vm in old["vms"]}
        self.links: dict[str, Mapping[str, Any]] = {link["name"]: link for link in old["links"]}
        self.internet: Mapping[str, str] | None = old["internet"]
        self.server_address: str | None = (old["internet"] or {}).get("server_address")
        self._ends = {(end["vm"], link["name"]): end["interface"] for link in old["links"] for end in link["endpoints"]}

    def interface(self, vm: str, link: str) -> str | None:
        """The interface by which a VM is on a link."""
        return self._ends.get((vm, link))

    def address(self, vm: str, interface: str | None) -> int | None:
        """The address of a VM's interface, as a number."""
        for known in self.vms.get(vm, {}).get("interfaces", ()):
            if known["name"] == interface and known["address"]:
                return number_of(known["address"])
        return None
