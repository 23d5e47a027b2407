#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_spec
short_description: Find, read and check the spec of a slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Reads the spec of a slice from its file or from a variable, and checks it against the schema that
    C(ansible-doc -t role cloudrepo.slices.slice) prints.
  - Also checks that the inventory has workers and a network node. Nothing is asked of any host.
  - Errors are one line and name the item.
options:
  slice:
    description: Name of the slice. Without O(slice_spec), its spec is C(<slices_dir>/<slice>.yml).
    type: raw
  slice_spec:
    description: The spec itself, as a mapping or as YAML text.
    type: raw
  slices_dir:
    description: Folder of the specs on the controller. By default C(slices) beside the inventory.
    type: path
  flavors:
    description: The flavors that the spec may use; of two with one name the later counts.
    type: raw
  registry_host:
    description: The host that the registry is reached from, if it is not the first network node.
    type: str
  switches:
    description: Settings by their names, each of which has to be true or false.
    type: dict
    default: {}
  name_only:
    description: Only find out which slice is meant. Its spec need not exist.
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
- name: Read the spec of the slice web
  cloudrepo.slices.slice_spec:
    slice: web
    flavors: "{{ slices_flavors }}"
  register: wanted
"""

RETURN = r"""
name:
  description: Name of the slice.
  returned: success
  type: str
spec:
  description: The spec as the user wrote it, with its name, as JSON text.
  returned: unless O(name_only)
  type: str
owner:
  description: Who owns the slice if the spec does not say; the AWX user, else the login name.
  returned: unless O(name_only)
  type: str
"""
