# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Room
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import parse_settings

DEFAULTS: dict[str, Any] = {
    "internet_vlan": 400,
    "internet_subnet": "10.60.7.0/24",
    "reserved_vlans": [],
    "quota": 10,
    "quotas": {},
    "overcommit": {},
    "placement": "round_robin",
    "image_dir": "/tmp/vm_images",
}


def test_what_is_left_out_keeps_its_default() -> None:
    settings = parse_settings({**DEFAULTS, "overcommit": {"disk": 2}, "quotas": {"alice": "20"}})
    assert settings.overcommit == Room(4.0, 1.0, 2.0)
    assert settings.quotas == {"alice": 20}
    # In an inventory a key without a value is null.
    assert parse_settings(dict.fromkeys(DEFAULTS)) == parse_settings(DEFAULTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overcommit": {"core": 1}}, "slices_overcommit: unknown key 'core'"),
        ({"overcommit": {"disk": float("nan")}}, "disk must be a number, not nan"),
        ({"overcommit": {"cores": 0}}, "cores must be a number above 0"),
        ({"quotas": {"alice": "many"}}, "slices_quotas: alice must be a whole number"),
        ({"quotas": {"alice": -1}}, "slices_quotas: alice must be 0 or more VMs"),
        ({"internet_vlan": 5000}, "slices_internet_vlan: a VLAN is 1 to 4094"),
        ({"reserved_vlans": [0]}, "slices_reserved_vlans: a VLAN is 1 to 4094"),
        ({"internet_subnet": "10.60.7.1/24"}, "slices_internet_subnet: subnet 10.60.7.1/24 has host bits set"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_settings({**DEFAULTS, **options})
