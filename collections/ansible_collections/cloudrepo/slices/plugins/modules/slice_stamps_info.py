#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_stamps_info
short_description: Tell what on a host belongs to which slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Reads everything on a worker or network node that is stamped with a slice, of all slices.
  - It is what M(cloudrepo.slices.slice_rebuild) makes a lost registry of.
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing anyway.
    support: none
  idempotent:
    description: Changes nothing anyway.
    support: full
options:
  base_dir:
    description: The folder of base images and disks, as in M(cloudrepo.slices.qemu_vm).
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of sockets and pidfiles, as in M(cloudrepo.slices.qemu_vm).
    type: path
    default: /run/cloudrepo/vms
  dnsmasq_dir:
    description: The folder of the slices' DHCP and DNS servers, as O(cloudrepo.slices.dnsmasq_dhcp#module:state_dir).
    type: path
    default: /var/lib/cloudrepo/dnsmasq
seealso:
  - module: cloudrepo.slices.slice_rebuild
"""

EXAMPLES = r"""
- name: See what a host carries of slices
  cloudrepo.slices.slice_stamps_info:
    base_dir: /var/lib/cloudrepo/vm_images
  register: slices_stamps
"""

RETURN = r"""
stamps:
  description: What the host carries.
  returned: success
  type: dict
  contains:
    vms:
      description: The VMs that have a manifest, a disk or a folder of their own.
      type: list
      elements: dict
      contains:
        slice:
          description: The slice whose folder that is in.
          type: str
        name:
          description: The VM's name.
          type: str
        record:
          description:
            - What O(cloudrepo.slices.qemu_vm#module:vms[].record) was.
            - V(none) if the manifest is lost or holds none.
          type: dict
      sample: [{"slice": "web", "name": "db", "record": null}]
    ports:
      description: The stamped ports in Open vSwitch.
      type: list
      elements: dict
      sample:
        - name: gw_vlan100
          vlan: 100
          slice: web
          slice_id: 1000
          owner: alice
          vlan_pool: {first: 100, size: 20}
          vm: null
    taps:
      description: The stamped TAPs, connected or not.
      type: list
      elements: dict
      sample: [{"name": "tap_1001_eth0", "slice": "web", "vm": "web"}]
    guests:
      description: The names that the slices' DNS servers know.
      type: list
      elements: dict
      sample: [{"slice": "web", "name": "web"}]
    namespaces:
      description: The slices' network namespaces.
      type: list
      elements: dict
      sample: [{"name": "slice-1000", "slice_id": 1000}]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _stamps
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_dir": {"type": "path", "default": "~/vm_images"},
            "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
            "dnsmasq_dir": {"type": "path", "default": "/var/lib/cloudrepo/dnsmasq"},
        },
        supports_check_mode=True,
    )
    folders = (os.path.abspath(module.params[name]) for name in ("base_dir", "run_dir", "dnsmasq_dir"))
    try:
        stamps = _stamps.scan(*folders)
    except (CommandError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, stamps=stamps)


if __name__ == "__main__":
    main()
