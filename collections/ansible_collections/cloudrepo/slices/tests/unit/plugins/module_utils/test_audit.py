# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _probe, _qemu
from ansible_collections.cloudrepo.slices.plugins.module_utils._audit import as_dicts, differences, drift, running_cards
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
        folders=[Entry("/b/gone", "gone", True, 0), Entry("/b/web", "web", True, 0)],
        stale=[Entry("/b/.x.part", "", False, 7200), Entry("/b/.y.part", "", False, 60)],
    )
    found = commands(host, WEB._replace(names=frozenset({"web", "db"})))
    assert found == {
        "gone vm a": ["kill -KILL 12"],
        "gone dhcp process": ["kill -KILL 13"],
        "gone file /b/gone": ["rm -r -- /b/gone"],
        " file /b/.x.part": ["rm -- /b/.x.part"],
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
