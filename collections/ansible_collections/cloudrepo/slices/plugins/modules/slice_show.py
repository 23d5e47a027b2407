#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_show
short_description: Show what the registry has, with what the workers say of their VMs
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Prints slices on the terminal, and hands them to C(set_stats), as M(cloudrepo.slices.slice_report) does.
  - It is delegated to the host that the registry is reached from, after M(cloudrepo.slices.slice_host_info) was
    registered as C(slices_host_info) on all hosts, with the registry's C(path) on that one and with O(slice) and
    C(vms) on all.
  - A warning names the workers that did not say which VMs they have.
  - Fails if the registry has nothing to be shown and a host carries what it should know.
options:
  slice:
    description: The one slice to show. All, if omitted.
    type: str
  registry_path:
    description: The registry's file.
    type: path
    required: true
  registry_host:
    description: The host that has told what the registry has.
    type: str
    required: true
  passwords:
    description:
      - Whether to read and print the passwords of the VMs' screens, of all slices whose passwords the user may see.
      - They are not part of the result.
    type: bool
    default: false
  admins:
    description: Who may see the passwords of all slices, as for M(cloudrepo.slices.slice_registry).
    type: list
    elements: str
    default: []
  output:
    description: What to print.
    type: str
    choices: [text, json]
    default: text
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: none
"""

EXAMPLES = r"""
- name: Ask the hosts
  cloudrepo.slices.slice_host_info:
    roles: "{{ ['worker'] * ('workers' in group_names) + ['network'] * ('network_node' in group_names) }}"
    registry_path: "{{ '/var/lib/cloudrepo/registry/slices.sqlite' if inventory_hostname == 'network1' else omit }}"
    vms: true
  become: true
  register: slices_host_info

- name: Show every slice
  cloudrepo.slices.slice_show:
    registry_path: /var/lib/cloudrepo/registry/slices.sqlite
    registry_host: network1
  delegate_to: network1
  become: true
  run_once: true
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
