#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qcow_overlay
short_description: Give a slice's VMs their disks, as qcow2 overlays on cached base images
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Each disk is a qcow2 image that holds only what its VM has written, on top of a base image that many VMs share.
  - A base image that the host lacks is sent from the controller, once, however many disks need it.
    It goes to a temporary name, is compared with the controller's size and SHA-256, and only then gets its name.
    One that the host has is not sent again, and is checked by its size alone.
  - An existing disk is never overwritten. It can grow, and can't shrink or get another base image.
    The disk of a running VM is grown by its QEMU, and the guest sees it at once.
  - A base image with a backing file or an external data file of its own is refused.
  - The module writes nothing but the base images it was sent, their records,
    and files named C(NAME_img.qcow2) in the slice's own folder.
attributes:
  check_mode:
    description: Predicts the result. Nothing is sent.
    support: full
  diff_mode:
    description: Shows the base images that are new, and the changed disks with image, size in bytes, owner and mode.
    support: full
  idempotent:
    description: Disks that are as wanted are not touched.
    support: full
options:
  slice:
    description: The slice whose disks these are.
    type: str
    required: true
  overlays:
    description: The disks.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The VM's name, unique within the slice.
        type: str
        required: true
      image:
        description:
          - File name of the base image, without a folder. It can be qcow2 or raw.
          - Required for O(state=present).
        type: str
      size_gb:
        description:
          - Virtual size in GiB, rounded up to whole MiB. It can't be less than the base image's.
          - Required for O(state=present).
        type: float
  state:
    description:
      - V(present) creates the disks that are missing and grows those that are too small.
      - V(absent) removes the disks, and the slice's folder once it is empty. Base images stay in the cache.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - With O(state=present), remove the slice's disks that are not listed.
      - With O(state=absent), remove all disks of the slice, listed or not.
    type: bool
    default: false
  base_dir:
    description:
      - The host's folder of base images. A slice's disks are in a folder of the slice's name in it.
      - An image that was put there by hand is used as it is.
      - QEMU's user must be able to enter it, which the default in root's home does not allow.
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of the VMs' sockets, as in M(cloudrepo.slices.qemu_vm). Disks in use grow through these.
    type: path
    default: /run/cloudrepo/vms
  image_dir:
    description: The controller's folder of base images.
    type: path
    default: /tmp/vm_images
  owner:
    description:
      - The user to whom the disks belong, with mode V(0600). It is the user as whom QEMU runs.
      - By default the user as whom the module runs.
    type: str
  _missing:
    description:
      - The base images that the host is known to lack, so that they are sent before it says so. The role's own.
    type: list
    elements: str
    default: []
  _incoming:
    description:
      - What the action plugin has sent. It sets this itself; what a task says here is ignored.
    type: dict
    default: {}
requirements:
  - qemu-img on the host
seealso:
  - module: cloudrepo.slices.qemu_vm
"""

EXAMPLES = r"""
- name: Give two VMs their disks
  cloudrepo.slices.qcow_overlay:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    owner: slices-qemu
    overlays:
      - {name: web, image: cirros-0.6.2-x86_64-disk.img, size_gb: 1}
      - {name: db, image: focal-server-cloudimg-amd64.img, size_gb: 2.2}
    purge: true

- name: Remove all disks of a slice
  cloudrepo.slices.qcow_overlay:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    state: absent
    purge: true
"""

RETURN = r"""
images:
  description: Size in bytes of each base image that is used, by file name.
  returned: O(state=present)
  type: dict
  sample: {"cirros-0.6.2-x86_64-disk.img": 21430272}
pending:
  description: What has to wait until a VM is off, as its QEMU does not answer. It is not counted as a change.
  returned: success
  type: list
  elements: str
  sample: ["overlay web: size 1 GiB -> 2 GiB needs its VM to be off"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_overlays
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(AnsibleModule(argument_spec=_ensure_overlays.ARGUMENTS, supports_check_mode=True), _ensure_overlays.ensure)


if __name__ == "__main__":
    main()
