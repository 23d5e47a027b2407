#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dnsmasq_dhcp_info
short_description: Read the DHCP leases of a slice, and wait for them
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Reads which addresses the slice's dnsmasq has leased.
  - Waits for the leases of given MAC addresses. A guest that has one has booted, and its network works.
attributes:
  check_mode:
    description: Changes nothing anyway, and waits in check mode too.
    support: full
options:
  slice:
    description: Name of the slice.
    type: str
    required: true
  state_dir:
    description: The same as for M(cloudrepo.slices.dnsmasq_dhcp).
    type: path
    default: /var/lib/cloudrepo/dnsmasq
  wait_for:
    description: MAC addresses that need a lease.
    type: list
    elements: str
    default: []
  timeout:
    description: How long to wait for them, in seconds, before the module fails and names those without one.
    type: int
    default: 60
seealso:
  - module: cloudrepo.slices.dnsmasq_dhcp
"""

EXAMPLES = r"""
- name: Wait until both VMs have their addresses
  cloudrepo.slices.dnsmasq_dhcp_info:
    slice: web
    wait_for: ["52:54:00:03:e9:01", "52:54:00:03:ea:01"]
    timeout: 120
"""

RETURN = r"""
leases:
  description: The leases that have not expired, by address. Returned on failure too.
  returned: always
  type: list
  elements: dict
  contains:
    mac:
      description: MAC address of the guest's interface, in lower case.
      type: str
      sample: "52:54:00:03:e9:01"
    address:
      description: The leased address.
      type: str
      sample: 192.168.100.10
    hostname:
      description: Name of the VM that the address is reserved for, empty if that is unknown.
      type: str
      sample: web
    expires:
      description: When the lease ends, in seconds since 1970. 0 if never.
      type: int
      sample: 1795225315
"""

import os
import time
from ipaddress import IPv4Address
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _dnsmasq
from ansible_collections.cloudrepo.slices.plugins.module_utils._ipv4 import parse_mac
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name

POLL_SECONDS = 0.25


def run_module(module: AnsibleModule) -> None:
    if not is_name(module.params["slice"]):
        raise ValueError("slice %r: a name is %s" % (module.params["slice"], NAME_RULE))
    wait_for = [parse_mac(mac) for mac in module.params["wait_for"]]
    folder = os.path.join(module.params["state_dir"], module.params["slice"])
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        names = _dnsmasq.parse_hosts(_read(os.path.join(folder, _dnsmasq.HOSTS)))
        leases = _valid(_dnsmasq.parse_leases(_read(os.path.join(folder, _dnsmasq.LEASES))))
        leased = {lease.mac for lease in leases}
        missing = [mac for mac in wait_for if mac not in leased]
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    result = [_result(lease, names) for lease in leases]
    if missing:
        guests = ", ".join("%s (%s)" % (mac, names.get(mac, "not reserved")) for mac in missing)
        module.fail_json(msg="no lease after %d seconds: %s" % (module.params["timeout"], guests), leases=result)
    module.exit_json(changed=False, leases=result)


def _valid(leases: List[_dnsmasq.Lease]) -> List[_dnsmasq.Lease]:
    valid = [lease for lease in leases if lease.expires == 0 or lease.expires > time.time()]
    return sorted(valid, key=lambda lease: IPv4Address(lease.address))


def _result(lease: _dnsmasq.Lease, names: Dict[str, str]) -> Dict[str, Any]:
    # dnsmasq knows a name for one lease at a time, so that a VM's second interface takes it from its first.
    return {
        "mac": lease.mac,
        "address": lease.address,
        "hostname": names.get(lease.mac, lease.hostname),
        "expires": lease.expires,
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "slice": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/cloudrepo/dnsmasq"},
            "wait_for": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        run_module(module)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
