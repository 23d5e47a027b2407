# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _cgroup, _qemu
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import CREATE, DELETE, MODIFY

PATHS = _qemu.vm_paths("/var/lib/casevm", "/run/casevm", "case", "db")
COMMON = {"vnc_listen": "127.0.0.1", "accelerator": "auto", "nic_offload": False, "user": "slices-qemu"}

# /proc/<pid>/cmdline of a running QEMU 7.2.
CMDLINE = (Path(__file__).parent / "fixtures" / "qemu" / "cmdline").read_bytes()


def nic(index: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": f"eth{index}",
        "tap": f"tapcase{index}",
        "mac": f"52:54:00:03:ea:{index:02x}",
        "connected": True,
        **changes,
    }


def vm(**changes: Any) -> dict[str, Any]:
    fields = {"name": "db", "id": 1002, "cores": 1, "memory_mb": 256, "vnc_port": 5978, "interfaces": [nic(0)]}
    return {**fields, "record": None, **changes}


def config(**changes: Any) -> dict[str, Any]:
    return dict(_qemu.parse([vm(**changes)], COMMON, {})["db"])


def running(**changes: Any) -> dict[str, Any]:
    return {"status": "running", **config(**changes)}


def value(argv: list[str], flag: str, start: str = "") -> str:
    """The one argument after ``flag`` that starts like this."""
    [found] = [after for before, after in pairwise(argv) if before == flag and after.startswith(start)]
    return found


def test_the_command_is_the_one_that_was_seen_to_work() -> None:
    recorded = CMDLINE.decode().split("\0")[:-1]
    argv = _qemu.argv("case", "db", config(interfaces=[nic(0, tap="tapcase3")]), PATHS, "tcg")
    assert argv == recorded


def test_a_comma_never_starts_another_option() -> None:
    paths = _qemu.vm_paths("/images,readonly=on", "/run,server=off", "case", "db")
    argv = _qemu.argv("case", "db", config(), paths, "tcg")
    assert "file.filename=/images,,readonly=on/case/db_img.qcow2," in value(argv, "-blockdev")
    assert "path=/run,,server=off/case/db/qmp.sock," in value(argv, "-chardev", "socket,id=qmp")
    assert "logfile=/images,,readonly=on/case/db.console.log," in value(argv, "-chardev", "socket,id=console")
    # This one is no list of options.
    assert value(argv, "-pidfile") == "/run,server=off/case/db/qemu.pid"
    assert _qemu.option({"a": "x,y=z", "b": True, "c": False, "d": 1}, "word") == "word,a=x,,y=z,b=on,c=off,d=1"


def test_interfaces_have_slots_of_their_own_in_order() -> None:
    argv = _qemu.argv("case", "db", config(interfaces=[nic(index) for index in range(24)]), PATHS, "tcg")
    cards = [word for word in argv if word.startswith("virtio-net-pci")]
    slots = [int(card.rsplit("addr=", 1)[1], 16) for card in cards]
    assert slots == list(range(5, 29))
    assert [card.split("mac=")[1][:17] for card in cards] == [nic(index)["mac"] for index in range(24)]
    others = [word for word in argv if "addr=0x" in word and word not in cards]
    assert {int(word.split("addr=")[1].split(",")[0], 16) for word in others}.isdisjoint(slots)


def test_offload_vnc_and_accelerator() -> None:
    offload = _qemu.argv("case", "db", {**config(), "nic_offload": True, "vnc_listen": "::1"}, PATHS, "kvm")
    assert "vnet_hdr" not in value(offload, "-netdev")
    assert value(offload, "-vnc") == "[::1]:78"
    assert (value(offload, "-accel"), value(offload, "-cpu")) == ("kvm", "host")
    assert value(_qemu.argv("case", "db", config(), PATHS, "tcg"), "-netdev").endswith(",vnet_hdr=off")


def test_a_screen_with_a_password_lets_nobody_in_without() -> None:
    with_password = _qemu.parse([vm()], {**COMMON, "vnc_listen": "0.0.0.0"}, {"db": "pa,ss=wd"})["db"]
    argv = _qemu.argv("case", "db", with_password, PATHS, "tcg")
    assert value(argv, "-vnc") == "0.0.0.0:78,password=on"
    # It is in no argument, which everybody on the host can read, and in no manifest.
    assert "pa,ss=wd" not in str(with_password) and not any("pa" in word and "wd" in word for word in argv[20:])
    assert planned({"db": running()}) == ([], [])
    changes = _qemu.restart_changes(running(), {**running(), "vnc_password": True})
    assert changes == ["vnc_password False -> True"]


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "10.0.10.1", "fd00::1"])
def test_a_screen_that_others_reach_needs_a_password(listen: str) -> None:
    with pytest.raises(ItemError, match=r'vms\[0\] "db": its screen would be open to others on .*slices_vnc_passwords'):
        _qemu.parse([vm()], {**COMMON, "vnc_listen": listen}, {"web": "secret"})
    for loopback in ("127.0.0.1", "127.8.8.8", "::1"):
        assert _qemu.parse([vm()], {**COMMON, "vnc_listen": loopback}, {})["db"]["vnc_password"] is False


