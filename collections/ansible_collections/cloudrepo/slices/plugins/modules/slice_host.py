#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_host
short_description: Make a host carry its whole share of a slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Does in one call what M(cloudrepo.slices.qcow_overlay), M(cloudrepo.slices.ovs_vlan),
    M(cloudrepo.slices.dnsmasq_dhcp), M(cloudrepo.slices.slice_nat) and M(cloudrepo.slices.qemu_vm) do,
    in this order, as far as the host's roles ask for it.
  - On a worker it begins with ports before the disks are there, and starts VMs before their ports are connected.
    No guest begins before that, and no port is connected or taken away unless the disks are there.
  - To remove a share it does so in the order VMs, disks, NAT, DHCP and ports.
  - The first of them that fails is the last one. What was done before it stays, but for VMs whose ports failed.
  - A call costs some tenths of a second on every host whatever it does, so one is better than five.
  - It sends no base images. M(cloudrepo.slices.qcow_overlay) has to come first where one is missing.
attributes:
  check_mode:
    description: Can run in check mode and says what would change.
    support: full
  diff_mode:
    description: Shows a diff for each kind of resource that changed.
    support: full
  idempotent:
    description: What is as wanted is not touched.
    support: full
options:
  slice:
    description: The slice's name.
    type: str
    required: true
  slice_id:
    description: The slice's ID, from which its network namespace has its name.
    type: int
    required: true
  owner:
    description: Whose slice it is, for the stamp on its ports.
    type: str
  vlan_pool:
    description: The slice's VLANs, for the stamp on its ports.
    type: dict
    suboptions:
      first:
        description: The first VLAN.
        type: int
        required: true
      size:
        description: Their number.
        type: int
        required: true
  state:
    description: Whether the host has its share, or nothing of the slice.
    type: str
    choices: [present, absent]
    default: present
  share:
    description:
      - What this host has of the slice, as P(cloudrepo.slices.slice_planner#lookup) returns it in C(hosts).
      - C(overlays), C(ports) and C(vms) are the options of that name of M(cloudrepo.slices.qcow_overlay),
        M(cloudrepo.slices.ovs_vlan) and M(cloudrepo.slices.qemu_vm). C(network) has C(namespace), C(domain),
        C(networks) and C(names) as M(cloudrepo.slices.dnsmasq_dhcp), and in C(internet) the slice's options of
        M(cloudrepo.slices.slice_nat). With C(retired) nothing is done here.
    type: dict
    default: {}
  purge:
    description: Whether whatever else the host has of the slice is removed. It always is for O(state=absent).
    type: bool
    default: false
  roles:
    description: What the host is there for.
    type: list
    elements: str
    choices: [worker, network]
    required: true
  bridge:
    description: The Open vSwitch bridge.
    type: str
    default: br-int
  base_dir:
    description: The folder of base images and disks.
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of the VMs' sockets and pidfiles.
    type: path
    default: /run/cloudrepo/vms
  state_dir:
    description: The folder of the slices' DHCP servers.
    type: path
    default: /var/lib/cloudrepo/dnsmasq
  user:
    description: The user that QEMU runs as. The disks and TAPs are that user's.
    type: str
    default: slices-qemu
  accelerator:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  vnc_listen:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: str
    default: 127.0.0.1
  vnc_passwords:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: dict
    default: {}
  nic_offload:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: bool
    default: true
  allow_restart:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: bool
    default: false
  internet_vlan:
    description: The VLAN of all internet interfaces.
    type: int
    default: 400
  internet_subnet:
    description: The network of all internet interfaces.
    type: str
    default: 10.60.7.0/24
  uplink:
    description: As in M(cloudrepo.slices.slice_nat).
    type: str
  protected_networks:
    description: As in M(cloudrepo.slices.slice_nat).
    type: list
    elements: str
    default: []
requirements:
  - what the modules named above require
seealso:
  - module: cloudrepo.slices.qcow_overlay
  - module: cloudrepo.slices.ovs_vlan
  - module: cloudrepo.slices.dnsmasq_dhcp
  - module: cloudrepo.slices.slice_nat
  - module: cloudrepo.slices.qemu_vm
"""

EXAMPLES = r"""
- name: Realize what the planner gave this host
  cloudrepo.slices.slice_host:
    slice: web
    slice_id: 1000
    roles: [worker]
    base_dir: /var/lib/cloudrepo/vm_images
    share: "{{ plan.hosts[inventory_hostname] }}"
    purge: true

- name: Take everything of the slice away
  cloudrepo.slices.slice_host:
    slice: web
    slice_id: 1000
    roles: [worker, network]
    base_dir: /var/lib/cloudrepo/vm_images
    state: absent
"""

RETURN = r"""
vms:
  description: The VMs of O(share), as M(cloudrepo.slices.qemu_vm) returns them.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "web", "pid": 4711, "status": "running", "console": "/run/cloudrepo/vms/web/web/console.sock"}]
pending:
  description: What waits for a restart that was not allowed. It is not counted as a change.
  returned: always
  type: list
  elements: str
  sample: ["vm web: cores 1 -> 2 needs a restart (slices_allow_restart=true)"]
"""

from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_host
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run, validated


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """What is answered does not say again what was asked: that has the length of the slice."""
    asked = {option: value for option, value in params.items() if option != "share"}
    share = validated(_ensure_host.SHARE, params["share"], "share")
    return {**_ensure_host.ensure({**params, "share": share}, check_mode), "invocation": {"module_args": asked}}


def main() -> None:
    run(AnsibleModule(argument_spec=_ensure_host.ARGUMENTS, supports_check_mode=True), ensure)


if __name__ == "__main__":
    main()
