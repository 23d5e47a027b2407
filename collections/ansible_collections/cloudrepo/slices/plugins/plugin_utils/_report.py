# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A slice's topology as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._text import printable

_RULE = "=" * 70


def render(slices: Sequence[Mapping[str, Any]]) -> str:
    """The text that ``show_slices`` prints."""
    if not slices:
        return "No slices."
    blocks = ["\n".join(_slice_lines(record)) for record in slices]
    return "\n".join([_RULE, *(line for block in blocks for line in (block, _RULE))])


def _slice_lines(record: Mapping[str, Any]) -> Iterable[str]:
    pool = record["vlan_pool"]
    vms = [vm for vm in record["vms"] if not vm["retired"]]
    yield (
        f"Slice {record['id']} [{record['status']}]: {len(vms)} VMs, {len(record['links'])} Links, "
        f"VLAN pool: {pool['first']}-{pool['first'] + pool['size'] - 1}"
    )
    if record["reason"]:
        yield f"  Reason: {printable(record['reason'])}"
    for vm in vms:
        yield (
            f"  └─ VM {vm['id']}: {vm['name']} "
            f"(VNC: {vm['vnc_port']}{_password(vm)}, Worker: {vm['worker_address']}, Disk: {vm['disk_gb']:g}GB)"
            f"{_state(vm, record)}"
        )
        for interface in vm["interfaces"]:
            yield f"      {interface['name']}: {_interface(interface)}"
    ids = {vm["name"]: vm["id"] for vm in vms}
    for link in record["links"]:
        ends = " <-> ".join(f"VM{ids[end['vm']]}.{end['interface']}" for end in link["endpoints"])
        secured = ", port security" if link["port_security"] else ""
        yield f"  Link {link['number']}: {ends} (VLAN {link['vlan']}{secured})"


def _password(vm: Mapping[str, Any]) -> str:
    return f", Password: {vm['vnc_password']}" if vm.get("vnc_password") else ""


def _state(vm: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """What a VM of a running slice does instead of running, if that is known."""
    state = vm.get("state")
    return f" [{state}]" if record["status"] == "running" and state not in (None, "running") else ""


def _interface(interface: Mapping[str, Any]) -> str:
    parts = [f"MAC {interface['mac']}"]
    if interface["vlan"] is not None:
        parts.append(f"VLAN: {interface['vlan']}")
    parts.append("unconnected" if interface["link"] is None else f"Link: {interface['link']}")
    return ", ".join(parts)
