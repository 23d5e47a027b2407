# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ovs
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError

from .vlan_hosts import recorded


def test_recorded_tables_become_bridges_and_ports() -> None:
    found = _ovs.parse_scan(recorded("ovs-vsctl.json"))

    assert found.bridges == {"br-int": _ovs.Bridge("br-int", True), "br-down": _ovs.Bridge("br-down", False)}
    assert found.ports["tap_1001_eth1"] == _ovs.Port(
        name="tap_1001_eth1",
        bridge="br-int",
        tag=100,
        external_ids={
            "cloudrepo-interface": "eth1",
            "cloudrepo-slice": "web",
            "cloudrepo-slice-id": "1000",
            "cloudrepo-vm": "web",
        },
        internal=False,
        error="",
        number=2,
    )
    assert found.ports["gw_vlan100"].internal
    # A bridge with a single port is written without a set.
    assert found.ports["br-down"].bridge == "br-down"
    assert found.ports["trunk0"].tag is None
    assert found.ports["gone"].error == "could not open network device gone (No such device)"


def test_a_host_without_bridges_has_no_ports() -> None:
    empty = '{"data":[],"headings":["name"]}\n' * 3
    assert _ovs.parse_scan(empty) == _ovs.Database({}, {})


def test_values_cannot_become_syntax() -> None:
    [command] = _ovs.add_port("br-int", "tap_1", 5, {"cloudrepo-vm": 'a,b="c"'}, internal=False)
    assert command == ["add-port", "br-int", "tap_1", "tag=5", r'external_ids:"cloudrepo-vm"="a,b=\"c\""']


def test_commands_are_joined_to_one_transaction() -> None:
    commands = [*_ovs.add_port("br-int", "gw", 5, {}, internal=True), _ovs.del_port("tap_1")]
    assert _ovs.transaction(commands)[2:] == (
        "-- add-port br-int gw tag=5 -- set Interface gw type=internal -- --if-exists del-port tap_1".split()
    )


def test_only_ids_that_differ_are_written() -> None:
    before = {"cloudrepo-slice": "web", "cloudrepo-vm": "db", "cloudrepo-old": "1"}
    after = {"cloudrepo-slice": "web", "cloudrepo-vm": "web"}
    assert _ovs.set_external_ids("p", before, after) == [
        ["remove", "Port", "p", "external_ids", '"cloudrepo-old"'],
        ["set", "Port", "p", 'external_ids:"cloudrepo-vm"="web"'],
    ]
    assert _ovs.set_external_ids("p", after, after) == []


@pytest.mark.parametrize(
    ("rc", "message"), [(-14, "is it running?"), (1, "ovs-vsctl failed (rc=1): no bridge named br-nope")]
)
def test_a_vswitchd_that_does_not_answer_is_called_so(rc: int, message: str) -> None:
    error = CommandError(["ovs-vsctl", "--timeout=60"], rc, "no bridge named br-nope")
    assert message in _ovs.explain(error)
