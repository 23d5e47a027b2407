#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_rebuild
short_description: Make a lost registry anew from what the hosts carry
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Puts together, on the controller, what M(cloudrepo.slices.slice_stamps_info) found on every host (registered as
    C(slices_stamps)), and has M(cloudrepo.slices.slice_registry) store it with V(state=rebuilt).
  - Must be delegated to the network node.
  - A slice all of whose VMs have their manifests is V(running) again, with every ID, VLAN, MAC address, address and
    port as it was. Any other is V(failed) with the reason. It keeps its numbers, and can be deleted.
  - What was only designed, or has no VM, has left nothing on any host and can't be restored.
    Nor can the IDs that were given out and are on no host any more, so these may be used again.
  - Fails if a host of the groups C(workers) and C(network_node) was not asked or did not answer, unless it is one of
    O(lost_hosts), if two hosts contradict each other, or if the registry holds slices. Then nothing is changed.
options:
  registry_path:
    description: The registry's file, unless C(slices_registry_url) says that it is none.
    type: path
    required: true
  admins:
    description: Users who may do this, where it is certain who asks.
    type: list
    elements: str
    default: []
  lost_hosts:
    description:
      - Workers that are gone for good. Nothing is expected from them, so no slice is known to be whole, and all are
        V(failed) until they are deployed again.
      - The next 10000 IDs are left out, for what such a worker may carry. VLANs and addresses that were used only there
        are free again.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
seealso:
  - module: cloudrepo.slices.slice_registry
"""

EXAMPLES = r"""
- name: Read what the hosts carry
  cloudrepo.slices.slice_stamps_info:
    base_dir: /var/lib/cloudrepo/vm_images
  become: true
  # slice_rebuild refuses if a host did not answer, naming it.
  ignore_unreachable: true
  ignore_errors: true
  register: slices_stamps

- name: Make the registry anew
  cloudrepo.slices.slice_rebuild:
    registry_path: /var/lib/cloudrepo/registry/slices.sqlite
  delegate_to: "{{ groups['network_node'][0] }}"
  become: true
  run_once: true
  register: rebuilt
"""

RETURN = r"""
slices:
  description: The restored slices, as M(cloudrepo.slices.slice_registry) returns them.
  returned: success
  type: list
  elements: dict
damaged:
  description: Where the damaged registry is kept now. V(none) if there was none.
  returned: success
  type: str
"""
