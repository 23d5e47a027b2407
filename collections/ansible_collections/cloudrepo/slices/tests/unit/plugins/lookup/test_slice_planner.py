# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import init_plugin_loader, lookup_loader

FLAVOR = {"name": "cirros", "cores": 1, "memory_gb": 0.5, "disk_gb": 1, "image": "cirros.img"}
SPEC = {"name": "lan", "topology": {"type": "line", "vms": 2, "flavor": "cirros"}}


@pytest.fixture(scope="module", autouse=True)
def _plugins_are_found() -> None:
    init_plugin_loader()


def look_up(**options: Any) -> dict[str, Any]:
    worker = {"name": "worker1", "address": "10.0.10.1", "cores": 2, "memory_mb": 4096, "disk_mb": 10**5}
    defaults = {
        "owner": "alice",
        "flavors": [FLAVOR],
        "workers": [worker],
        "network_node": {"name": "network1", "address": "10.0.10.4"},
        "registry": {"revision": 0, "next_id": 1000, "last_worker": "", "slices": []},
        "images": {"cirros.img": 1024**2},
    }
    (plan,) = lookup_loader.get("cloudrepo.slices.slice_planner").run([SPEC], {}, **{**defaults, **options})
    return dict(plan)


def test_options_reach_the_planner() -> None:
    plan = look_up(internet_vlan=105, reserved_vlans=[125], quotas={"alice": "2"}, quota=1)
    assert plan["slice"]["vlan_pool"]["first"] == 126
    assert plan["slice"]["owner"] == "alice"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quota": 1}, "alice is over quota: 0 of 1"),
        ({"overcommit": {"cores": 0.5}}, "worker1 lacks 1 core"),
        ({"overcommit": {"core": 1}}, 'slices_overcommit: unknown key "core"'),
        ({"overcommit": {"cores": 0}}, "cores must be a number above 0"),
        ({"quotas": {"alice": "many"}}, "the quota of alice must be a whole number"),
        ({"internet_vlan": 5000}, "slices_internet_vlan: a VLAN is 1 to 4094"),
        ({"internet_subnet": "10.60.7.1/24"}, "slices_internet_subnet: subnet 10.60.7.1/24 has host bits set"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleError, match=message):
        look_up(**options)
