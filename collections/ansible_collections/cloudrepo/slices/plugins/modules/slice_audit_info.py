#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_audit_info
short_description: Tell in what a host differs from what its slices should have there
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Compares a host with its shares of all slices. What the modules that realize a slice would change is what is off.
  - Names what is stamped with a slice that is not known, and what has a name of ours and belongs to none, with the
    commands that remove it.
  - Reads the host once, whatever the number of slices, and changes nothing.
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
options:
  slices:
    description:
      - The shares of the host, as M(cloudrepo.slices.slice_shares) returns them.
      - Each has C(name), C(id), C(owner) and C(vlan_pool).
      - C(overlays), C(ports) and C(vms) are the options of that name of M(cloudrepo.slices.qcow_overlay),
        M(cloudrepo.slices.ovs_vlan) and M(cloudrepo.slices.qemu_vm). C(network) has C(namespace), C(domain),
        C(networks) and C(names) as M(cloudrepo.slices.dnsmasq_dhcp), and in C(internet) the slice's options of
        M(cloudrepo.slices.slice_nat).
      - Of one that is not C(present) nothing should be on this host.
    type: list
    elements: dict
    default: []
  known:
    description: What belongs to somebody. Whatever else is ours is an orphan.
    type: dict
    default: {}
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
  slice:
    description: Only orphans with this slice's stamp.
    type: str
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
  user:
    description: The user that QEMU runs as.
    type: str
    default: slices-qemu
  accelerator:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  vnc_listen:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: str
    default: 127.0.0.1
  vnc_passwords:
    description: Whether every VM's screen asks for a password.
    type: bool
    default: false
  nic_offload:
    description: As in M(cloudrepo.slices.qemu_vm).
    type: bool
    default: true
  internet_vlan:
    description: The VLAN of all internet interfaces.
    type: int
    default: 400
  internet_subnet:
    description: The network of all internet interfaces.
    type: str
    default: 10.60.7.0/24
  uplink:
    description: As in M(cloudrepo.slices.slice_nat).
    type: str
  protected_networks:
    description: As in M(cloudrepo.slices.slice_nat).
    type: list
    elements: str
    default: []
seealso:
  - module: cloudrepo.slices.slice_audit
  - module: cloudrepo.slices.slice_orphans
"""

EXAMPLES = r"""
- name: Is everything of the slices on this host as it should be?
  cloudrepo.slices.slice_audit_info:
    slices: "{{ shares.hosts[inventory_hostname] }}"
    known: "{{ shares.known }}"
    roles: [worker]
    base_dir: /var/lib/cloudrepo/vm_images
  register: audited
"""

RETURN = r"""
findings:
  description: What differs from what is wanted.
  returned: success
  type: list
  elements: dict
  contains: &finding
    slice:
      description: The slice; empty if it is about none.
      type: str
    kind:
      description: The kind of resource, such as V(vm), V(disk), V(port).
      type: str
    item:
      description: Its name.
      type: str
    message:
      description: What is wrong with it.
      type: str
    field:
      description: The field that differs, if it is one.
      type: str
    found:
      description: What the field is.
      type: raw
    wanted:
      description: What it should be.
      type: raw
    commands:
      description: Argument lists of the commands that remove it, where that is the remedy.
      type: list
      elements: list
  sample:
    - slice: web
      kind: port
      item: tap_1001_eth1
      message: vlan is 101, should be 100
      field: vlan
      found: 101
      wanted: 100
      commands: []
orphans:
  description: What belongs to no slice that is known.
  returned: success
  type: list
  elements: dict
  contains: *finding
stamps:
  description: What tells which IDs were given out, the list that M(cloudrepo.slices.slice_host_info) returns as text.
  returned: success
  type: list
  elements: dict
  sample: [{"slice": "web", "name": "VM web/db", "id": 1002}]
checked:
  description: How many resources were looked at, by slice and kind.
  returned: success
  type: dict
  sample: {"web": {"port": 2, "disk": 1, "image": 1, "vm": 1}}
"""

from typing import Any, Dict, List, Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _audit_host, _host, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import as_dicts
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import validated
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_name


def parse_shares(shares: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """The shares with all that their modules' options have.

    Raises:
        ValueError: one is wrong.
    """
    parsed = [validated(_specs.SHARE, share, "slices") for share in shares]
    for share in parsed:
        if not is_name(share["name"]):
            raise ValueError("slices: %r is not the name of a slice" % share["name"])
    return parsed


def run_module(module: AnsibleModule) -> None:
    params = module.params
    shares = parse_shares(params["slices"])
    place = _audit_host.place(params)
    settings = _audit_host.Settings(**{field: params[field] for field in _audit_host.Settings._fields})
    found, problems = _audit_host.scan(place)
    report = _audit_host.judge(shares, _audit_host.Look(place, settings, found))
    orphans = _audit_host.orphans(found, _audit_host.known(params["known"]), place)
    module.exit_json(
        changed=False,
        findings=as_dicts([*problems, *report.findings]),
        orphans=as_dicts(_audit_host.stamped(orphans, params["slice"])),
        stamps=_host.stamps(place.base_dir),
        checked=report.checked,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "slices": {"type": "list", "elements": "dict", "default": []},
            "known": {"type": "dict", "default": {}, "options": _specs.KNOWN},
            "slice": {"type": "str"},
            **_specs.PLACE,
            "user": {"type": "str", "default": "slices-qemu"},
            "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
            "vnc_listen": {"type": "str", "default": "127.0.0.1"},
            "vnc_passwords": {"type": "bool", "default": False},
            "nic_offload": {"type": "bool", "default": True},
            "internet_vlan": {"type": "int", "default": 400},
            "internet_subnet": {"type": "str", "default": "10.60.7.0/24"},
            "uplink": {"type": "str"},
            "protected_networks": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        run_module(module)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
