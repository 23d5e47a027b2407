# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything on this host that says of which slice it is: what a lost registry is rebuilt from."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Optional, Set

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._dnsmasq import NAMES
from ansible_collections.cloudrepo.slices.plugins.module_utils._host import namespaces
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu import DISK_SUFFIX
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import alias_fields
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import slices

Stamps = Dict[str, List[Dict[str, Any]]]

_MANIFEST = ".json"
_STAMP = "cloudrepo-"
_POOL = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")


def scan(base_dir: str, run_dir: str, dnsmasq_dir: str) -> Stamps:
    """What there is, each kind in a list.

    Raises:
        ValueError: Open vSwitch does not answer.
    """
    try:
        ovs = _ovs.parse_scan(run(_ovs.scan()))
    except CommandError as error:
        raise ValueError(_ovs.explain(error)) from error
    return {
        "vms": vms(base_dir, run_dir),
        "ports": ports(ovs),
        "taps": taps(_iproute.parse_scan(run(_iproute.scan(None), stdin=_iproute.SCAN))),
        "guests": guests(dnsmasq_dir),
        "namespaces": namespaces(_iproute.NETNS_DIR),
    }


def vms(base_dir: str, run_dir: str) -> List[Dict[str, Any]]:
    """The VMs that have a manifest, a disk or a folder of their own; ``record`` is what the manifest holds of it."""
    found = []
    for slice_name in slices(base_dir, run_dir):
        disks = os.path.join(base_dir, slice_name)
        names: Set[str] = set(_listdir(os.path.join(run_dir, slice_name)))
        for entry in _listdir(disks):
            names |= {entry[: -len(suffix)] for suffix in (_MANIFEST, DISK_SUFFIX) if entry.endswith(suffix)}
        for name in sorted(filter(is_name, names)):
            record = _record(os.path.join(disks, name + _MANIFEST))
            found.append({"slice": slice_name, "name": name, "record": record})
    return found


def _record(manifest: str) -> Optional[Any]:
    """What a manifest was given to keep; nothing if it is lost or broken."""
    try:
        with open(manifest, encoding="utf-8") as file:
            return json.load(file)["record"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _listdir(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def ports(ovs: _ovs.Database) -> List[Dict[str, Any]]:
    """The ports in Open vSwitch that carry our stamp, and what it says."""
    found = []
    for port in sorted(ovs.ports.values()):
        stamp = {key[len(_STAMP) :]: value for key, value in port.external_ids.items() if key.startswith(_STAMP)}
        if is_name(stamp.get("slice")):
            number = stamp.get("slice-id", "")
            found.append(
                {
                    "name": port.name,
                    "vlan": port.tag,
                    "slice": stamp["slice"],
                    "slice_id": int(number) if number.isascii() and number.isdigit() else None,
                    "owner": stamp.get("owner"),
                    "vlan_pool": _pool(stamp.get("pool", "")),
                    "vm": stamp["vm"] if is_name(stamp.get("vm")) else None,
                }
            )
    return found


def _pool(text: str) -> Optional[Dict[str, int]]:
    match = _POOL.fullmatch(text)
    if match is None:
        return None
    first, last = map(int, match.groups())
    return {"first": first, "size": last - first + 1}


def taps(network: _iproute.Network) -> List[Dict[str, Any]]:
    """The devices that carry our stamp and a VM's name: its TAPs, on the bridge or not."""
    found = []
    for name, device in sorted(network.devices.items()):
        stamp = alias_fields(device.alias)
        if is_name(stamp.get("slice")) and is_name(stamp.get("vm")):
            found.append({"name": name, "slice": stamp["slice"], "vm": stamp["vm"]})
    return found


def guests(dnsmasq_dir: str) -> List[Dict[str, Any]]:
    """The VMs whose names the slices' DNS servers know."""
    found = []
    for slice_name in sorted(filter(is_name, _listdir(dnsmasq_dir))):
        names = {line.split()[-1] for line in _lines(os.path.join(dnsmasq_dir, slice_name, NAMES))}
        found += [{"slice": slice_name, "name": name} for name in sorted(filter(is_name, names))]
    return found


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line for line in file if line.strip() and not line.startswith("#")]
    except (FileNotFoundError, NotADirectoryError):
        return []
