#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_orphans
short_description: Remove what belongs to no slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Removes those of the orphans that M(cloudrepo.slices.slice_audit_info) found which are orphans still. The host is
    looked at again first, with what belongs to somebody now, and under the locks of the modules that realize slices.
  - Nothing is removed that belongs to a slice which got its ID after the registry was read, or is shared with one.
    While Open vSwitch does not answer, nothing is removed at all.
  - Runs the very commands that the audit names, without a shell.
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: none
    details: What is removed is returned.
  idempotent:
    description: What is gone is not removed again.
    support: full
options:
  orphans:
    description: The orphans that were found. Nothing else is removed.
    type: list
    elements: dict
    required: true
  known:
    description: What belongs to somebody now. Nothing of that is removed.
    type: dict
    required: true
    suboptions:
      names:
        description: The names of all slices.
        type: list
        elements: str
        default: []
      ids:
        description: Their IDs.
        type: list
        elements: int
        default: []
      ports:
        description: The names of all their ports, on whatever host.
        type: list
        elements: str
        default: []
  next_id:
    description: The ID that the registry would have given out next. A slice that has it, or a higher one, is new.
    type: int
    required: true
  roles:
    description: What the host is there for.
    type: list
    elements: str
    choices: [worker, network]
    required: true
  bridge:
    description: The Open vSwitch bridge.
    type: str
    default: br-int
  base_dir:
    description: The folder of base images and disks.
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of the VMs' sockets and pidfiles.
    type: path
    default: /run/cloudrepo/vms
  state_dir:
    description: The folder of the slices' DHCP servers.
    type: path
    default: /var/lib/cloudrepo/dnsmasq
seealso:
  - module: cloudrepo.slices.slice_audit_info
"""

EXAMPLES = r"""
- name: Remove what belongs to nobody
  cloudrepo.slices.slice_orphans:
    orphans: "{{ audited.orphans }}"
    known: "{{ shares.known }}"
    next_id: "{{ shares.next_id }}"
    roles: [worker]
    base_dir: /var/lib/cloudrepo/vm_images
"""

RETURN = r"""
removed:
  description: The orphans that are gone, as M(cloudrepo.slices.slice_audit_info) described them.
  returned: success
  type: list
  elements: dict
errors:
  description: Why the others are still there; one message each.
  returned: success
  type: list
  elements: str
"""

from contextlib import nullcontext
from typing import Any, List, Mapping, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _audit_host, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import Finding, as_dicts


def _chosen(
    params: Mapping[str, Any], found: _audit_host.Scan, place: _audit_host.Place
) -> Tuple[List[Finding], List[str]]:
    """The orphans that are still some, and why others stay."""
    known = _audit_host.known(params["known"])
    newer = _audit_host.newcomers(found, place, params["next_id"]) - known.names
    orphans = _audit_host.orphans(found, known._replace(names=known.names | newer), place)
    return _audit_host.chosen(orphans, params["orphans"]), _audit_host.kept(newer, params["orphans"])


def run_module(module: AnsibleModule) -> None:
    params = module.params
    place = _audit_host.place(params)
    with nullcontext() if module.check_mode else _audit_host.held(place, params["orphans"]):
        found, problems = _audit_host.scan(place)
        errors = ["%s: %s" % (problem.item, problem.message) for problem in problems]
        removed, kept = _chosen(params, found, place) if found.has_ports else ([], [])
        errors += kept
        if not module.check_mode:
            removed, failed = _audit_host.remove(removed)
            errors += failed
    module.exit_json(changed=bool(removed), removed=as_dicts(removed), errors=errors)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "orphans": {"type": "list", "elements": "dict", "required": True},
            "known": {"type": "dict", "required": True, "options": _specs.KNOWN},
            "next_id": {"type": "int", "required": True},
            **_specs.PLACE,
        },
        supports_check_mode=True,
    )
    try:
        run_module(module)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
