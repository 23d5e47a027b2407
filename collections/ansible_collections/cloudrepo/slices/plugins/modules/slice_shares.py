#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_shares
short_description: Tell what each host should have of every slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Cuts the registry's slices up by host, in the terms of the modules that realize them. Runs on the controller.
  - A slice that somebody works on has no shares, as nobody can say what it should have right now.
options:
  registry:
    description: The registry, as M(cloudrepo.slices.slice_registry) reads it.
    type: dict
    required: true
  slice:
    description: Only the shares of this slice. By default those of all slices.
    type: str
  internet_vlan:
    description: The VLAN of all internet interfaces.
    type: int
    default: 400
  internet_subnet:
    description: The network of all internet interfaces.
    type: str
    default: 10.60.7.0/24
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
seealso:
  - module: cloudrepo.slices.slice_audit_info
"""

EXAMPLES = r"""
- name: Cut the slices up
  cloudrepo.slices.slice_shares:
    registry: "{{ snapshot.registry }}"
  run_once: true
  register: shares
"""

RETURN = r"""
hosts:
  description: The shares of each host of the groups C(workers) and C(network_node), by inventory name.
  returned: success
  type: dict
known:
  description: Names and IDs of all slices, and the names of all their ports.
  returned: success
  type: dict
slices:
  description: The records of the slices that have shares.
  returned: success
  type: list
  elements: dict
findings:
  description: What the registry itself says that is off, such as a deploy that nobody finishes.
  returned: success
  type: list
  elements: dict
probes:
  description: The networks that M(cloudrepo.slices.slice_probe) probes, by host.
  returned: success
  type: dict
addresses:
  description: The addresses of all guests.
  returned: success
  type: list
  elements: dict
next_id:
  description: The registry's next ID. Whatever has a higher one was made before the registry was lost.
  returned: success
  type: int
notes:
  description: Slices without shares, and why.
  returned: success
  type: list
  elements: dict
"""
