# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils import _addressing as rules
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork


@given(address=st.integers(0, 2**32 - 1), prefixlen=st.integers(8, 29))
def test_a_subnet_is_the_one_that_netaddr_reads(address: int, prefixlen: int) -> None:
    network = IPNetwork(f"{IPAddress(address, 4)}/{prefixlen}").cidr
    subnet = rules.subnet_of(str(network))
    assert (subnet.first, subnet.last, str(subnet)) == (network.first, network.last, str(network))


@given(address=st.integers(0, 2**32 - 1))
def test_an_address_is_written_as_it_is_read(address: int) -> None:
    text = rules.address_text(address)
    assert text == str(IPAddress(address, 4))
    assert rules.number_of(text) == rules.number_of(f"{text}/24") == address


@pytest.mark.parametrize("text", ["10.1", "10.0.0.256", "::1", "", "ten"])
def test_what_is_no_address_is_no_number(text: str) -> None:
    with pytest.raises(OSError, match="illegal IP address"):
        rules.number_of(text)


@pytest.mark.parametrize(
    ("vlan", "subnet"),
    [(100, "192.168.100.0/24"), (255, "192.168.255.0/24"), (256, "172.17.0.0/24"), (4094, "172.31.254.0/24")],
)
def test_the_subnet_of_a_link_follows_from_its_vlan(vlan: int, subnet: str) -> None:
    assert str(rules.link_subnet(vlan)) == subnet


def test_no_two_vlans_have_the_same_subnet() -> None:
    assert len({rules.link_subnet(vlan) for vlan in rules.POOL_VLANS}) == len(rules.POOL_VLANS)


@pytest.mark.parametrize(
    ("vm_id", "index", "mac"),
    [(1001, 0, "52:54:00:03:e9:00"), (65536, 23, "52:54:01:00:00:17"), (2**24 - 1, 1, "52:54:ff:ff:ff:01")],
)
def test_a_mac_address_has_the_vm_and_the_interface_in_it(vm_id: int, index: int, mac: str) -> None:
    assert rules.mac_address(vm_id, index) == mac


def test_more_vlans_than_a_network_has_can_be_asked_for() -> None:
    assert rules.find_pool(1000, 5000, {400}) is None
    assert rules.find_pool(1000, 5000, {400}, range(100, 10_000)) == 401
