#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_report
short_description: Record what came of a run, and show slices as text, JSON and statistics
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Prints slices on the terminal, and hands them to C(set_stats), where ansible-runner and AWX workflows read them
    as C(slices).
options:
  slices:
    description: The slices, as M(cloudrepo.slices.slice_registry) returns them.
    type: list
    elements: dict
    default: []
  outcome:
    description:
      - What the registry is told first, as options of M(cloudrepo.slices.slice_registry); the record that it returns is
        shown. Then the task must be delegated to the host that the registry is reached from.
      - It is tried three times, unless another run holds the slice.
    type: dict
    default: {}
  registry:
    description:
      - All slices of it are shown instead of O(slices); a mapping, or JSON text as M(cloudrepo.slices.slice_host_info)
        returns it.
    type: dict
    default: {}
  hosts:
    description: Hosts that said which VMs they have. A warning names those that did not.
    type: list
    elements: str
    default: []
  answers:
    description: In which variable their answers were registered.
    type: str
    default: slices_host_info
  pending:
    description: What waits for a restart; each is a warning.
    type: list
    elements: str
    default: []
  passwords:
    description: VNC passwords by slice and VM. They are printed, and are not part of the result.
    type: dict
    default: {}
  output:
    description: What to print.
    type: str
    choices: [text, json]
    default: text
  message:
    description: Print this instead of the topology.
    type: str
    default: ""
  failure:
    description: Fail with this message, after the report if there are O(slices).
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
"""

EXAMPLES = r"""
- name: Show every slice
  cloudrepo.slices.slice_report:
    registry: "{{ hostvars['network1'].slices_host_info.registry }}"
    hosts: "{{ groups['workers'] }}"
"""

RETURN = r"""
slices:
  description: The slices with C(pid), C(state) and C(console), the socket of its serial console, of each VM.
  returned: success
  type: list
  elements: dict
text:
  description: The topology as text.
  returned: success
  type: str
"""
