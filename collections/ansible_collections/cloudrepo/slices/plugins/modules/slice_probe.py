#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_probe
short_description: Prove that links pass and nothing else does
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Asks by ARP, on each VLAN, for the guests that are on it and for those that are not. The former have to answer with
    their MAC address, the latter must not. Nothing is needed in the guests.
  - The frames go through a port of their own on the bridge, which is there for a few seconds. They have no sender
    address, so that nobody remembers them.
attributes:
  check_mode:
    description: Probes nothing.
    support: full
  diff_mode:
    description: Changes nothing that lasts.
    support: none
  idempotent:
    description: Changes nothing that lasts.
    support: full
options:
  networks:
    description: The VLANs to probe from this host, as M(cloudrepo.slices.slice_shares) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      slice:
        description: Whose VLAN it is; empty for one that slices share.
        type: str
        required: true
      name:
        description: How results call it.
        type: str
        required: true
      vlan:
        description: Its number.
        type: int
        required: true
      members:
        description: The MAC addresses that may answer on it.
        type: list
        elements: str
        default: []
      guests:
        description: Who has to answer.
        type: list
        elements: dict
        default: []
        suboptions: &address
          slice:
            description: The guest's slice.
            type: str
            required: true
          name:
            description: Its VM and interface.
            type: str
            required: true
          address:
            description: Its IPv4 address.
            type: str
            required: true
          mac:
            description: Its MAC address.
            type: str
            required: true
      silence:
        description: Why nobody has to answer, if so.
        type: str
        default: ""
  addresses:
    description: The addresses of all guests, on whatever VLAN.
    type: list
    elements: dict
    default: []
    suboptions: *address
  slice:
    description: Only what concerns this slice.
    type: str
  bridge:
    description: The Open vSwitch bridge.
    type: str
    default: br-int
seealso:
  - module: cloudrepo.slices.slice_audit
"""

EXAMPLES = r"""
- name: Do the links pass?
  cloudrepo.slices.slice_probe:
    networks: "{{ shares.probes[inventory_hostname] }}"
    addresses: "{{ shares.addresses }}"
  register: probed
"""

RETURN = r"""
probes:
  description: What was probed, and what came of it.
  returned: success
  type: list
  elements: dict
  contains:
    slice:
      description: Whose VLAN it is.
      type: str
    name:
      description: What was probed.
      type: str
    message:
      description: What came of it.
      type: str
    failed:
      description: Whether that is not as it should be.
      type: bool
    skipped:
      description: Why it was not probed, if so.
      type: str
  sample:
    - slice: web
      name: "link 1, VLAN 100: db eth1 (192.168.100.11)"
      message: answers
      failed: false
      skipped: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _probe, _probe_host
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_interface_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError


def run_module(module: AnsibleModule) -> None:
    networks, addresses, only = (module.params[name] for name in ("networks", "addresses", "slice"))
    if not is_interface_name(module.params["bridge"]):
        raise ValueError("bridge %r is not the name of a bridge" % module.params["bridge"])
    asked = _probe.questions(networks, addresses, only)
    if module.check_mode or not asked:
        module.exit_json(changed=False, probes=[])
    answers = _probe_host.ask(module.params["bridge"], asked)
    module.exit_json(changed=False, probes=_probe.judge(networks, addresses, only, answers))


def main() -> None:
    address = {
        "slice": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "mac": {"type": "str", "required": True},
    }
    network = {
        "slice": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "vlan": {"type": "int", "required": True},
        "members": {"type": "list", "elements": "str", "default": []},
        "guests": {"type": "list", "elements": "dict", "default": [], "options": address},
        "silence": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "dict", "required": True, "options": network},
            "addresses": {"type": "list", "elements": "dict", "default": [], "options": address},
            "slice": {"type": "str"},
            "bridge": {"type": "str", "default": "br-int"},
        },
        supports_check_mode=True,
    )
    try:
        run_module(module)
    except (CommandError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
