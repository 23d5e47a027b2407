#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ovs_vlan
short_description: Connect the ports of a slice to its VLANs
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Makes TAPs for VMs, and internal ports with addresses in the slice's network namespace, and connects them to
    an Open vSwitch bridge. Each port carries one VLAN untagged. Tagged frames from a guest do not pass.
  - A host's whole share is one call. It costs one C(ovs-vsctl) transaction, a few C(ip -batch) and one C(ovs-ofctl)
    bundle, whatever the number of ports.
  - Only differences are applied. A change of a TAP's VLAN is live. A TAP that is there is never deleted and made again.
  - What is half gone is repaired, such as after a reboot, a restart of Open vSwitch with the userspace datapath,
    or when somebody deleted a device, a flow or the namespace by hand.
  - Every port carries the slice's stamp. A port or device of the same name without it, or with that of another slice,
    is an error.
requirements:
  - Open vSwitch, with ovs-vswitchd running
  - ip (iproute2 5.5 or later)
attributes:
  check_mode:
    description: Predicts the result without changing anything.
    support: full
  diff_mode:
    description: Shows the state of each changed port, and of the namespace, before and after.
    support: full
  idempotent:
    description: What is as described is left alone.
    support: full
options:
  slice:
    description: Name of the slice.
    type: str
    required: true
  slice_id:
    description: ID of the slice.
    type: int
    required: true
  owner:
    description: The slice's owner, for the stamp.
    type: str
  vlan_pool:
    description: The VLANs that are the slice's own, for the stamp.
    type: dict
    suboptions:
      first:
        description: The first VLAN.
        type: int
        required: true
      size:
        description: How many there are.
        type: int
        required: true
  state:
    description:
      - V(present) makes the O(ports) what they are described to be.
      - V(absent) removes the O(ports), of which only the names matter then, as far as they carry the slice's stamp.
        O(namespace) is removed with the last port of the slice in it.
        Processes or foreign devices in it are an error then.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - Whether ports that carry the slice's stamp and are not in O(ports) are removed. With O(state=absent), all are.
    type: bool
    default: false
  bridge:
    description: The Open vSwitch bridge. It has to exist, except with O(state=absent).
    type: str
    default: br-int
  namespace:
    description:
      - Network namespace for the internal ports, C(slice-<slice_id>). It is created if it is missing.
      - Without it they stay in the host's own.
    type: str
  tap_user:
    description: The user who may open the TAPs. It has to exist if there are any.
    type: str
    default: slices-qemu
  ports:
    description: The ports.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the port and its device, at most 15 characters.
        type: str
        required: true
      type:
        description:
          - V(tap) is a TAP for a VM. It stays in the host's own network namespace,
            where the host neither hears nor answers the guest.
          - V(internal) is a port of the host itself, as a gateway is. Open vSwitch makes its device. It has no IPv6.
        type: str
        choices: [tap, internal]
        default: tap
      vlan:
        description:
          - The VLAN, 1 to 4094.
          - A TAP without one exists and is up, but is not connected. An internal port needs one.
        type: int
      vm:
        description: Name of the VM, for the stamp.
        type: str
      interface:
        description: Name of the VM's interface, for the stamp.
        type: str
      address:
        description:
          - The only IPv4 address of an internal port, with prefix length. Any other that it has is removed.
          - Its MAC address is made from it, C(02:00) and the four bytes of the address.
        type: str
      gateway:
        description:
          - Address of the router to which the namespace's default route leads through this internal port.
          - Only one port can have it.
        type: str
      forwarding:
        description: Whether the host routes what comes in through this internal port.
        type: bool
        default: false
      security:
        description:
          - What a TAP accepts from its guest. Anything else is dropped, such as frames of another source, IPv6,
            answers of a DHCP server, and whatever is for others than O(ports[].security.peers) in the guest's subnet.
          - Without it a TAP accepts any frame that is not tagged. It has no effect without O(ports[].vlan).
        type: dict
        suboptions:
          mac:
            description: The guest's MAC address. Every frame, ARP message and IPv4 packet comes from it.
            type: str
            required: true
          address:
            description:
              - The guest's only IPv4 address, with the prefix length of its subnet. It may ask for it by DHCP.
            type: str
            required: true
          peers:
            description:
              - The addresses in the subnet with which the guest may talk, such as its router and DNS server.
              - Without it, it may talk with anybody in the subnet and beyond, but not be a DHCP server,
                nor send UDP in fragments, whose ports nobody sees.
            type: list
            elements: dict
            suboptions:
              address:
                description: The peer's address, in the subnet.
                type: str
                required: true
              mac:
                description: The peer's MAC address, to which everything goes that is for it, broadcasts among it.
                type: str
                required: true
          dhcp_mac:
            description:
              - MAC address of the DHCP server, to which the guest's DHCP broadcasts go.
              - Without it, a guest that has O(ports[].security.peers) can't use DHCP.
            type: str
          router_mac:
            description:
              - MAC address of the router, to which the guest may send what is not for its subnet.
              - Without it, it reaches its O(ports[].security.peers) and nothing else. It needs them.
            type: str
