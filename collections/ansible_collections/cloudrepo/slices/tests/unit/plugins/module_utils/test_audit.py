# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import (
    _audit_host,
    _folders,
    _iproute,
    _ovs,
    _ovs_host,
    _probe,
    _qemu,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import (
    Finding,
    as_dicts,
    differences,
    drift,
    running_cards,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._orphans import (
    Entry,
    Host,
    Known,
    Process,
    orphans,
    parse_process,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import actions

from . import nat_hosts, vlan_hosts

CMDLINE = (Path(__file__).parent / "fixtures" / "qemu" / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
NOBODY = Known(frozenset(), frozenset(), frozenset())
WEB = Known(frozenset({"web"}), frozenset({1000}), frozenset({"tap_1001_eth0"}))


# --- drift --------------------------------------------------------------------------------------------------------


def messages(want: dict[str, Any], have: dict[str, Any]) -> list[str]:
    return [f"{finding.item} {finding.message}" for finding in drift("web", "vm", reconcile(want, have, purge=True))]


def test_what_differs_is_named_field_by_field() -> None:
    card = {"name": "eth1", "mac": "52:54:00:00:00:01", "connected": True}
    have = {"db": {"status": "running", "cores": 1, "interfaces": [{**card, "mac": "52:54:00:00:00:09"}]}, "old": {}}
    want = {"db": {"status": "running", "cores": 2, "interfaces": [card]}, "web": {}}
    assert messages(want, have) == [
        "old should not be there",
        "db cores is 1, should be 2",
        "db interfaces.eth1.mac is 52:54:00:00:00:09, should be 52:54:00:00:00:01",
        "web is missing",
    ]


def test_of_lists_and_texts_only_what_differs_is_named() -> None:
    before, after = {"flows": ["a", "b"], "content": "x\ny\n"}, {"flows": ["b", "c", "d", "e"], "content": "x\nz\n"}
    assert differences(before, after) == [("flows", ["a"], ["c", "d", "e"]), ("content", ["y"], ["z"])]
    assert messages({"p": after}, {"p": before}) == [
        "p flows lacks c; d and 1 more and has a too many",
        "p content lacks z and has y too many",
    ]


def test_a_lost_device_explains_everything_else() -> None:
    found = vlan_hosts.without(vlan_hosts.host(), "tap_1001_eth1", "root")
    off = drift("web", "port", actions(vlan_hosts.options(tap_user="nobody"), found))
    assert [(finding.item, finding.message) for finding in off] == [
        ("tap_1001_eth1", "its device is missing, or is not the one that was attached")
    ]


def test_what_a_vm_has_lost_is_said_in_words() -> None:
    have = {"status": "running", "lost_disk": True, "lost_taps": ["tap_1"]}
    assert messages({"a": {"status": "running"}}, {"a": have}) == [
        "a runs on a disk that was deleted",
        "a has lost tap_1",
    ]
    want = {"status": "running", "limits": {"cpu.max": "1"}}
    assert messages({"a": want}, {"a": {"status": "stopped"}}) == ["a status is stopped, should be running"]


def test_secrets_are_not_told() -> None:
    [finding] = drift("web", "vm", reconcile({"a": {"vnc_password": "new"}}, {"a": {"vnc_password": "old"}}, True))
    assert "old" not in str(finding) and "new" not in str(finding) and "vnc_password" in finding.message


def test_the_cards_of_a_running_qemu_are_read_from_its_command_line() -> None:
    have = _qemu.cards(CMDLINE)
    assert have == {"eth0": {"mac": "52:54:00:03:ea:00", "tap": "tapcase3"}}
    assert running_cards("case", "db", have, have) == []
    [finding] = running_cards("case", "db", have, {"eth0": {"mac": "52:54:00:03:ea:01", "tap": "tapcase3"}})
    assert finding.message == "running eth0 mac is 52:54:00:03:ea:00, should be 52:54:00:03:ea:01"


# --- orphans ------------------------------------------------------------------------------------------------------


def a_host(**fields: Any) -> Host:
    found = vlan_hosts.host()
    empty: dict[str, Any] = dict.fromkeys(("namespaces", "processes", "folders", "stale"), ())
    host = Host(bridge="br-int", now=10000, ovs=found.ovs, root=found.root, flows=found.flows, table=None, **empty)
    return host._replace(**fields)


def commands(host: Host, known: Known) -> dict[str, list[str]]:
    return {
        f"{one['slice']} {one['kind']} {one['item']}": [" ".join(argv) for argv in one["commands"]]
        for one in as_dicts(orphans(host, known))
    }


def test_stamped_things_of_unknown_slices_are_orphans() -> None:
    # tap_foreign has neither a stamp nor a name of ours.
    assert commands(a_host(), WEB) == {"db port tap_2001_eth0": ["ip link delete dev tap_2001_eth0"]}
    found = commands(a_host(), NOBODY)
    assert found["web port tap_1001_eth1"] == [
        "ovs-vsctl --if-exists del-port br-int tap_1001_eth1",
        "ip link delete dev tap_1001_eth1",
    ]
    assert found["web port inet_1000"] == ["ovs-vsctl --if-exists del-port br-int inet_1000"]
    assert found[" flows slice ID 1000"] == ["ovs-ofctl --timeout=60 del-flows br-int cookie=0xc10d5ec0000003e8/-1"]


def test_unstamped_things_are_orphans_by_exact_names_of_ours() -> None:
    found = vlan_hosts.host()
    for name in ("tap_7_eth0", "tap_7_eth0x", "t7e1", "gw_vlan5", "inet_5", "tap_1001_eth0"):
        found = vlan_hosts.with_device(found, "root", name, alias="")
    found = vlan_hosts.with_device(found, "root", "t8e1", master="virbr0")
    names = ["slice-1000", "slice-7", "slice-x", "other"]
    host = a_host(root=found.root, ovs=vlan_hosts.bare_host().ovs, flows=(), namespaces=names)
    assert {key for key in commands(host, WEB) if key.startswith(" ")} == {
        " port tap_7_eth0",
        " port t7e1",
        " port gw_vlan5",
        " port inet_5",
        " namespace slice-7",
    }


def test_a_probe_that_runs_is_no_orphan() -> None:
    for started, expected in (("9990", []), ("1000", [" port trunk0"])):
        found = vlan_hosts.with_port(vlan_hosts.host(), "trunk0", external_ids={"cloudrepo-probe": started})
        assert [key for key in commands(a_host(ovs=found.ovs), WEB) if "trunk0" in key] == expected


def test_processes_folders_and_files_of_nobody_are_orphans() -> None:
    host = a_host(
        processes=[Process(11, "web", "web", []), Process(12, "gone", "a", []), Process(13, "gone", "", [])],
        folders=[Entry("/b/gone", "gone", [["rmdir", "/b/gone"]]), Entry("/b/web", "web", [["rmdir", "/b/web"]])],
        stale=[Entry("/b/.x.part", "", [["rm", "x"]], 7200), Entry("/b/.y.part", "", [["rm", "y"]], 60)],
    )
    found = commands(host, WEB._replace(names=frozenset({"web", "db"})))
    assert found == {
        "gone vm a": ["kill -KILL 12"],
        "gone dhcp process": ["kill -KILL 13"],
        "gone file /b/gone": ["rmdir /b/gone"],
        " file /b/.x.part": ["rm x"],
    }


def test_elements_of_nobody_are_orphans_and_a_table_that_nobody_uses() -> None:
    table = nat_hosts.recorded("host.json")
    nat = {key: argv for key, argv in commands(a_host(table=table), WEB).items() if " nat " in key}
    assert nat and all(key.startswith("other nat ") for key in nat)
    assert all(argv[0].startswith("nft delete element inet cloudrepo_slices ") for argv in nat.values())
    unused = {key: argv for key, argv in commands(a_host(table=table), NOBODY).items() if " nat " in key}
    assert unused == {" nat table cloudrepo_slices": ["nft delete table inet cloudrepo_slices"]}


def test_whose_a_process_is() -> None:
    found = parse_process(7, CMDLINE, "/run/casevm", "/d")
    assert found and (found.pid, found.slice, found.vm) == (7, "case", "db")
    served = parse_process(8, ["/usr/sbin/dnsmasq", "--conf-file=/d/web/dnsmasq.conf"], "/run/casevm", "/d")
    assert served and (served.slice, served.vm) == ("web", "")
    for argv in (["qemu", "-pidfile", "/run/casevm/../x/y/qemu.pid"], ["vi", "--conf-file=/d/web/dnsmasq.conf"], [""]):
        assert parse_process(9, argv, "/run/casevm", "/d") is None


# --- what is on the disk -----------------------------------------------------------------------------------------

NOTHING = _audit_host.Scan(True, _ovs_host.Common(_ovs.Database({}, {}), _iproute.Network({}, {}), []), None, [])
VM_A = {"slice": "gone", "name": "a", "id": 1001}


@pytest.fixture
def place(tmp_path: Path) -> _audit_host.Place:
    """A host whose folders are empty."""
    folders = {field: str(tmp_path / field) for field in ("base_dir", "run_dir", "state_dir")}
    for folder in folders.values():
        Path(folder).mkdir()
    return _audit_host.Place(roles=["worker", "network"], bridge="br-int", **folders)


def put(*path: str, text: str = "", old: bool = True) -> Path:
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if old:
        os.utime(file, (0, 0))
    return file


def of_this_place(place: _audit_host.Place, known: Known = NOBODY) -> list[Finding]:
    """The orphans in the place's folders; others are this machine's own."""
    above = os.path.dirname(place.base_dir)
    return [finding for finding in _audit_host.orphans(NOTHING, known, place) if finding.item.startswith(above)]


def test_what_is_not_ours_beside_the_disks_is_never_an_orphan(place: _audit_host.Place) -> None:
    put(place.base_dir, "isos", "debian.iso")
    put(place.base_dir, "isos", "a.json", text='{"slice": "other", "name": "a", "id": 1}')
    put(place.base_dir, "isos", "b.json", text="[1]")
    put(place.base_dir, "gone", "a_img.qcow2", "a_img.qcow2")  # A folder, whatever its name.
    Path(place.base_dir, "empty").mkdir()
    Path(place.base_dir, "link").symlink_to(put(place.run_dir, "..", "elsewhere", "a_img.qcow2").parent)
    put(place.base_dir, "notes.json")
    put(place.base_dir, "sizes.json", text='{"size": 1, "sha256": "", "of": "me"}')
    put(place.base_dir, "cirros.img")
    put(place.base_dir, "cirros.img.json", text='{"size": 0, "sha256": null}')
    assert of_this_place(place) == []


def test_only_our_files_are_removed_and_folders_that_are_empty_then(place: _audit_host.Place) -> None:
    for name in ("gone", "mixed"):
        put(place.base_dir, name, "a_img.qcow2")
        put(place.base_dir, name, "a.console.log")
        put(place.base_dir, name, ".a.json.0123456789abcdef.part")
        put(place.base_dir, name, "a.json", text=json.dumps({**VM_A, "slice": name}))
    kept = [put(place.base_dir, "mixed", "thesis.txt"), put(place.base_dir, "mixed", "old", "a_img.qcow2")]
    put(place.base_dir, "lost.img.json", text='{"size": 1, "sha256": null}')
    put(place.run_dir, "gone", "a", "qemu.pid")
    put(place.state_dir, "gone", "dnsmasq.conf")
    kept += [put(place.state_dir, "gone", "thesis.txt")]
    found = of_this_place(place)
    assert not any("-r" in argv for one in found for argv in one.commands if place.base_dir in " ".join(argv))
    assert _audit_host.remove(found) == (found, [])
    assert [path for path in sorted(Path(place.base_dir).parent.rglob("*")) if path.is_file()] == sorted(kept)
    assert {path.name for path in Path(place.base_dir).iterdir()} == {"mixed"}
    assert of_this_place(place) == []


def test_what_changed_since_it_was_reported_is_another_orphan(place: _audit_host.Place) -> None:
    put(place.base_dir, "gone", "a_img.qcow2")
    reported = as_dicts(of_this_place(place))
    assert len(_audit_host.chosen(of_this_place(place), reported)) == 1
    put(place.base_dir, "gone", "b_img.qcow2")
    assert _audit_host.chosen(of_this_place(place), reported) == []


def test_a_slice_with_an_id_that_is_newer_than_the_registry_has_come_since(place: _audit_host.Place) -> None:
    put(place.base_dir, "gone", "a.json", text=json.dumps(VM_A))
    found = NOTHING._replace(ports=NOTHING.ports._replace(ovs=vlan_hosts.host().ovs))  # The ports of web, ID 1000.
    assert _audit_host.newcomers(found, place, 1002) == set()
    assert _audit_host.newcomers(found, place, 1001) == {"gone"}
    assert _audit_host.newcomers(found, place, 1000) == {"gone", "web"}
    [why] = _audit_host.kept({"gone", "web"}, [{"slice": "gone"}, {"slice": "gone"}, {"slice": "old"}])
    assert why.startswith('slice "gone": it has an ID that the registry has not given out')


def test_the_modules_of_an_orphans_slice_wait(place: _audit_host.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = Path(place.run_dir, "..", "locks")
    monkeypatch.setattr(_folders, "_LOCKS", str(locks))
    disks = put(place.base_dir, "gone", "a_img.qcow2").parent
    run = put(place.run_dir, "gone", "a", "qemu.pid").parent.parent
    wanted = [disks, run, Path(place.base_dir), *(locks / name for name in ("slice_nat", "ovs_vlan-gone"))]
    wanted.append(locks / "dnsmasq-gone")

    def is_free(folder: Path) -> bool:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    with _audit_host.held(place, [{"slice": "gone"}, {"slice": ""}, {"slice": "../x"}]):
        assert [folder for folder in wanted if is_free(folder)] == []
        assert {path.name for path in locks.iterdir()} == {"slice_nat", "ovs_vlan-gone", "dnsmasq-gone"}
    assert is_free(disks) and is_free(run) and list(locks.iterdir()) == []


# --- probes -------------------------------------------------------------------------------------------------------

OURS = b"\x02\xc1\x0d\x00\x00\x01"
A, B, C = (
    {"slice": "web", "name": f"web/{name}", "address": f"192.168.100.{n}", "mac": f"52:54:00:00:00:0{n}"}
    for n, name in ((1, "a"), (2, "b"), (3, "c"))
)
LINK = {"slice": "web", "name": "link 1", "vlan": 100, "members": [A["mac"], B["mac"]], "guests": [A, B], "silence": ""}


def answer(vlan: int | None, address: str, mac: str, operation: int = 2) -> bytes:
    """A frame as a guest's kernel sends it; without a VLAN, as ours hands it over."""
    sender = bytes.fromhex(mac.replace(":", ""))
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    arp = b"\x00\x01\x08\x00\x06\x04" + operation.to_bytes(2, "big") + sender + socket.inet_aton(address)
    return OURS + sender + tag + b"\x08\x06" + arp + OURS + bytes(4) + bytes(18)


def test_a_probe_has_no_sender_address() -> None:
    data = _probe.frame(100, "192.168.100.1", OURS)
    assert data[:18] == b"\xff" * 6 + OURS + b"\x81\x00\x00\x64\x08\x06" and len(data) == 60
    assert data[18:46] == b"\x00\x01\x08\x00\x06\x04\x00\x01" + OURS + bytes(10) + socket.inet_aton("192.168.100.1")


def test_answers_are_read_with_their_tag_in_or_beside_them() -> None:
    expected = _probe.Answer(100, A["address"], A["mac"])
    assert _probe.parse(answer(100, A["address"], A["mac"]), None, OURS) == expected
    assert _probe.parse(answer(None, A["address"], A["mac"]), 100, OURS) == expected
    assert _probe.parse(answer(None, A["address"], A["mac"]), None, OURS) is None
    assert _probe.parse(answer(100, A["address"], A["mac"], operation=1), None, OURS) is None
    assert _probe.parse(answer(100, A["address"], A["mac"])[:40], None, OURS) is None
    assert _probe.parse(b"", 100, OURS) is None


def judged(*answers: tuple[int, str, str], only: str | None = None, **network: Any) -> dict[str, tuple[str, bool]]:
    networks = [{**LINK, **network}]
    results = _probe.judge(networks, [A, B, C], only, [_probe.Answer(*each) for each in answers])
    return {one["name"].partition("VLAN 100")[2]: (one["message"], one["failed"]) for one in results}


def test_declared_links_pass_and_nothing_else_does() -> None:
    sound = [(100, A["address"], A["mac"]), (100, B["address"], B["mac"])]
    assert judged(*sound) == {
        ": web/a (192.168.100.1)": ("answers", False),
        ": web/b (192.168.100.2)": ("answers", False),
        ": others": ("nobody else answers", False),
    }
    # The guest a answers on its link for what it has elsewhere: nobody came through.
    assert judged(*sound, (100, C["address"], A["mac"]))[": others"] == ("nobody else answers", False)
    assert judged(*sound, (100, C["address"], C["mac"]))[": others"] == (
        "web/c (192.168.100.3) is reached, at web/c",
        True,
    )
    assert judged(sound[0])[": web/b (192.168.100.2)"] == ("does not answer", True)
    wrong = judged(sound[0], (100, B["address"], "52:54:00:00:00:99"))[": web/b (192.168.100.2)"]
    assert wrong == ("is answered for by 52:54:00:00:00:99, should be by 52:54:00:00:00:02", True)


def test_a_network_whose_guests_are_not_known_is_said_to_be_skipped() -> None:
    assert judged(guests=[], silence="not probed: no address known")[""] == ("not probed: no address known", False)


def test_for_one_slice_only_what_concerns_it_is_asked() -> None:
    other = {**C, "slice": "red"}
    assert _probe.questions([LINK], [A, B, other], None) == [(100, each["address"]) for each in (A, B, C)]
    assert _probe.questions([LINK], [A, B, other], "red") == [(100, C["address"])]
