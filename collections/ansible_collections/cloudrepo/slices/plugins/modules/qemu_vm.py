#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_vm
short_description: Start, stop and remove a slice's VMs
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Each VM is one QEMU process that runs as an unprivileged user with QEMU's sandbox on.
    Its disk comes from M(cloudrepo.slices.qcow_overlay), its TAPs from M(cloudrepo.slices.ovs_vlan).
  - A VM is known by a manifest beside its disk, its process by the QMP socket and the pidfile in the VM's own folder.
    No process is looked for by name, and none gets a signal whose command line does not name that pidfile.
  - Up to 64 VMs are started, and 32 stopped, at a time.
    If some fail, the others go on, and the error names each that failed.
  - In its folder, C(RUN_DIR/SLICE/VM), each VM has its serial console as a socket, C(console.sock), QEMU's
    messages in C(qemu.log), and QMP in C(qmp.sock), which talks to one client at a time.
  - What a VM prints on its serial console is kept beside its disk in C(VM.console.log), until the VM is removed.
    A log of more than 16 MiB is emptied when the VM is started. It may be emptied at any time, as QEMU appends.
  - A VM whose disk was deleted goes on with what nobody else sees, also if there is a new disk of that name.
    It has to be restarted, see O(allow_restart).
  - Where the host has cgroups v2 with the controllers cpu, memory and pids, each QEMU is in a group of its own,
    C(cloudrepo/SLICE.VM). It may use its virtual CPUs and half a core more, its guest's memory and 512 MiB more, and
    as many threads as it has virtual CPUs and 128 more.
  - A running VM whose TAP was deleted has lost it for good, also if there is a TAP of that name again.
    It has to be restarted, see O(allow_restart).
  - Interfaces have fixed places in the guest, in the order of the list. A guest sees them in that order.
attributes:
  check_mode:
    description: Predicts the result. That disks and TAPs are there is not asked, as another task may create them.
    support: full
  diff_mode:
    description: Shows the configuration and status of the changed VMs.
    support: full
  idempotent:
    description: VMs that run as wanted are not touched. One that crashed, or was lost with the host's, is started.
    support: full
options:
  slice:
    description: The slice whose VMs these are.
    type: str
    required: true
  vms:
    description: The VMs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The VM's name, unique within the slice.
        type: str
        required: true
      id:
        description:
          - The VM's ID, kept in its manifest.
          - Required for O(state=started).
        type: int
      cores:
        description:
          - Number of virtual CPUs.
          - Required for O(state=started).
        type: int
      memory_mb:
        description:
          - Memory in MiB.
          - Required for O(state=started).
        type: int
      vnc_port:
        description:
          - TCP port of the VM's screen, 5900 or higher.
          - Required for O(state=started).
        type: int
      interfaces:
        description: The VM's network interfaces, in the guest's order. At most 24.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The interface's name, unique within the VM.
            type: str
            required: true
          tap:
            description: The TAP that it is connected to. It must exist and belong to O(user).
            type: str
            required: true
          mac:
            description: Its MAC address.
            type: str
            required: true
          connected:
            description: Whether the guest sees a link. This is changed while the VM runs.
            type: bool
            default: true
      record:
        description:
          - What else the VM's manifest is to hold, so that a lost registry can be made anew from the hosts,
            with M(cloudrepo.slices.slice_rebuild). The role gives the registry's record of the VM and of its links.
          - It is not looked into, and changed while the VM runs.
        type: dict
  state:
    description:
      - V(started) starts the VMs that do not run, and resumes those that are paused.
      - V(stopped) stops the VMs that run. They keep their manifest and their disk.
      - V(absent) stops the VMs at once and removes all but their disks. Where there is no disk,
        the slice's folder of disks goes too.
    type: str
    choices: [started, stopped, absent]
    default: started
  purge:
    description:
      - With O(state=started) and O(state=stopped), remove the slice's VMs that are not listed.
      - With O(state=absent), remove all VMs of the slice, listed or not.
    type: bool
    default: false
  allow_restart:
    description:
      - Whether a running VM may be restarted to take over a change. Only the links of its interfaces and its
        record change without.
      - If not, the change is reported in RV(pending), and made when the VM is started the next time.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that guests have, all together, to shut down once their ACPI power button was pressed.
        Then QEMU is told to quit.
      - With O(state=absent), and for VMs that are purged, guests are not asked, as their disks go too.
    type: int
    default: 10
  base_dir:
    description: The folder of base images and disks, as in M(cloudrepo.slices.qcow_overlay).
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of sockets, pidfiles and logs.
    type: path
    default: /run/cloudrepo/vms
  user:
    description: The user as whom QEMU runs. It gets the group C(kvm) if there is one.
    type: str
    default: slices-qemu
  accelerator:
    description:
      - V(kvm) needs a host with hardware virtualization, V(tcg) runs everywhere, slowly.
      - V(auto) takes KVM if O(user) can really make a virtual CPU with it, else TCG.
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  vnc_listen:
    description:
      - The IP address on which the VMs' screens are served.
      - One that others can reach is refused for a VM that has no password in O(vnc_passwords).
    type: str
    default: 127.0.0.1
  vnc_passwords:
    description:
      - The password of each VM's screen by the VM's name, 1 to 8 ASCII characters.
        A VM that has none here asks for none.
      - A new password is set while the VM runs. That there is one at all, or none any more, needs a restart.
      - A password is handed to QEMU over QMP and written nowhere on the host.
        Give the task C(no_log), as some callbacks record the arguments of tasks.
    type: dict
    default: {}
  nic_offload:
    description:
      - Whether guests may leave checksums and segmentation to the host.
      - Open vSwitch's userspace datapath needs V(false), as it would pass on packets without checksums.
    type: bool
    default: true
requirements:
  - qemu-system-x86_64 and setpriv on the host
seealso:
  - module: cloudrepo.slices.qcow_overlay
  - module: cloudrepo.slices.ovs_vlan
  - module: cloudrepo.slices.qemu_vm_info
"""

EXAMPLES = r"""
- name: Run a slice's VMs on this worker
  cloudrepo.slices.qemu_vm:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    vms:
      - name: web
        id: 1001
        cores: 1
        memory_mb: 512
        vnc_port: 5901
        interfaces:
          - {name: eth0, tap: tap_1001_eth0, mac: "52:54:00:03:e9:00"}
          - {name: eth1, tap: tap_1001_eth1, mac: "52:54:00:03:e9:01", connected: false}
    purge: true

- name: Remove all VMs of a slice
  cloudrepo.slices.qemu_vm:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    state: absent
    purge: true
"""

RETURN = r"""
vms:
  description: The listed VMs that exist, in the list's order. None for O(state=absent).
  returned: success, and if some VMs failed
  type: list
  elements: dict
  contains:
    name:
      description: The VM's name.
      type: str
    pid:
      description: The process of its QEMU. None if it has none, and in check mode for one that would be started.
      type: int
    status:
      description: What QMP says, so V(running) or V(paused), V(stopped) without a process.
      type: str
    console:
      description: The socket of its serial console.
      type: str
  sample: [{"name": "web", "pid": 4711, "status": "running", "console": "/run/cloudrepo/vms/web/web/console.sock"}]
pending:
  description: What waits for a restart that was not allowed. It is not counted as a change.
  returned: success, and if some VMs failed
  type: list
  elements: str
  sample: ["vm web: cores 1 -> 2 needs a restart (slices_allow_restart=true)"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_vms
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(AnsibleModule(argument_spec=_ensure_vms.ARGUMENTS, supports_check_mode=True), _ensure_vms.ensure)


if __name__ == "__main__":
    main()
