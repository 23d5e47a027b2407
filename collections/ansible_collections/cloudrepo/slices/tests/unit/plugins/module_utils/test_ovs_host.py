# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ovs_host


@pytest.mark.parametrize(("drawn", "group"), [(b"\0\0\0\0", 1 << 30), (b"\xff\xff\xff\xff", (1 << 31) - 1)])
def test_devices_are_deleted_as_a_group_that_is_never_that_of_all(
    drawn: bytes, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: drawn)
    assert [line.text for line in _ovs_host._removal(["tap_1_eth0", "tap_2_eth0"])] == [
        f"link set dev tap_1_eth0 group {group}",
        f"link set dev tap_2_eth0 group {group}",
        f"link delete group {group}",
    ]


def test_where_no_device_goes_no_group_does() -> None:
    assert _ovs_host._removal([]) == []
