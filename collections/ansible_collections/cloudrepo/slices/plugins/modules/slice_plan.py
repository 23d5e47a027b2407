#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_plan
short_description: Plan a slice and reserve its numbers
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Plans with the lookup P(cloudrepo.slices.slice_planner#lookup) on the controller, from what
    M(cloudrepo.slices.slice_host_info) found on every host (registered as C(slices_host_info)) and what the registry
    holds, and has M(cloudrepo.slices.slice_registry) write the plan in one transaction.
  - If another run changed the registry in between, nothing is written and the slice is planned again.
  - Must be delegated to the host that the registry is reached from.
  - Hosts that are unreachable or not prepared get no new VMs; a warning names each.
  - Fails with one line if the slice can not be had. Then nothing is changed anywhere.
options:
  spec:
    description: The spec, as M(cloudrepo.slices.slice_spec) returns it.
    type: dict
    required: true
  owner:
    description: Owner of a slice whose spec and registry name none.
    type: str
    required: true
  status:
    description: The status that the slice gets. V(design) is refused if something of it may already run.
    type: str
    choices: [design, deploying]
    required: true
  registry_path:
    description: The registry's file, unless C(slices_registry_url) says that it is none.
    type: path
    required: true
  registry_host:
    description:
      - The host of the registry, of which C(slices_host_info) may have what it holds.
      - By default, the registry is read anew.
    type: str
  flavors:
    description: The flavors; of two with one name the later counts.
    type: list
    elements: dict
    required: true
  image_dir:
    description: Folder of the base images on the controller.
    type: path
    required: true
  settings:
    description: Further options of the lookup, for example C(quota).
    type: dict
    default: {}
  admins:
    description: Users who may change slices that others own.
    type: list
    elements: str
    default: []
  hold_timeout:
    description: How many seconds the slice is held by a run of which nothing is heard.
    type: int
    default: 900
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
"""

EXAMPLES = r"""
- name: Plan the slice and reserve its numbers
  cloudrepo.slices.slice_plan:
    spec: "{{ wanted.spec }}"
    owner: "{{ wanted.owner }}"
    status: deploying
    registry_path: /var/lib/cloudrepo/registry/slices.sqlite
    flavors: "{{ slices_flavors }}"
    image_dir: /tmp/vm_images
  delegate_to: network1
  register: planned
"""

RETURN = r"""
slice:
  description: The slice's ID, name, owner, VLAN pool, and whether it has ever run.
  returned: success
  type: dict
record:
  description:
    - The slice's record as the registry has it, as JSON text. What grows with the slice is text, because Ansible goes
      through each leaf of a structure several times for every task and host.
  returned: success
  type: str
shares:
  description:
    - What each host gets, by host, as JSON text, which is what O(cloudrepo.slices.slice_host#module:share) takes.
  returned: success
  type: dict
leaving:
  description: The VMs that the spec no longer names, by name.
  returned: success
  type: list
  elements: str
lacking_images:
  description: The base images that workers have not got and their disks need, by worker.
  returned: success
  type: dict
reserved_at:
  description: When that was, in seconds since 1970.
  returned: success
  type: float
late_from:
  description:
    - From when on, in seconds since 1970, the run should make sure that it still holds the slice before it goes on.
      That is half of O(hold_timeout) later.
  returned: success
  type: float
"""
