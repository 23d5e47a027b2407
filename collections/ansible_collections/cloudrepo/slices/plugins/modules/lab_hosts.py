#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: lab_hosts
short_description: Bring up or take down the hosts of the lab
version_added: "0.1.0"
description:
  - Runs several hosts on the machine that it is run on. Each host is a network, mount, PID, IPC and UTS namespace with
    its own init, file system (an overlay on that of the machine), SSH server and Open vSwitch.
  - Two bridges join them, C(slmgmt0) for management (10.0.10.0/24, the machine is 10.0.10.254) and C(sltrunk0) for
    VLANs. In each host the interfaces are named C(mgmt0) and C(trunk0).
  - A further host C(internet) (203.0.113.1) answers ping, HTTP and DNS as the outside world. A host with an uplink
    reaches it through its interface C(uplink0). Nothing of the lab has a route out of the machine.
  - Everything is recorded in O(path), and only what is recorded there is ever ended.
author:
  - cloudrepo contributors (@cloudrepo)
requirements:
  - Linux with overlayfs, root
  - iproute2, util-linux, openssh-server, openvswitch-switch, dnsmasq-base and sudo
attributes:
  check_mode:
    support: full
    description: Can run in check mode and say what would change without changing it.
  diff_mode:
    support: full
    description: Returns the names of the running hosts before and after.
  idempotent:
    support: full
    description: A second call changes nothing, unless a host has died in between.
options:
  state:
    description:
      - With V(present), the hosts that do not run are started, with the disk that they had.
      - With V(absent), all hosts are ended and their disks removed.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: Folder of the lab on the machine, with the hosts' disks, their SSH host keys and known_hosts.
    type: path
    default: /var/lib/cloudrepo-lab
  hosts:
    description: The hosts, apart from C(internet). Required with O(state=present).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the host, at most 11 characters.
        type: str
        required: true
      address:
        description: Its address in 10.0.10.0/24.
        type: str
        required: true
      uplink:
        description: Whether it has the uplink to C(internet). A second one is 203.0.113.3, and so on.
        type: bool
        default: false
  public_key:
    description: SSH public key that lets the user C(ubuntu) into the hosts. Required with O(state=present).
    type: str
  files:
    description:
      - Folder with C(lab_init.py), C(boot_host.sh) and C(boot_internet.sh) of the role
        P(cloudrepo.slices.lab#role). Required with O(state=present).
    type: path
"""

EXAMPLES = r"""
- name: Two hosts, one of them with an uplink
  cloudrepo.slices.lab_hosts:
    hosts:
      - {name: worker1, address: 10.0.10.1}
      - {name: network1, address: 10.0.10.4, uplink: true}
    public_key: "{{ lookup('ansible.builtin.file', '/var/cache/cloudrepo-lab/id_ed25519.pub') }}"
    files: "{{ role_path }}/files"

- name: No lab
  cloudrepo.slices.lab_hosts:
    state: absent
"""

RETURN = r"""
started:
  description: Names of the hosts that were started.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [internet, worker1, network1]
stopped:
  description: Names of the hosts that were ended. With O(state=present), those that O(hosts) does not name any more.
  returned: success
  type: list
  elements: str
  sample: [worker1]
pids:
  description: PID of the init of each running host, as the machine sees it.
  returned: always
  type: dict
  sample: {worker1: 4711}
"""

import os
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils._lab import Host, LabError, check_hosts
from ansible_collections.cloudrepo.slices.plugins.module_utils._lab_machine import Lab, exclusive
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "default": "/var/lib/cloudrepo-lab"},
            "hosts": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "uplink": {"type": "bool", "default": False},
                },
            },
            "public_key": {"type": "str", "no_log": False},
            "files": {"type": "path"},
        },
        required_if=[("state", "present", ("hosts", "public_key", "files"))],
        supports_check_mode=True,
    )
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        module.fail_json(msg="the lab needs Linux and root")
    hosts = [Host(**host) for host in module.params["hosts"] or []]
    path = Path(module.params["path"])
    try:
        check_hosts(hosts)
        with exclusive(path.parent):
            module.exit_json(**run(module, Lab(path, hosts)))
    except (LabError, CommandError, OSError) as error:
        module.fail_json(msg=str(error))


def run(module: AnsibleModule, lab: Lab) -> dict[str, object]:
    before = lab.running()
    if module.params["state"] == "absent":
        changed = not lab.is_down()
        if changed and not module.check_mode:
            lab.down()
        result: dict[str, object] = {"stopped": sorted(before)}
        after: list[str] = []
    else:
        missing, unwanted = lab.missing_hosts(), lab.unwanted_hosts()
        changed = bool(missing or unwanted or lab.missing_links())
        if changed and not module.check_mode:
            lab.up(module.params["public_key"].strip() + "\n", Path(module.params["files"]))
        result = {"started": missing, "stopped": unwanted}
        after = lab.names
    diff = {"before": {"running": sorted(before)}, "after": {"running": sorted(after)}}
    return {"changed": changed, "pids": lab.running(), "diff": diff, **result}


if __name__ == "__main__":
    main()
