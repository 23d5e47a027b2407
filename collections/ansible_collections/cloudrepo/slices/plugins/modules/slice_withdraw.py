#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_withdraw
short_description: Find out who has something of a slice, and note that it is being deleted
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - What M(cloudrepo.slices.slice_plan) is for a deploy, this is for a delete. It is delegated to the host that the
    registry is reached from, after M(cloudrepo.slices.slice_host_info) was registered as C(slices_host_info) on all
    hosts, with the registry's C(path) on that one and with O(slice) on all.
  - Fails, and notes nothing, if a host that has something of the slice gave no answer or is not part of the run.
  - Does nothing if the registry does not know the slice.
options:
  slice:
    description: The slice to delete.
    type: str
    required: true
  registry_path:
    description: The registry's file.
    type: path
    required: true
  registry_host:
    description: The host that has told what the registry has.
    type: str
    required: true
  lost_hosts:
    description: Hosts that are gone for good; what they had of the slice stays where it is.
    type: list
    elements: str
    default: []
  admins:
    description: Who may delete the slices of others, as for M(cloudrepo.slices.slice_registry).
    type: list
    elements: str
    default: []
  hold_timeout:
    description: Seconds after which others may go on without this run, as for M(cloudrepo.slices.slice_registry).
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
- name: Ask the hosts
  cloudrepo.slices.slice_host_info:
    roles: "{{ ['worker'] * ('workers' in group_names) + ['network'] * ('network_node' in group_names) }}"
    registry_path: "{{ '/var/lib/cloudrepo/registry/slices.sqlite' if inventory_hostname == 'network1' else omit }}"
    slice: web
  become: true
  register: slices_host_info

- name: Note that the slice is being deleted
  cloudrepo.slices.slice_withdraw:
    slice: web
    registry_path: /var/lib/cloudrepo/registry/slices.sqlite
    registry_host: network1
  delegate_to: network1
  become: true
  run_once: true
  register: withdrawn
"""

RETURN = r"""
known:
  description: Whether the registry knows the slice.
  returned: success
  type: bool
slice:
  description: The slice's C(id) and C(name); empty if it is not known.
  returned: success
  type: dict
hosts:
  description: The hosts that have something of it and answered; none if another run has deleted it meanwhile.
  returned: success
  type: list
  elements: str
unasked:
  description: The hosts that may have something of it and gave no answer, all of them lost for good.
  returned: success
  type: list
  elements: str
"""
