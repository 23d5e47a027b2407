# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _overlays
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import Overlay
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import Header
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import CREATE, DELETE, MODIFY

from .disk_images import GIB, MIB, recorded

WEB = Overlay('overlays[0] "web"', "web", "base.img", GIB)


def item(**changes: Any) -> dict[str, Any]:
    return {"name": "web", "image": "base.img", "size_gb": 1.0, **changes}


def disk(**changes: Any) -> dict[str, Any]:
    return {"image": "base.img", "size": GIB, "owner": "qemu", "mode": "0600", **changes}


def planned(have: dict[str, Any], in_use: bool = False, purge: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    actions, pending = _overlays.plan([WEB], have, "qemu", purge, lambda name: in_use)
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


def test_a_disk_in_use_waits_and_nothing_else_is_asked() -> None:
    waits = ["overlay web: size 512 MiB -> 1 GiB needs its VM to be off"]
    assert planned({"web": disk(size=512 * MIB)}, in_use=True) == ([], waits)
    # Its owner changes all the same.
    assert planned({"web": disk(size=512 * MIB, owner="root")}, in_use=True) == ([(MODIFY, "web")], waits)
    assert planned({"web": disk()}, in_use=True) == ([], [])


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


def test_deleting_removes_the_listed_disk_only(tmp_path: Path) -> None:
    for name in ("web_img.qcow2", "db_img.qcow2", "web.json"):
        (tmp_path / name).touch()
    actions, _pending = _overlays.plan([], {"web": disk()}, "qemu", True, lambda name: False)
    assert _overlays.apply(str(tmp_path), actions, {}, "") == _overlays.Applied({}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db_img.qcow2", "web.json"]
