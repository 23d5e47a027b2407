#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dnsmasq_dhcp
short_description: Serve DHCP and DNS to the networks of a slice
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Runs one dnsmasq for a slice, inside the slice's network namespace, for all of its networks.
  - Every address is a fixed reservation. A MAC address that is not listed gets no answer.
  - The router option is sent only to interfaces that have the default route. A VM with several interfaces
    thus gets one default route.
  - VMs are found in DNS by their name, alone or with O(domain). A VM that shares a network with the one
    who asks is answered with its address there, any other with all of its addresses.
  - Changed reservations, options and names are reloaded without a restart. Any other change restarts dnsmasq,
    also that of who has the default route. Leases are kept.
  - The lease of an address that is not reserved any more, or is now for another MAC address, is dropped,
    as it would keep the new owner waiting until it expires. That takes a restart too.
requirements:
  - dnsmasq 2.86 or later and its user C(dnsmasq) (Debian's package C(dnsmasq-base))
  - ip (iproute2)
attributes:
  check_mode:
    description: Predicts the result without changing anything.
    support: full
  diff_mode:
    description: Shows the files, their owner and mode, dropped leases and the process, before and after.
    support: full
  idempotent:
    description: What serves as described is left alone.
    support: full
options:
  slice:
    description: Name of the slice. Its files are kept in a folder of this name.
    type: str
    required: true
  state:
    description:
      - V(started) makes dnsmasq run with these options. Without O(networks) there is nothing to serve,
        and it is the same as V(absent).
      - V(absent) stops it, and removes its files and leases.
    type: str
    choices: [started, absent]
    default: started
  namespace:
    description:
      - Network namespace to run in. It has to exist, the interfaces in it may come later.
      - Required for O(state=started).
    type: str
  domain:
    description:
      - Domain of the VMs, in lower case. It is also the guests' search domain, and is never asked upstream.
      - V(<slice>.internal) by default.
    type: str
  state_dir:
    description: Absolute path of the folder that holds a folder for each slice, owned by root.
    type: path
    default: /var/lib/cloudrepo/dnsmasq
  lease_time:
    description: How long a lease lasts, in seconds. At least 120.
    type: int
    default: 3600
  upstream_servers:
    description:
      - IPv4 addresses of the DNS servers to ask about everything but the VMs.
      - If one of the O(networks) has O(networks[].internet), those that the host itself asks are the default,
        except on its loopback. Otherwise there are none, and only the VMs' names are known.
    type: list
    elements: str
  networks:
    description: The networks to serve.
    type: list
    elements: dict
    default: []
    suboptions:
      interface:
        description: Name of the interface in O(namespace).
        type: str
        required: true
      vlan:
        description: VLAN of the network, 1 to 4094.
        type: int
        required: true
      subnet:
        description: Subnet of the network, such as V(192.168.100.0/24).
        type: str
        required: true
      server_address:
        description: The interface's address without prefix length. Guests get it as their DNS server.
        type: str
        required: true
      router:
        description: The router for guests with a default route here. None by default.
        type: str
      internet:
        description: Whether servers outside the slice can be reached through this network.
        type: bool
        default: false
      hosts:
        description: The reservations.
        type: list
        elements: dict
        default: []
        suboptions:
          mac:
            description: MAC address of the VM's interface.
            type: str
            required: true
          address:
            description: Its address without prefix length.
            type: str
            required: true
          name:
            description: Name of the VM, sent to it as its hostname.
            type: str
            required: true
          default_route:
            description: Whether the VM's default route leaves by this interface.
            type: bool
            default: false
  names:
    description: The names that DNS knows.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the VM.
        type: str
        required: true
      addresses:
        description: All of its addresses, without prefix length.
        type: list
        elements: str
        required: true
notes:
  - The process is known by its pidfile C(/run/cloudrepo/dnsmasq/<slice>.pid) together with its command line.
    A stale pidfile is recognised, and so is a process whose namespace was deleted. It is replaced.
  - The host's own C(/etc/dnsmasq.conf), C(/etc/hosts) and C(/etc/resolv.conf) are not read by it.
seealso:
  - module: cloudrepo.slices.dnsmasq_dhcp_info
  - module: cloudrepo.slices.ovs_vlan
  - module: cloudrepo.slices.slice_nat
"""

EXAMPLES = r"""
- name: Serve the slice's networks
  cloudrepo.slices.dnsmasq_dhcp:
    slice: web
    namespace: slice-1000
    networks:
      - interface: gw_vlan100
        vlan: 100
        subnet: 192.168.100.0/24
        server_address: 192.168.100.1
        router: 192.168.100.1
        hosts:
          - {mac: "52:54:00:03:e9:01", address: 192.168.100.10, name: web}
          - {mac: "52:54:00:03:ea:01", address: 192.168.100.11, name: db, default_route: true}
      - interface: inet_1000
        vlan: 400
        subnet: 10.60.7.0/24
        server_address: 10.60.7.254
        router: 10.60.7.1
        internet: true
        hosts:
          - {mac: "52:54:00:03:e9:00", address: 10.60.7.10, name: web, default_route: true}
    names:
      - {name: web, addresses: [10.60.7.10, 192.168.100.10]}
      - {name: db, addresses: [192.168.100.11]}

- name: Stop serving them
  cloudrepo.slices.dnsmasq_dhcp:
    slice: web
    state: absent
"""

RETURN = r"""
restarted:
  description: Whether dnsmasq was started or started again, or would be.
  returned: O(state=started)
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_dhcp
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(
        AnsibleModule(
            argument_spec=_ensure_dhcp.ARGUMENTS, required_if=_ensure_dhcp.REQUIRED_IF, supports_check_mode=True
        ),
        _ensure_dhcp.ensure,
    )


if __name__ == "__main__":
    main()
