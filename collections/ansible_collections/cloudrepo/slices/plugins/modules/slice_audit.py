#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_audit
short_description: Report what the audit of all hosts found
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Prints what is off as text or JSON, writes JUnit XML, and hands all of it to C(set_stats), where ansible-runner and
    AWX workflows read it as C(audit). Runs on the controller.
options:
  shares:
    description: What M(cloudrepo.slices.slice_shares) returned.
    type: dict
    required: true
  shares_again:
    description:
      - The same, of the registry as it was once the hosts had been looked at.
      - What changed meanwhile is not judged.
    type: dict
    required: true
  slice:
    description:
      - The one slice that was asked for.
      - One that the registry does not know, and that nothing carries the stamp of, is an error.
    type: str
  audited:
    description: What M(cloudrepo.slices.slice_audit_info) returned, by host. A host without a result is reported.
    type: dict
    required: true
  probed:
    description: What M(cloudrepo.slices.slice_probe) returned, by host.
    type: dict
    default: {}
  removed:
    description: What M(cloudrepo.slices.slice_orphans) returned, by host.
    type: dict
    default: {}
  remove:
    description: Whether the orphans were to be removed.
    type: bool
    default: false
  output:
    description: What to print.
    type: str
    choices: [text, json]
    default: text
  junit:
    description: Write JUnit XML to this file of the controller.
    type: path
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
- name: Say what is off
  cloudrepo.slices.slice_audit:
    shares: "{{ shares }}"
    audited: {worker1: "{{ audited }}"}
    junit: /tmp/audit.xml
  register: audit
"""

RETURN = r"""
sound:
  description: Whether nothing is off.
  returned: success
  type: bool
failure:
  description: What is off, in one line.
  returned: success
  type: str
  sample: 3 drifts, 2 orphans, 0 failed probes
"""
