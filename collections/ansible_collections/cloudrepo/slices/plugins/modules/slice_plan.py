#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_plan
short_description: Plan a slice from what the hosts and the registry hold
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Runs the lookup P(cloudrepo.slices.slice_planner#lookup) once on the controller, with what
    M(cloudrepo.slices.slice_host_info) found on every host (registered as C(slices_host_info)).
  - Hosts that are unreachable or not prepared get no new VMs; a warning names each.
  - Fails with one line if the slice can not be had. Nothing is changed anywhere.
options:
  spec:
    description: The spec, as M(cloudrepo.slices.slice_spec) returns it.
    type: dict
    required: true
  owner:
    description: Owner of a slice whose spec and registry name none.
    type: str
    required: true
  registry:
    description: The registry, as M(cloudrepo.slices.slice_registry) reads it.
    type: dict
    required: true
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
  design:
    description: Refuse a slice of which something may already run.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: none
    details: It changes nothing.
"""

EXAMPLES = r"""
- name: Plan the slice
  cloudrepo.slices.slice_plan:
    spec: "{{ wanted.spec }}"
    owner: "{{ wanted.owner }}"
    registry: "{{ snapshot.registry }}"
    flavors: "{{ slices_flavors }}"
    image_dir: /tmp/vm_images
  register: planned
"""

RETURN = r"""
plan:
  description: The plan, as the lookup returns it.
  returned: success
  type: dict
"""
