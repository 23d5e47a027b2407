# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _overlays
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import Overlay
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import Header
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu_img import create_argv
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import CREATE, DELETE, MODIFY
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import Host

from .disk_images import GIB, MIB, recorded

WEB = Overlay('overlays[0] "web"', "web", "base.img", GIB)


def item(**changes: Any) -> dict[str, Any]:
    return {"name": "web", "image": "base.img", "size_gb": 1.0, **changes}


def disk(**changes: Any) -> dict[str, Any]:
    return {"image": "base.img", "size": GIB, "owner": "qemu", "mode": "0600", **changes}


def planned(
    have: dict[str, Any], can_grow: bool = True, purge: bool = False
) -> tuple[list[tuple[str, str]], list[str]]:
    actions, pending = _overlays.plan([WEB], have, "qemu", purge, lambda name: can_grow)
    return [(action.kind, action.name) for action in actions], pending


@pytest.mark.parametrize(("size_gb", "mib"), [(1, 1024), (2.2, 2253), (0.5, 512), (0.0001, 1), (2.19921875, 2252)])
def test_sizes_are_rounded_up_to_whole_mib(size_gb: float, mib: int) -> None:
    assert _overlays.size_in_bytes(size_gb) == mib * MIB


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([item(name="../web")], r'overlays\[0\] "../web": the name must be'),
        ([item(), item()], r'overlays\[1\] "web": the name is used by overlays\[0\] "web" already'),
        ([item(image="../base.img")], '"../base.img" is not the file name'),
        ([item(image=".base.img.0123456789abcdef.part")], "is not the file name"),
        ([item(image="base.img.json")], "is not the file name"),
        ([item(image="-o")], "is not the file name"),
        ([item(size_gb=None)], "image and size_gb are required"),
        ([item(size_gb=0.0)], "size_gb must be more than 0"),
        ([item(size_gb=float("nan"))], "size_gb must be more than 0"),
        ([item(size_gb=float("inf"))], "size_gb must be more than 0"),
    ],
)
def test_a_bad_list_is_refused_by_item(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ItemError, match=message):
        _overlays.parse(items)


def test_a_disk_must_hold_its_base_image() -> None:
    _overlays.check_size(WEB, Header("qcow2", GIB, False, False))
    with pytest.raises(ItemError, match=r'"web": the disk\'s size 1 GiB is smaller than its base image base.img'):
        _overlays.check_size(WEB, Header("raw", GIB + 1, False, False))


def test_what_is_there_is_created_grown_given_and_purged() -> None:
    assert planned({}) == ([(CREATE, "web")], [])
    assert planned({"web": disk()}) == ([], [])
    assert planned({"web": disk(size=512 * MIB)}) == ([(MODIFY, "web")], [])
    assert planned({"web": disk(owner="root")}) == ([(MODIFY, "web")], [])
    assert planned({"web": disk(), "old": disk()}) == ([], [])
    assert planned({"web": disk(), "old": disk()}, purge=True) == ([(DELETE, "old")], [])


def test_a_disk_that_cannot_grow_now_waits_and_nothing_else_is_asked() -> None:
    waits = ["overlay web: size 512 MiB -> 1 GiB needs its VM to be off"]
    assert planned({"web": disk(size=512 * MIB)}, can_grow=False) == ([], waits)
    # Its owner changes all the same.
    assert planned({"web": disk(size=512 * MIB, owner="root")}, can_grow=False) == ([(MODIFY, "web")], waits)
    assert planned({"web": disk()}, can_grow=False) == ([], [])


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        (disk(size=2 * GIB), "the disk has 2 GiB and can't shrink to 1 GiB"),
        (disk(image="other.img"), "is based on other.img, not on base.img; it is never overwritten"),
        (disk(image="/elsewhere/base.img"), "is based on /elsewhere/base.img, not on base.img"),
        (disk(image=""), "is based on no image"),
        (disk(image="", size=None), "is not a qcow2 image"),
    ],
)
def test_an_existing_disk_is_never_overwritten(existing: dict[str, Any], message: str) -> None:
    with pytest.raises(ItemError, match=message):
        planned({"web": existing})


def test_the_scan_sees_our_disks_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "slice"
    folder.mkdir()
    for name in ("web_img.qcow2", "UPPER_img.qcow2", ".web_img.qcow2.0123456789abcdef.part", "web.json", "notes"):
        (folder / name).write_bytes(recorded("overlay"))
    (folder / "cut_img.qcow2").write_bytes(recorded("overlay")[:50])
    (folder / "link_img.qcow2").symlink_to(folder / "web_img.qcow2")
    (folder / "web_img.qcow2").chmod(0o640)

    found = _overlays.scan(str(folder))
    assert found["web"] == {
        "image": "/tmp/images/base.qcow2",  # Not in this cache.
        "size": 100 * MIB,
        "owner": getpass.getuser(),
        "mode": "0640",
    }
    # A broken disk can be removed, and is not taken for what is wanted.
    assert (found["cut"]["image"], found["cut"]["size"]) == ("", None)
    assert sorted(found) == ["cut", "web"]
    assert _overlays.scan(str(tmp_path / "none")) == {}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(str(tmp_path / "images"), str(tmp_path / "run"), "case")
    (tmp_path / "images" / "case").mkdir(parents=True)
    Path(host.paths("web").folder).mkdir(parents=True)
    return host


