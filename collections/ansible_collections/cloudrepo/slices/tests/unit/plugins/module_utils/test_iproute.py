# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute

from .vlan_hosts import recorded


def test_recorded_devices_of_the_host() -> None:
    found = _iproute.parse_scan(recorded("ip-host.json"))

    assert found.gateways == {}
    assert found.devices["tap_1001_eth2"] == _iproute.Device(
        name="tap_1001_eth2",
        alias="cloudrepo slice=web vm=web interface=eth2",
        up=True,
        user="nobody",
        addresses=[],
        mac="36:b6:d1:8d:97:2c",
        kind="tun",
    )
    # ip prints a user who has no name as a number.
    assert found.devices["tap_2001_eth0"].user == "4321"
    assert (found.devices["tap_foreign"].user, found.devices["tap_foreign"].up) == ("", False)


def test_recorded_devices_of_the_namespace() -> None:
    found = _iproute.parse_scan(recorded("ip-namespace.json"))

    assert sorted(found.devices) == ["gw_vlan100", "inet_1000", "lo"]
    assert found.devices["inet_1000"].addresses == ["10.60.7.254/24"]
    assert found.devices["lo"].addresses == ["127.0.0.1/8"]
    assert found.gateways == {"inet_1000": "10.60.7.1"}


def test_the_failed_line_is_found_in_what_ip_prints() -> None:
    assert _iproute.failed_line("ioctl(TUNSETIFF): Device or resource busy\nCommand failed -:3") == 2
    assert _iproute.failed_line('Cannot open network namespace "slice-7": No such file or directory') is None
