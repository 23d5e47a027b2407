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
  hosts:
    description:
      - Hosts on which M(cloudrepo.slices.slice_host) was registered as C(slices_realized). A warning names those that
        did not say which VMs they have.
      - If one of them failed, that is a O(reason). Needs O(slices), as that does.
    type: list
    elements: str
    default: []
  reason:
    description:
      - Why the first of O(slices) failed. Then the status that the registry is told is V(failed), with this reason, and
        the task fails after the report.
    type: str
    default: ""
  warn_pending:
    description: Whether to warn of each VM that waits for a restart, as a task that is not logged does not.
    type: bool
    default: false
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
- name: Show a slice
  cloudrepo.slices.slice_report:
    slices: ["{{ planned.record }}"]
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
