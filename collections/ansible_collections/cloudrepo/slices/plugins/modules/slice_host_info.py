#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_host_info
short_description: Tell what a worker or network node has, and what it lacks
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Finds the room that a host has for VMs, its cached base images, and what it lacks for its role.
  - It reads files and system calls only. It starts no process.
attributes:
  check_mode:
    description: It changes nothing anyway.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
options:
  roles:
    description: What the host is to be. It is asked for what both need if it is both.
    type: list
    elements: str
    choices: [worker, network]
    required: true
  base_dir:
    description: The folder of cached base images and of the slices' overlays. It may be missing.
    type: path
    default: ~/vm_images
  bridge:
    description: The integration bridge of Open vSwitch.
    type: str
    default: br-int
  user:
    description: The user as which a worker runs QEMU.
    type: str
    default: slices-qemu
  accelerator:
    description: What a worker shall run VMs with, as in M(cloudrepo.slices.qemu_vm). It is checked here.
    type: str
    default: auto
  vnc_listen:
    description: Where a worker shall serve the VMs' screens, as in M(cloudrepo.slices.qemu_vm). It is checked here.
    type: str
    default: 127.0.0.1
  vnc_passwords:
    description: Whether the screens ask for a password, without which only the loopback is allowed.
    type: bool
    default: false
  registry_path:
    description:
      - The file of the registry, which is read as well, for the host that has it.
      - That costs nearly nothing here, and a round of its own otherwise.
    type: path
  vms:
    description: Whether a worker is asked which VMs it has, too.
    type: bool
    default: false
  run_dir:
    description: The folder of the VMs' sockets and pidfiles.
    type: path
    default: /run/cloudrepo/vms
  slice:
    description: Only this slice's VMs, and only its record in the registry. Those of all slices by default.
    type: str
seealso:
  - module: cloudrepo.slices.slice_registry
  - module: cloudrepo.slices.qemu_vm_info
"""

EXAMPLES = r"""
- name: Ask a worker what it has
  cloudrepo.slices.slice_host_info:
    roles: [worker]
    base_dir: /var/lib/cloudrepo/vm_images
  register: info

- name: Stop at a host that is not prepared
  ansible.builtin.assert:
    that: info.host.missing | length == 0
    fail_msg: "{{ info.host.missing | join(', ') }}"
"""

RETURN = r"""
host:
  description: What the host has and what it lacks.
  returned: success
  type: dict
  contains:
    cores:
      description: Number of CPUs.
      type: int
      sample: 8
    memory_mb:
      description: Memory in MiB, whoever uses it.
      type: int
      sample: 32021
    disk_mb:
      description:
        - Room for overlays in MiB on the file system of O(base_dir).
        - It is what is free and what the overlays of all slices already occupy.
      type: int
      sample: 204800
    kvm:
      description: Whether V(/dev/kvm) can be opened.
      type: bool
      sample: true
    images:
      description: Virtual size in bytes of each base image that is wholly in the cache, by file name.
      type: dict
      sample:
        cirros-0.6.2-x86_64-disk.img: 117440512
    image_bytes:
      description: The size of the file of each of them, in bytes.
      type: dict
      sample:
        cirros-0.6.2-x86_64-disk.img: 21430272
    stamps:
      description:
        - The VMs and namespaces of slices on the host, with the IDs that were given to them.
        - A namespace does not tell the name of its slice.
        - It is JSON text of a list, as RV(registry) is text.
      type: str
      sample: >-
        [{"slice": "web", "vm": "db", "name": "VM web/db", "id": 1002},
        {"slice": "", "vm": "", "name": "slice-1000", "id": 1000}]
    missing:
      description: What the host lacks for its roles, empty if it is ready.
      type: list
      elements: str
      sample: ["bridge br-int does not exist"]
    wrong:
      description: The settings that a worker can't follow, as the role calls them. Empty if it can follow all.
      type: list
      elements: str
      sample: ["slices_accelerator is kvm, but /dev/kvm can't be opened"]
registry:
  description:
    - What the registry has, as M(cloudrepo.slices.slice_registry) returns it, as JSON text.
    - It is text because Ansible goes through each leaf of a structure several times for every task and host.
  returned: success, with O(registry_path)
  type: str
workers:
  description: On which workers each slice may have something, by its name.
  returned: success, with O(registry_path)
  type: dict
  sample: {"web": ["worker1", "worker2"]}
vms:
  description: The VMs, a list as M(cloudrepo.slices.qemu_vm_info) returns it, as JSON text like RV(registry).
  returned: success, with O(vms)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _host_info
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(AnsibleModule(argument_spec=_host_info.ARGUMENTS, supports_check_mode=True), _host_info.tell)


if __name__ == "__main__":
    main()