@pytest.mark.parametrize("password", ["", "ninechars", "tab\there", "ümlaut", None, "line\n"])
def test_a_password_that_vnc_would_cut_is_refused_and_not_named(password: str | None) -> None:
    with pytest.raises(ItemError, match=r'vms\[0\] "db": a VNC password is a text of 1 to 8 ASCII characters$'):
        _qemu.parse([vm()], COMMON, {"db": password})


@pytest.mark.parametrize(
    ("vms", "message"),
    [
        ([vm(name="a,b")], r'vms\[0\] "a,b": the name must be'),
        ([vm(cores=None)], r'vms\[0\] "db": cores is required'),
        ([vm(memory_mb=0)], "memory_mb must be at least 1, not 0"),
        ([vm(vnc_port=5899)], "vnc_port must be 5900 to 65535, not 5899"),
        ([vm(interfaces=[nic(index) for index in range(25)])], "25 interfaces are more than 24"),
        ([vm(interfaces=[nic(0), nic(0, tap="x", mac="52:54:00:00:00:01")])], 'two interfaces "eth0"'),
        ([vm(interfaces=[nic(0, name="eth0,id=x")])], '"eth0,id=x" is not the name of an interface'),
        ([vm(interfaces=[nic(0, tap="../tap")])], '"../tap" is not the name of an interface'),
        ([vm(interfaces=[nic(0, mac="52:54:00:03:ea")])], 'interface "eth0": "52:54:00:03:ea" is not a MAC'),
        ([vm(interfaces=[nic(0, mac="53:54:00:03:ea:00")])], "is not a MAC address"),  # multicast
        ([vm(), vm(name="web", interfaces=[])], r'vms\[1\] "web": vnc_port 5978 is used by vms\[0\] "db" already'),
        ([vm(), vm(name="web", vnc_port=5979)], "tap tapcase0 is used by"),
        (
            [vm(), vm(name="web", vnc_port=5979, interfaces=[nic(0, tap="other", mac="52:54:00:03:EA:00")])],
            "mac 52:54:00:03:ea:00 is used by",
        ),
    ],
)
def test_a_bad_list_is_refused_by_item(vms: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ItemError, match=message):
        _qemu.parse(vms, COMMON, {})


def test_addresses_and_folders_are_checked() -> None:
    assert _qemu.check_address("::0001") == "::1"
    with pytest.raises(ItemError, match="is not an IP address"):
        _qemu.check_address("0.0.0.0,password=off")
    longest = _qemu.vm_paths("/images", "/run/cloudrepo/vms", "s" * 32, "v" * 32)
    _qemu.check_paths(longest, "vms[0]")
    with pytest.raises(ItemError, match="too long for a socket"):
        _qemu.check_paths(_qemu.vm_paths("/images", "/run/" + "x" * 60, "s" * 32, "v" * 32), "vms[0]")


def test_a_process_is_ours_by_its_own_pidfile_only() -> None:
    assert _qemu.is_ours(CMDLINE, PATHS)
    assert not _qemu.is_ours(CMDLINE, _qemu.vm_paths("/var/lib/casevm", "/run/casevm", "case", "web"))
    assert not _qemu.is_ours(CMDLINE, _qemu.vm_paths("/var/lib/casevm", "/run/casevm", "other", "db"))
    # A zombie has none; and somebody who looks at the file is not QEMU.
    assert not _qemu.is_ours(b"", PATHS)
    assert not _qemu.is_ours(b"tail\0-f\0" + PATHS.pidfile.encode() + b"\0", PATHS)


def planned(have: dict[str, Any], restart: bool = False, **wanted: Any) -> tuple[list[tuple[str, str, Any]], list[str]]:
    actions, pending = _qemu.plan({"db": config(**wanted)}, have, purge=True, allow_restart=restart, limited=False)
    return [(action.kind, action.name, action.changed_keys()) for action in actions], pending


def test_vms_are_started_resumed_and_purged() -> None:
    assert planned({})[0][0][:2] == (CREATE, "db")
    assert planned({"db": running()}) == ([], [])
    assert planned({"db": {**config(), "status": "stopped"}}) == ([(MODIFY, "db", ["status"])], [])
    assert planned({"db": {**config(), "status": "paused"}}) == ([(MODIFY, "db", ["status"])], [])
    [purged] = planned({"db": running(), "old": running()})[0]
    assert purged[:2] == (DELETE, "old")


def test_links_change_at_once_and_the_rest_waits_for_a_restart() -> None:
    down = [nic(0, connected=False)]
    assert planned({"db": running()}, interfaces=down) == ([(MODIFY, "db", ["interfaces"])], [])
    assert _qemu.restart_changes(running(), config(interfaces=down)) == []

    waits = ["vm db: cores 1 -> 2 needs a restart (slices_allow_restart=true)"]
    assert planned({"db": running()}, cores=2) == ([], waits)
    assert planned({"db": running()}, cores=2, interfaces=down) == ([(MODIFY, "db", ["interfaces"])], waits)
    assert planned({"db": running()}, cores=2, restart=True) == ([(MODIFY, "db", ["cores"])], [])
    # One that is off takes over everything when it starts.
    assert planned({"db": {**config(), "status": "stopped"}}, cores=2) == ([(MODIFY, "db", ["cores", "status"])], [])


