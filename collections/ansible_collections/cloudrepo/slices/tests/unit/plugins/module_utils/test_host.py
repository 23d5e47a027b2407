# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _host

BASE_IMAGE = Path(__file__).parent / "fixtures" / "qcow2" / "base"
MEMINFO = """\
MemTotal:       24683892 kB
MemFree:        11079296 kB
MemAvailable:   20949812 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


def test_memory_is_read_in_kib() -> None:
    assert _host.parse_meminfo(MEMINFO) == 24683892


def test_capacity_is_that_of_this_host(tmp_path: Path) -> None:
    room = _host.capacity(str(tmp_path))

    status = os.statvfs(tmp_path)
    assert room["cores"] == len(os.sched_getaffinity(0))
    assert room["memory_mb"] == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20, abs=2)
    assert room["disk_mb"] == pytest.approx(status.f_bavail * status.f_frsize / 2**20, rel=0.05)


def test_a_missing_folder_has_the_room_of_the_one_above(tmp_path: Path) -> None:
    assert _host.capacity(str(tmp_path / "not" / "yet"))["disk_mb"] > 0


def test_what_overlays_occupy_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host, "_free_bytes", lambda path: 0)
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "web_img.qcow2").write_bytes(os.urandom(3 * 2**20))
    with (folder / "sparse_img.qcow2").open("wb") as file:
        file.truncate(2**30)
    (folder / "foreign.img").write_bytes(os.urandom(2**20))
    (tmp_path / "base.img").write_bytes(os.urandom(2**20))

    assert _host.capacity(str(tmp_path))["disk_mb"] == 3


def test_images_are_those_that_are_whole(tmp_path: Path) -> None:
    for name in ("sent.img", "by-hand.img", "cut.img", "odd.img", ".part.img.0123456789abcdef.part"):
        shutil.copyfile(BASE_IMAGE, tmp_path / name)
    for name, size in (("sent.img", (tmp_path / "sent.img").stat().st_size), ("cut.img", 1)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"size": size, "sha256": "00"}))
    (tmp_path / "odd.img.json").write_text("[]")
    (tmp_path / "raw.img").write_bytes(b"\0" * 512)
    (tmp_path / "broken.img").write_bytes(b"QFI\xfb")
    (tmp_path / "web").mkdir()

    assert _host.images(str(tmp_path)) == {
        "by-hand.img": (64 * 2**20, 640),
        "raw.img": (512, 512),
        "sent.img": (64 * 2**20, 640),
    }


def test_no_cache_has_no_images(tmp_path: Path) -> None:
    assert _host.images(str(tmp_path / "nothing")) == {}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the only programs there are."""
    monkeypatch.setattr(_host, "_SEARCH_PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("")
        (folder / name).chmod(0o755)


def test_a_prepared_host_lacks_nothing(programs: Path) -> None:
    install(programs, "qemu-system-x86_64", "qemu-img", "ovs-vsctl", "ip", "dnsmasq", "nft")

    assert _host.missing(["worker", "network"], "lo", pwd.getpwuid(os.getuid()).pw_name) == []


def test_every_role_has_needs_of_its_own(programs: Path) -> None:
    install(programs, "ip")

    bridge = "bridge br-none does not exist"
    ovs = "ovs-vsctl is not installed"
    assert _host.missing(["worker"], "br-none", "no-such-user") == [
        "qemu-system-x86_64 is not installed",
        "qemu-img is not installed",
        ovs,
        bridge,
        "user no-such-user does not exist",
    ]
    network = ["dnsmasq is not installed", "nft is not installed", ovs, bridge]
    assert _host.missing(["network"], "br-none", "no-such-user") == network
    assert len(_host.missing(["worker", "network"], "br-none", "no-such-user")) == 7


@pytest.mark.parametrize(
    ("accelerator", "listen", "passwords", "wrong"),
    [
        ("tcg", "127.0.0.1", False, []),
        ("auto", "127.8.8.8", False, []),
        ("tcg", "0.0.0.0", True, []),
        (
            "tcg",
            "0.0.0.0",
            False,
            ["slices_vnc_listen is 0.0.0.0, which others reach, and slices_vnc_passwords is not"],
        ),
        ("tcg", "192.0.2.1", True, ["slices_vnc_listen is 192.0.2.1, which is no address of this host"]),
        (
            "warp",
            "localhost",
            False,
            ['slices_accelerator is "warp"', 'slices_vnc_listen is "localhost", which is not'],
        ),
    ],
)
def test_settings_that_a_worker_cannot_follow(accelerator: str, listen: str, passwords: bool, wrong: list[str]) -> None:
    found = _host.wrong(["worker"], accelerator, listen, passwords)
    assert [text.startswith(start) for text, start in zip(found, wrong, strict=True)] == [True] * len(wrong)
    assert _host.wrong(["network"], accelerator, listen, passwords) == []