notes:
  - In the database of Open vSwitch the stamp is the port's C(external_ids) C(cloudrepo-slice), C(cloudrepo-slice-id),
    C(cloudrepo-owner), C(cloudrepo-pool) (such as C(100-119)), C(cloudrepo-vm) and C(cloudrepo-interface).
    They are what M(cloudrepo.slices.slice_rebuild) finds of a slice whose VMs were never started.
  - On the device it is the alias, such as C(cloudrepo slice=web vm=db interface=eth1).
  - The flows that drop tagged frames, and those of O(ports[].security), have a C(cookie) of C(0xc10d5ec0)
    and the slice's ID, 32 bits each.
    Any other frame is up to the bridge's own flows.
seealso:
  - module: cloudrepo.slices.qemu_vm
  - module: cloudrepo.slices.dnsmasq_dhcp
"""

EXAMPLES = r"""
- name: Connect the VMs of a worker
  cloudrepo.slices.ovs_vlan:
    slice: web
    slice_id: 1000
    owner: alice
    vlan_pool: {first: 100, size: 20}
    purge: true
    ports:
      - name: tap_1001_eth0
        vlan: 400
        vm: web
        interface: eth0
        security:
          mac: "52:54:00:03:e9:00"
          address: 10.60.7.10/24
          peers:
            - {address: 10.60.7.1, mac: "02:00:0a:3c:07:01"}
            - {address: 10.60.7.254, mac: "02:00:0a:3c:07:fe"}
          router_mac: "02:00:0a:3c:07:01"
          dhcp_mac: "02:00:0a:3c:07:fe"
      - {name: tap_1001_eth1, vlan: 100, vm: web, interface: eth1}
      - {name: tap_1001_eth2, vm: web, interface: eth2}

- name: Make the gateways on the network node
  cloudrepo.slices.ovs_vlan:
    slice: web
    slice_id: 1000
    namespace: slice-1000
    ports:
      - {name: gw_vlan100, type: internal, vlan: 100, address: 192.168.100.1/24, forwarding: true}
      - {name: inet_1000, type: internal, vlan: 400, address: 10.60.7.254/24, gateway: 10.60.7.1}

- name: Remove all ports of the slice from a host, and its namespace
  cloudrepo.slices.ovs_vlan:
    slice: web
    slice_id: 1000
    namespace: slice-1000
    purge: true
    state: absent
"""

RETURN = r"""
diff:
  description: The state of each changed port, and of the namespace, by name.
  returned: always
  type: dict
  sample:
    before: {}
    after:
      tap_1001_eth0:
        type: tap
        bridge: br-int
        vlan: 400
        external_ids:
          cloudrepo-slice: web
          cloudrepo-slice-id: "1000"
          cloudrepo-owner: alice
          cloudrepo-pool: 100-119
          cloudrepo-vm: web
          cloudrepo-interface: eth0
        alias: cloudrepo slice=web vm=web interface=eth0
        user: slices-qemu
        up: true
        attached: true
        sysctls:
          ipv4.arp_ignore: 8
          ipv4.rp_filter: 1
          ipv6.disable_ipv6: 1
        flows:
          - cookie=0xc10d5ec0000003e8,priority=50,vlan_tci=0x1000/0x1000 actions=drop
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_ports
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(AnsibleModule(argument_spec=_ensure_ports.ARGUMENTS, supports_check_mode=True), _ensure_ports.ensure)


if __name__ == "__main__":
    main()
