#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_registry
short_description: Read and change the registry of slices
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - The registry is the only state there is of slices.
    It holds their designs, their status, and every number that was given out.
  - One slice is changed in one transaction, or not at all.
    That no VLAN, MAC address, VNC port, TAP or address is held twice is a constraint of the database.
  - The registry is an SQLite file that only its owner can read, or the schema C(cloudrepo_slices) of a PostgreSQL
    database.
    One that does not exist is an empty registry. It is created by the first reservation.
  - One that exists but was emptied, cut off or damaged is an error in every state but V(rebuilt).
    The message names it and says how to get a registry again.
attributes:
  check_mode:
    description: Predicts the result, constraints included, without writing anything.
    support: full
  diff_mode:
    description: Shows the slice's record before and after.
    support: full
  idempotent:
    description: What is stored already is not written again and does not count the revision up.
    support: full
requirements:
  - psycopg 3, on the host that runs the module, with O(url)
options:
  path:
    description:
      - The registry's file.
      - Its folder is created with mode V(0700) if it is missing, the file with mode V(0600).
      - With O(url), only backups are beside it.
    type: path
    default: /var/lib/cloudrepo/registry/slices.sqlite
  url:
    description:
      - The registry's PostgreSQL database, as C(postgresql://user:password@host/database), instead of a file.
      - The user has to be allowed to create a schema in it, or to own an empty one with the name C(cloudrepo_slices).
      - The action plugin takes it from the variable C(slices_registry_url), so that no task has to name it, and it is
        in no task's arguments that a callback could record.
    type: str
  state:
    description:
      - V(read) returns the whole registry.
      - V(reserved) stores O(record), provided that the registry is still at O(revision).
        A slice that is running, and whose record is unchanged, stays running.
      - V(status) sets the status of O(slice). Once it is V(running), its retired VMs leave its record.
        A slice that is not registered is an error, unless it is V(deleting).
      - V(absent) removes O(slice) and frees everything it held, except its IDs, which are never used again.
      - V(backup) copies the registry to O(dest) as it is at one moment, whoever writes at the same time.
        The copy gets its name once it was read again and found sound. To restore it, copy it back while nothing runs.
      - V(rebuilt) stores O(records) and nothing else, in one transaction, where the registry is missing, damaged or
        holds no slice. A damaged file is renamed, never deleted. A registry that holds slices is an error.
      - V(passwords) returns the VNC passwords of all slices that the one who asks may change.
        With O(record), it gives a random one to each of its VMs that has none, and returns those of this slice only.
        A password goes when its VM does. Such a task needs C(no_log).
      - V(moved) moves the registry between O(path) and O(url), as O(to) says, in one transaction on either side.
        What is left behind is renamed, so that nobody goes on with it. If it was moved before, nothing is changed.
    type: str
    choices: [read, reserved, status, absent, backup, rebuilt, passwords, moved]
    default: read
  to:
    description: Where the registry is to be. Required for O(state=moved).
    type: str
    choices: [sqlite, postgresql]
  slice:
    description: The slice's name. Required for O(state=status) and O(state=absent).
    type: str
  status:
    description:
      - The status to set.
      - It is V(design) or V(deploying) for O(state=reserved), and any but V(design) for O(state=status).
      - Required for both.
    type: str
    choices: [design, deploying, running, deleting, failed]
  reason:
    description: Why the slice has this status. Used by O(state=status).
    type: str
    default: ""
  revision:
    description:
      - The revision of the registry that O(record) was planned from.
      - If the registry has moved on since, nothing is written and RV(conflict) is true, which is no failure.
      - Required for O(state=reserved).
    type: int
  next_id:
    description:
      - The next free ID once O(record) or O(records) are stored. The registry's own never goes down.
      - Required for O(state=reserved) and O(state=rebuilt).
    type: int
  last_worker:
    description:
      - The worker at which placement stopped.
      - Required for O(state=reserved) and O(state=rebuilt).
    type: str
  dest:
    description:
      - The file to make with O(state=backup), with mode V(0600). One that exists is an error.
      - By default it is named after the time, in a folder C(backups) beside O(path) that is created with mode V(0700).
      - It is an SQLite file, with O(url) too.
    type: path
  admins:
    description: Users who may change slices that others own.
    type: list
    elements: str
    default: []
  hold_timeout:
    description:
      - How many seconds a run holds the slice that it deploys or deletes, counted from its last word to the registry.
      - Runs on the same controller know better. They are refused for as long as the run is there, and no longer.
    type: int
    default: 900
  for_admins:
    description: Whether this concerns the slices of all, so that only O(admins) may, where it is certain who asks.
    type: bool
    default: false
  goes_on:
    description:
      - Whether this is more of the work that the run holds the slice for.
      - If so, it is refused if the run has lost its hold to another one since.
    type: bool
    default: false
  actor:
    description:
      - Who asks. Filled in by the action plugin of this module; what a task says is replaced.
    type: dict
    suboptions:
      run:
        description: Identifies the run of C(ansible-playbook).
        type: str
        required: true
      holder:
        description: Who and where that is, in words.
        type: str
        required: true
      user:
        description: The user, where it is certain who that is (AWX), else empty.
        type: str
        default: ""
      dead_run:
        description: A run that is known to have died.
        type: str
        default: ""
  expected:
    description:
      - For O(state=status), the slice as it was read. If it is another one, or elsewhere, by now, it is refused.
    type: dict
    suboptions:
      id:
        description: Its ID.
        type: int
        required: true
      workers:
        description: The workers that it was on.
        type: list
        elements: str
        required: true
  record:
    description:
      - The slice as it was planned. Required for O(state=reserved).
      - For O(state=passwords), the slice whose VMs get one.
    type: dict
    suboptions: &record
      id:
        description: The slice's ID.
        type: int
        required: true
      name:
        description: The slice's name.
        type: str
        required: true
      owner:
        description: Whose quota it counts against.
        type: str
        required: true
      status:
        description: Of one of O(records) what counts, and of O(record) ignored, as O(status) counts there.
        type: str
      reason:
        description: Of one of O(records) what counts, and of O(record) ignored, as O(reason) counts there.
        type: str
      has_run:
        description: Accepted so that a record can be given back as it was returned. The registry knows if it ever ran.
        type: bool
        default: false
      network_node:
        description:
          - Inventory name of the host with its gateways, DHCP and NAT.
          - Empty for a slice from before there could be several. It is on the first one.
        type: str
        default: ""
      vlan_pool:
        description: The VLANs that are the slice's own.
        type: dict
        required: true
        suboptions:
          first:
            description: The first VLAN.
            type: int
            required: true
          size:
            description: How many there are.
            type: int
            required: true
      internet:
        description: The slice's port on the internet VLAN. Left out where no VM has internet.
        type: dict
        suboptions:
          server_address:
            description: Address of the slice's DHCP and DNS server, with prefix length.
            type: str
            required: true
      vms:
        description: The virtual machines, in the spec's order.
        type: list
        elements: dict
        required: true
        suboptions:
          id:
            description: The VM's ID.
            type: int
            required: true
          name:
            description: The VM's name.
            type: str
            required: true
          flavor:
            description: Name of its flavor.
            type: str
            required: true
          cores:
            description: Number of virtual CPUs.
            type: int
            required: true
          memory_mb:
            description: Memory in MiB.
            type: int
            required: true
          disk_gb:
            description: Size of the disk in GiB.
            type: float
            required: true
          image:
            description: File name of the base image.
            type: str
            required: true
          worker:
            description: Inventory name of its worker.
            type: str
            required: true
          worker_address:
            description: Address of its worker.
            type: str
            required: true
          vnc_port:
            description: TCP port of its VNC display.
            type: int
            required: true
          retired:
            description: Whether the VM is unwanted, and kept only until it is removed from its worker.
            type: bool
            required: true
          interfaces:
            description: Its network interfaces, in the guest's order.
            type: list
            elements: dict
            required: true
            suboptions:
              name:
                description: Name of the interface in the guest.
                type: str
                required: true
              mac:
                description: MAC address in lower case.
                type: str
                required: true
              tap:
                description: Name of its TAP on the worker.
                type: str
                required: true
              vlan:
                description: The VLAN that it is on. Left out if it is unconnected.
                type: int
              link:
                description: Number of its link. Left out for management and unconnected interfaces.
                type: int
              address:
                description: Its reserved address with prefix length, if it has one.
                type: str
              default_route:
                description: Whether DHCP gives this interface the default route.
                type: bool
                required: true
      links:
        description: The links, in the spec's order.
        type: list
        elements: dict
        required: true
        suboptions:
          number:
            description: The link's number in the slice.
            type: int
            required: true
          name:
            description: The link's name.
            type: str
            required: true
          vlan:
            description: Its VLAN, one of O(record.vlan_pool).
            type: int
            required: true
          subnet:
            description: Its subnet, if it has one.
            type: str
          gateway:
            description: Whether the slice's network node routes for it.
            type: bool
            required: true
          dhcp:
            description: Whether addresses are given out on it.
            type: bool
            required: true
          port_security:
            description: Whether guests are held to their MAC and address on it.
            type: bool
            required: true
          server_address:
            description: Address of the slice's own port on it with prefix length, if it has one.
            type: str
          endpoints:
            description: The interfaces that it joins.
            type: list
            elements: dict
            required: true
            suboptions:
              vm:
                description: Name of the VM.
                type: str
                required: true
              interface:
                description: Name of its interface.
                type: str
                required: true
  records:
    description:
      - All slices, as they were found on the hosts.
      - Required for O(state=rebuilt).
    type: list
    elements: dict
    suboptions: *record