class Qemu:
    """Holds a disk as a running VM does, and plays its QMP for one client at a time, with what QEMU 7.2 answers."""

    def __init__(self, socket_path: str, disk: str) -> None:
        self.heard: list[dict[str, Any]] = []
        nodes = [{"node-name": "#block1", "file": disk}, {"node-name": "disk", "file": disk, "drv": "qcow2"}]
        self._answers = {"query-named-block-nodes": nodes}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(socket_path)
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._server.accept()
                with client, client.makefile("rwb", buffering=0) as lines:
                    lines.write(b'{"QMP": {}}\r\n')
                    for line in lines:
                        self.heard.append(json.loads(line))
                        answer = {"return": self._answers.get(self.heard[-1]["execute"], {})}
                        lines.write(json.dumps(answer).encode() + b"\r\n")

    def end(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()


@pytest.fixture
def locked_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str]) -> str:
        raise CommandError(argv, 1, 'Failed to get shared "write" lock\nIs another process using the image?')

    monkeypatch.setattr(_overlays, "run", run)


def grown(host: Host) -> tuple[bool, _overlays.Applied]:
    Path(host.paths("web").disk).touch()
    before = disk(size=512 * MIB, owner=getpass.getuser())
    possible = _overlays.can_grow(host, "web")
    actions, _pending = _overlays.plan([WEB], {"web": before}, getpass.getuser(), False, lambda name: True)
    return possible, _overlays.apply(host, actions, {}, getpass.getuser())


@pytest.mark.usefixtures("locked_disk")
def test_the_disk_of_a_running_vm_is_grown_by_its_qemu(host: Host) -> None:
    qemu = Qemu(host.paths("web").qmp, host.paths("web").disk)
    assert grown(host) == (True, _overlays.Applied({}, {}))
    qemu.end()
    # Asking whether it can grow changes nothing.
    [resize] = [said for said in qemu.heard if said["execute"] == "block_resize"]
    assert resize["arguments"] == {"node-name": "disk", "size": GIB}


@pytest.mark.usefixtures("locked_disk")
def test_a_disk_whose_qemu_does_not_answer_waits(host: Host) -> None:
    waits = {"web": "overlay web: size 512 MiB -> 1 GiB needs its VM to be off"}
    assert grown(host) == (False, _overlays.Applied({}, waits))


@pytest.mark.usefixtures("locked_disk")
def test_a_qemu_that_has_another_disk_is_left_alone(host: Host) -> None:
    qemu = Qemu(host.paths("web").qmp, "/elsewhere/web_img.qcow2")
    possible, applied = grown(host)
    qemu.end()
    assert (possible, list(applied.pending)) == (False, ["web"])
    assert "block_resize" not in [said["execute"] for said in qemu.heard]


def test_deleting_removes_the_listed_disk_only(host: Host) -> None:
    folder = Path(host.base_dir) / "case"
    for name in ("web_img.qcow2", "db_img.qcow2", "web.json"):
        (folder / name).touch()
    actions, _pending = _overlays.plan([], {"web": disk()}, "qemu", True, lambda name: True)
    assert _overlays.apply(host, actions, {}, "") == _overlays.Applied({}, {})
    assert sorted(path.name for path in folder.iterdir()) == ["db_img.qcow2", "web.json"]


def test_disks_of_one_kind_are_what_one_qemu_img_makes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(host.base_dir) / host.slice_name
    base = Path(host.base_dir) / "base.img"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"])
    made: list[list[str]] = []

    def counted(argv: list[str]) -> str:
        made.append(argv)
        return run(argv)

    monkeypatch.setattr(_overlays, "run", counted)
    want = [Overlay("", name, "base.img", size) for name, size in (("a", GIB), ("b", GIB), ("c", 2 * GIB))]
    actions, _pending = _overlays.plan(want, {}, getpass.getuser(), False, lambda name: True)
    bases = {"base.img": Header("qcow2", 64 * MIB, False, False)}
    assert _overlays.apply(host, actions, bases, getpass.getuser()) == ({}, {})
    assert len(made) == 2
    other = folder / "other"
    for name, size in (("a", GIB), ("b", GIB), ("c", 2 * GIB)):
        run(create_argv(str(other), size, str(base), "qcow2"))
        disk = folder / f"{name}_img.qcow2"
        assert disk.read_bytes() == other.read_bytes()
        assert disk.stat().st_blocks <= other.stat().st_blocks
    assert sorted(path.name for path in folder.iterdir()) == ["a_img.qcow2", "b_img.qcow2", "c_img.qcow2", "other"]
