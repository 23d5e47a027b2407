# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host carries of slices; the database and the devices as the real tools print them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _host, _iproute, _ovs, _stamps


def port(name: str, **external_ids: str) -> _ovs.Port:
    return _ovs.Port(name, "br-int", 100, external_ids, False, "")


def device(name: str, alias: str) -> _iproute.Device:
    return _iproute.Device(name, alias, True, "", [], "")


def test_a_vm_is_known_by_its_manifest_its_disk_or_its_folder(tmp_path: Path) -> None:
    base, run = tmp_path / "images", tmp_path / "run"
    disks = base / "web"
    disks.mkdir(parents=True)
    (base / "cirros.img").touch()
    (disks / "a.json").write_text(json.dumps({"name": "a", "record": {"vm": {"id": 1}}}))
    (disks / "a_img.qcow2").touch()
    (disks / "b.json").write_text('{"name": "b"}')
    (disks / "c.json").write_text("{")
    (disks / "d_img.qcow2").touch()
    (disks / ".e.json.0123456789abcdef.part").touch()
    (run / "web" / "f").mkdir(parents=True)

    def vm(name: str, record: Any = None) -> dict[str, Any]:
        return {"slice": "web", "name": name, "record": record}

    found = _stamps.vms(str(base), str(run))
    assert found == [vm("a", {"vm": {"id": 1}}), vm("b"), vm("c"), vm("d"), vm("f")]
    assert _stamps.vms(str(tmp_path / "no"), str(tmp_path / "where")) == []


def test_a_port_tells_its_slice_owner_and_pool() -> None:
    owner = 'EXAMPLE\\o\'dd "us,er"=x'
    stamp = {"cloudrepo-slice": "web", "cloudrepo-slice-id": "1000", "cloudrepo-owner": owner}
    ours = port("tap_1001_eth1", **stamp, **{"cloudrepo-pool": "100-119", "cloudrepo-vm": "db"})
    older = port("gw_vlan100", **{"cloudrepo-slice": "web", "cloudrepo-slice-id": "1x"})
    foreign = port("eth1", other="x")

    found = _stamps.ports(_ovs.Database({}, {each.name: each for each in (ours, older, foreign)}))

    assert found == [
        {**dict.fromkeys(("slice_id", "owner", "vlan_pool", "vm")), "name": "gw_vlan100", "vlan": 100, "slice": "web"},
        {
            "name": "tap_1001_eth1",
            "vlan": 100,
            "slice": "web",
            "slice_id": 1000,
            "owner": owner,
            "vlan_pool": {"first": 100, "size": 20},
            "vm": "db",
        },
    ]


def test_taps_are_known_by_their_alias() -> None:
    devices = [
        device("tap_1001_eth0", "cloudrepo slice=web vm=db interface=eth0"),
        device("gw_vlan100", "cloudrepo slice=web"),
        device("eth0", "uplink slice=web vm=db"),
    ]
    found = _stamps.taps(_iproute.Network({each.name: each for each in devices}, {}))
    assert found == [{"name": "tap_1001_eth0", "slice": "web", "vm": "db"}]


def test_guests_are_those_that_the_names_file_names(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    lines = ["# Written by", "10.60.7.10 web.web.internal web", "192.168.100.11 db.web.internal db"]
    (tmp_path / "web" / "names").write_text("\n".join(lines) + "\n")
    (tmp_path / "other").mkdir()

    assert _stamps.guests(str(tmp_path)) == [{"slice": "web", "name": "db"}, {"slice": "web", "name": "web"}]


def test_a_namespace_tells_the_slices_id(tmp_path: Path) -> None:
    for name in ("slice-1000", "slice-x", "qdhcp"):
        (tmp_path / name).touch()
    assert _host.namespaces(str(tmp_path)) == [{"name": "slice-1000", "slice_id": 1000}]
