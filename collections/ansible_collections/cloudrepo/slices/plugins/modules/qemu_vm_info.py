#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_vm_info
short_description: Tell which VMs a host has and how they are
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Reads the VMs' manifests and asks each QEMU over QMP. It starts no process and changes nothing.
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
  slice:
    description: Only the VMs of this slice. By default those of all slices.
    type: str
  base_dir:
    description: The folder of base images and disks, as in M(cloudrepo.slices.qemu_vm).
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of sockets and pidfiles, as in M(cloudrepo.slices.qemu_vm).
    type: path
    default: /run/cloudrepo/vms
seealso:
  - module: cloudrepo.slices.qemu_vm
"""

EXAMPLES = r"""
- name: See which VMs run on this worker
  cloudrepo.slices.qemu_vm_info:
    base_dir: /var/lib/cloudrepo/vm_images
  register: found
"""

RETURN = r"""
vms:
  description: The VMs, by slice and name.
  returned: success
  type: list
  elements: dict
  contains:
    slice:
      description: The VM's slice.
      type: str
    name:
      description: The VM's name.
      type: str
    id:
      description: The VM's ID. None if its manifest was lost.
      type: int
    pid:
      description: The process of its QEMU, None if it has none.
      type: int
    status:
      description:
        - What QMP says, so V(running) only if the machine runs.
        - V(stopped) without a process, V(unresponsive) if there is one that does not answer.
      type: str
    vnc_port:
      description: TCP port of its screen. None if its manifest was lost.
      type: int
    console:
      description: The socket of its serial console.
      type: str
    limits:
      description:
        - What its QEMU may use at most, as the files of its group of cgroups v2 say.
        - None if it is under no limits, as on a host without cgroups v2.
      type: dict
  sample:
    - slice: web
      name: web
      id: 1001
      pid: 4711
      status: running
      vnc_port: 5901
      console: /run/cloudrepo/vms/web/web/console.sock
      limits: {cpu.max: 150000 100000, memory.max: "1073741824", pids.max: "129"}
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import normal_path
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import running


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "slice": {"type": "str"},
            "base_dir": {"type": "path", "default": "~/vm_images"},
            "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
        },
        supports_check_mode=True,
    )
    only = module.params["slice"]
    if only is not None and not is_name(only):
        module.fail_json(msg='slice "%s": the name must be %s' % (only, NAME_RULE))
    try:
        base_dir, run_dir = (normal_path(option, module.params[option]) for option in ("base_dir", "run_dir"))
        found = running(base_dir, run_dir, only)
    except (ItemError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, vms=found)


if __name__ == "__main__":
    main()