notes:
  - If another run holds the registry for more than 30 seconds, the module fails and says that it is locked.
  - A slice that is set to V(deploying) or V(deleting) is held by the run that did it until that sets another status or
    removes it. Another run is refused with an error that says who holds the slice since when.
  - Where it is certain who asks, as for an AWX user, only a slice's owner and O(admins) may change it.
  - A registry that a newer version of this collection wrote is refused and left alone. One of an older version is
    read as it is, and made one of this version by the first change.
seealso:
  - module: cloudrepo.slices.slice_host_info
"""

EXAMPLES = r"""
- name: Read the registry
  cloudrepo.slices.slice_registry:
    state: read
  register: read

- name: Reserve what was planned from it
  cloudrepo.slices.slice_registry:
    state: reserved
    record: "{{ plan.slice }}"
    status: deploying
    revision: "{{ plan.revision }}"
    next_id: "{{ plan.next_id }}"
    last_worker: "{{ plan.last_worker }}"
  register: reservation

- name: Say that the slice runs
  cloudrepo.slices.slice_registry:
    state: status
    slice: web
    status: running

- name: Say what went wrong
  cloudrepo.slices.slice_registry:
    state: status
    slice: web
    status: failed
    reason: worker2 has no KVM

- name: Make the passwords of its screens
  cloudrepo.slices.slice_registry:
    state: passwords
    record: "{{ reservation.record }}"
  register: secrets
  no_log: true

