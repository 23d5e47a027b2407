#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slice_nat
short_description: Let VMs of a slice reach the internet
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Gives the internet VLAN its gateway on the network node, and lets the listed guests of one slice through it.
  - The gateway is an internal port of the bridge in the host's own network namespace. All slices share it,
    and the nftables table C(inet cloudrepo_slices) that guards it. In the table's sets every element names its slice.
  - A guest reaches the uplink from its own address and MAC address only, and never a protected network.
    Nothing comes back but answers. Of the host itself it can ping the gateway's address. All else is dropped.
  - The slice's DNS server may ask others through the gateway.
  - Inside the slice's namespace another table guards the slice's own port on the internet VLAN. It forwards nothing,
    and accepts DHCP, DNS and ping from the slice's own guests only, so that slices do not meet there.
  - A slice touches nothing of another's. With the last one the gateway's port and the table are removed.
requirements:
  - nft (nftables 1.0 or later), Linux 5.6 or later
  - ovs-vsctl (Open vSwitch)
  - ip (iproute2)
attributes:
  check_mode:
    description: Predicts the result without changing anything.
    support: full
  diff_mode:
    description: Shows rules, the slice's elements, the gateway's port and forwarding, before and after.
    support: full
  idempotent:
    description: What is as described is left alone.
    support: full
options:
  slice:
    description: Name of the slice.
    type: str
    required: true
  state:
    description:
      - V(present) lets the slice's guests through. Without O(addresses) and O(server_address) there is nobody
        to let through, and it is the same as V(absent).
      - V(absent) lets none of them through.
    type: str
    choices: [present, absent]
    default: present
  bridge:
    description: The Open vSwitch bridge that carries the VLAN. It has to exist.
    type: str
    default: br-int
  vlan:
    description: The internet VLAN. The gateway's port is named after it, such as C(gw_vlan400).
    type: int
    default: 400
  subnet:
    description: Subnet of the internet VLAN. Its first address is the gateway's.
    type: str
    default: 10.60.7.0/24
  uplink:
    description:
      - The host's interface that leads to the internet.
      - By default the one of the host's default route.
    type: str
  namespace:
    description: The slice's network namespace.
    type: str
  interface:
    description:
      - The slice's own port on the internet VLAN, inside O(namespace).
      - None by default. The slice's namespace is not guarded then.
    type: str
  server_address:
    description: Address of O(interface), without prefix length. From there DNS servers may be asked.
    type: str
  addresses:
    description: The slice's guests on the internet VLAN.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: The guest's address, without prefix length.
        type: str
        required: true
      mac:
        description: Its MAC address.
        type: str
        required: true
  protected_networks:
    description: Networks that no guest of this slice may reach.
    type: list
    elements: str
    default: []
  protected_addresses:
    description:
      - Addresses that no guest of this slice may reach, such as those of the workers.
      - A network of this host that contains one of them is protected as a whole.
    type: list
    elements: str
    default: []
notes:
  - Forwarding is switched on for the gateway's port and the uplink, not for the host. If the host is no router
    otherwise (C(net.ipv4.ip_forward) is 0), what arrives at the uplink is forwarded to guests only, and with the last
    slice the uplink's forwarding is switched off again. If it is one, neither is touched.
  - A firewall of the host's own can still drop what this module accepts.
  - It takes the lock C(/run/cloudrepo/lock/slice_nat), so that several slices can be deployed at the same time.
seealso:
  - module: cloudrepo.slices.dnsmasq_dhcp
  - module: cloudrepo.slices.ovs_vlan
"""

EXAMPLES = r"""
- name: Let the slice's VM reach the internet
  cloudrepo.slices.slice_nat:
    slice: web
    namespace: slice-1000
    interface: inet_1000
    server_address: 10.60.7.254
    addresses:
      - {address: 10.60.7.10, mac: "52:54:00:03:e9:00"}
    protected_addresses: [10.0.10.1, 10.0.10.2, 10.0.10.3, 10.0.10.4]

- name: Let no VM of the slice through
  cloudrepo.slices.slice_nat:
    slice: web
    namespace: slice-1000
    state: absent
"""

RETURN = r"""
uplink:
  description: The interface that the guests leave by.
  returned: O(state=present)
  type: str
  sample: eth0
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_nat
from ansible_collections.cloudrepo.slices.plugins.module_utils._module import run


def main() -> None:
    run(
        AnsibleModule(
            argument_spec=_ensure_nat.ARGUMENTS, required_by=_ensure_nat.REQUIRED_BY, supports_check_mode=True
        ),
        _ensure_nat.ensure,
    )


if __name__ == "__main__":
    main()
