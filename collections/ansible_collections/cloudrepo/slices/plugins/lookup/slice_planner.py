# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: slice_planner
short_description: Plan a slice, its VLANs, addresses and workers
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Computes everything that a slice gets, such as its VLAN pool, link VLANs, subnets, addresses, MACs, VNC ports
    and the worker of each VM.
  - A pure function of its arguments. It reads and writes nothing; equal arguments give an equal plan.
  - What O(registry) holds of a slice with the same name keeps its numbers. Only what is new gets new ones.
options:
  _terms:
    description:
      - The specs to plan, each against the same registry.
      - See C(ansible-doc -t role cloudrepo.slices.slice) for the keys.
    required: true
    type: list
    elements: dict
  owner:
    description: Owner of a slice whose spec and registry name none.
    type: str
    required: true
  flavors:
    description: The flavors, as in the role's option C(slices_flavors). Of two with one name the later counts.
    type: list
    elements: dict
    required: true
  workers:
    description:
      - The workers in the order of the inventory. Each has C(name), C(address), C(cores), C(memory_mb), C(disk_mb),
        C(images) (virtual size in bytes of each cached base image) and C(stamps) (what it carries of slices).
      - A stamp with an ID that the registry has not given out is refused, for the registry must have been lost.
      - A VM of the slice on a worker that is not to have it is removed there, as one that the spec no longer names.
      - A worker with a C(problem), for example C(is unreachable), gets no new VMs.
    type: list
    elements: dict
    required: true
  network_nodes:
    description:
      - The network nodes in the order of the inventory, each with C(name), C(address), C(problem) and C(stamps).
      - Each may have an C(internet_vlan) and an C(internet_subnet) of its own. Two on one VLAN are refused.
      - A new slice gets the one with the fewest slices, and keeps it.
    type: list
    elements: dict
    required: true
  registry:
    description: The registry, as M(cloudrepo.slices.slice_registry) reads it.
    type: dict
    required: true
  images:
    description: Virtual size in bytes of each base image on the controller.
    type: dict
    default: {}
  image_dir:
    description: The controller's folder of base images; for error messages.
    type: str
    default: /tmp/vm_images
  placement:
    description: The placement policy.
    type: str
    choices: [round_robin, packed, balanced]
    default: round_robin
  overcommit:
    description: How many times over C(cores), C(memory) and C(disk) of a worker may be promised.
    type: dict
    default: {}
  quota:
    description: How many VMs an owner may have.
    type: int
    default: 10
  quotas:
    description: Quotas of single owners, by name.
    type: dict
    default: {}
  internet_vlan:
    description: The VLAN of all internet interfaces, for network nodes that have none of their own.
    type: int
    default: 400
  internet_subnet:
    description: Its network, likewise.
    type: str
    default: 10.60.7.0/24
  reserved_vlans:
    description: VLANs that no pool may contain.
    type: list
    elements: int
    default: []
"""

EXAMPLES = r"""
- name: What would this slice get?
  ansible.builtin.debug:
    msg: "{{ lookup('cloudrepo.slices.slice_planner', spec, owner='alice', flavors=flavors, workers=workers,
      network_nodes=network_nodes, registry=snapshot.registry, images=images) }}"
"""

RETURN = r"""
_raw:
  description:
    - One plan for each spec. C(slice) is the record for the registry; C(hosts) has what each host must realize, by
      inventory name.
    - C(changed) says whether the record differs from the registry's. C(revision), C(next_id) and C(last_worker) go
      to the registry with it.
    - C(warnings) names the workers that were left out.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._netaddr import require_netaddr
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._planning import plan_from
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError


class LookupModule(LookupBase):
    """Options in, plans out."""

    def run(self, terms: list[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            require_netaddr()
            options = self.get_options()
            return [plan_from(term, options) for term in terms]
        except SpecError as error:
            raise AnsibleLookupError(str(error)) from error