- name: Forget the slice
  cloudrepo.slices.slice_registry:
    state: absent
    slice: web

- name: Keep a copy
  cloudrepo.slices.slice_registry:
    state: backup
  register: copied

- name: Share the registry with other network nodes from now on
  cloudrepo.slices.slice_registry:
    state: moved
    to: postgresql
    url: "{{ vaulted_url }}"
"""

RETURN = r"""
backup:
  description: The copy's path and the revision that it holds.
  returned: O(state=backup)
  type: dict
  sample: {"path": "/var/lib/cloudrepo/registry/backups/slices-20260102T030405.678901Z.sqlite", "revision": 7}
damaged:
  description: Where the damaged registry is kept now. V(none) if there was none.
  returned: O(state=rebuilt)
  type: str
aside:
  description: What the registry that was left behind is called now. V(none) if it was moved before.
  returned: O(state=moved)
  type: str
registry:
  description: The whole registry.
  returned: O(state=read), O(state=rebuilt) or O(state=moved)
  type: dict
  contains:
    revision:
      description: Counts every change. A plan made from this registry is reserved with it.
      type: int
      sample: 7
    next_id:
      description: The next free ID.
      type: int
      sample: 1003
    last_worker:
      description: The worker at which placement stopped, empty before the first.
      type: str
      sample: worker2
    slices:
      description: The records of all slices ordered by ID, each as O(record) describes it.
      type: list
      elements: dict
    holds:
      description: Who works on which slice since when and until when at most, in seconds since 1970.
      type: list
      elements: dict
      sample:
        - slice: web
          run: ctl/4242
          holder: alice on ctl (PID 4242)
          status: deploying
          since: 1795230845
          until: 1795231745
workers:
  description: On which workers each slice may have something, by its name.
  returned: O(state=read)
  type: dict
  sample: {"web": ["worker1", "worker2"]}
held:
  description: Who works on the slice, as in RV(registry.holds), if that is why the module failed.
  returned: failure
  type: dict
record:
  description:
    - The slice's record as it is stored, or would be.
    - V(none) if it is not registered.
  returned: O(state=reserved), O(state=status) or O(state=absent)
  type: dict
  sample:
    id: 1000
    name: web
    owner: alice
    status: design
    reason: ""
    has_run: false
    network_node: network1
    vlan_pool: {first: 100, size: 20}
    vms: []
    links: []
    internet:
conflict:
  description:
    - Whether nothing was written because the registry is not at O(revision) any more.
    - If so, plan again and retry.
  returned: O(state=reserved)
  type: bool
  sample: false
passwords:
  description: VNC passwords by slice and VM. In check mode, those that would be made are made up.
  returned: O(state=passwords)
  type: dict
  sample: {web: {web: kD3wZpT9, db: a7RtmQxE}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_registry
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    spec, required_if = _ensure_registry.ARGUMENTS, _ensure_registry.REQUIRED_IF
    run(AnsibleModule(argument_spec=spec, required_if=required_if, supports_check_mode=True), _ensure_registry.ensure)


if __name__ == "__main__":
    main()