@pytest.mark.parametrize(
    ("interfaces", "changes"),
    [
        ([nic(0), nic(1)], "interfaces eth0 -> eth0 eth1, eth1 none -> tapcase1 (52:54:00:03:ea:01)"),
        ([], "interfaces eth0 -> none, eth0 tapcase0 (52:54:00:03:ea:00) -> none"),
        ([nic(0, tap="other")], "eth0 tapcase0 (52:54:00:03:ea:00) -> other (52:54:00:03:ea:00)"),
    ],
)
def test_other_changes_of_interfaces_are_named(interfaces: list[dict[str, Any]], changes: str) -> None:
    message = f"vm db: {changes} needs a restart (slices_allow_restart=true)"
    assert planned({"db": running()}, interfaces=interfaces) == ([], [message])


def test_a_record_changes_at_once_also_where_something_else_waits_for_a_restart() -> None:
    have = running(record={"vm": {"position": 1}})
    record = {"vm": {"position": 0}}
    assert planned({"db": have}, record=record) == ([(MODIFY, "db", ["record"])], [])
    assert planned({"db": have}, record=record, cores=2)[0] == [(MODIFY, "db", ["record"])]


def test_a_card_whose_tap_was_deleted_waits_for_a_restart() -> None:
    dead = {**running(), "lost_taps": ["tapcase0"]}
    waits = ["vm db: eth0 lost its TAP tapcase0 needs a restart (slices_allow_restart=true)"]
    assert planned({"db": dead}) == ([], waits)
    assert planned({"db": dead}, restart=True) == ([(MODIFY, "db", ["lost_taps"])], [])
    # What else changes while it runs still does, and is no restart.
    [action], pending = _qemu.plan(
        {"db": config(interfaces=[nic(0, connected=False)])}, {"db": dead}, True, False, False
    )
    assert (action.changed_keys(), pending) == (["interfaces"], waits)
    assert _qemu.restart_changes(action.before or {}, action.after or {}) == []
    # An interface that is to go needs its TAP no more.
    [message] = planned({"db": dead}, interfaces=[])[1]
    assert "lost" not in message


def test_a_vm_whose_disk_was_deleted_waits_for_a_restart() -> None:
    lost = {**running(), "lost_disk": True}
    assert planned({"db": lost}) == ([], ["vm db: lost its disk needs a restart (slices_allow_restart=true)"])
    assert planned({"db": lost}, restart=True) == ([(MODIFY, "db", ["lost_disk"])], [])


def test_limits_are_those_of_what_runs_and_change_while_it_does() -> None:
    def limits(cores: int) -> dict[str, str]:
        return _cgroup.vm_limits(cores, 256)

    def changed(have: dict[str, Any], **wanted: Any) -> list[tuple[dict[str, str] | None, bool]]:
        actions, _pending = _qemu.plan({"db": config(**wanted)}, {"db": have}, False, False, limited=True)
        restarts = [_qemu.restart_changes(action.before or {}, action.after or {}) != [] for action in actions]
        return [
            ((action.after or {}).get("limits"), restart) for action, restart in zip(actions, restarts, strict=True)
        ]

    assert changed({**running(), "limits": limits(1)}) == []
    assert changed({**running(), "limits": None}) == [(limits(1), False)]
    # Two cores are wanted and wait for a restart: until then it keeps the limits of one.
    assert changed({**running(), "limits": limits(1)}, cores=2) == []
    assert changed({"status": "stopped", **config()}, cores=2)[0][0] == limits(2)


@pytest.mark.parametrize(
    ("fdinfo", "tap"),
    [
        # /proc/<pid>/fdinfo/<fd> of a TUN device with its TAP, after the TAP was deleted, and of something else.
        ("pos:\t0\nflags:\t02100002\nmnt_id:\t24\nino:\t105\niff:\ttapq\n", "tapq"),
        ("pos:\t0\nflags:\t02100002\nmnt_id:\t24\nino:\t105\niff:\t\n", None),
        ("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1057\n", None),
    ],
)
def test_the_kernel_tells_to_which_tap_a_descriptor_is_attached(fdinfo: str, tap: str | None) -> None:
    assert _qemu.attached_tap(fdinfo) == tap


def test_a_running_vm_without_its_manifest_is_not_what_is_wanted() -> None:
    actions, [message] = planned({"db": {"status": "running"}})
    assert actions == []
    assert "cores unknown -> 1" in message


def test_a_paused_vm_without_its_manifest_is_resumed_and_waits() -> None:
    [action], pending = _qemu.plan(
        {"db": config()}, {"db": {"status": "paused"}}, purge=True, allow_restart=False, limited=False
    )
    assert (action.before, action.after, len(pending)) == ({"status": "paused"}, {"status": "running"}, 1)
    assert _qemu.changed_links(action.before or {}, action.after or {}) == {}
