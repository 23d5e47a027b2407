# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import signal
import stat
import sys
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._images import (
    Incoming,
    adopt_image,
    pass_over,
    scan_images,
    store_image,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

from .disk_images import recorded

WHERE = 'overlays[0] "web"'
USERS = {"base.img": WHERE}


def arrived(path: Path, content: bytes) -> Incoming:
    """An image as the controller has sent it."""
    path.write_bytes(content)
    return Incoming(len(content), hashlib.sha256(content).hexdigest(), str(path))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def test_an_image_arrives_whole_with_its_record(tmp_path: Path, cache: Path) -> None:
    content = recorded("base")
    sent = arrived(tmp_path / "sent", content)
    store_image(str(cache), "base.img", sent, WHERE)

    assert sorted(path.name for path in cache.iterdir()) == ["base.img", "base.img.json"]
    assert (cache / "base.img").read_bytes() == content
    assert stat.S_IMODE((cache / "base.img").stat().st_mode) == 0o644
    assert json.loads((cache / "base.img.json").read_text()) == {"size": sent.size, "sha256": sent.sha256}
    found = scan_images(str(cache), USERS)["base.img"]
    assert (found.size, found.has_sidecar) == (len(content), True)


@pytest.mark.parametrize(
    ("content", "sent", "message"),
    [
        (recorded("base"), recorded("base")[:-1], "did not arrive whole"),
        (recorded("base"), recorded("base")[:-1] + b"x", "did not arrive whole"),
        (recorded("overlay"), None, "has a backing file"),
        (recorded("external"), None, "has an external data file"),
    ],
)
def test_a_bad_image_leaves_nothing(
    content: bytes, sent: bytes | None, message: str, tmp_path: Path, cache: Path
) -> None:
    incoming = arrived(tmp_path / "sent", content)
    if sent is not None:
        (tmp_path / "sent").write_bytes(sent)
    with pytest.raises(ItemError, match=message) as error:
        store_image(str(cache), "base.img", incoming, WHERE)
    assert str(error.value).startswith(WHERE)
    assert list(cache.iterdir()) == []


def follows(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Something comes on standard input, of which a part has been read already."""
    stdin = io.BufferedReader(io.BytesIO(b"the order\n" + sent))  # type: ignore[arg-type]  # typeshed wants a RawIOBase.
    stdin.readline()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))


def test_images_come_on_standard_input_one_after_the_other(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [recorded("base"), recorded("base") + bytes(3 * 2**20)]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    follows(monkeypatch, b"".join(content + sha256.encode() for content, sha256 in zip(contents, hashes, strict=True)))
    for image, content, sha256 in zip(("a.img", "b.img"), contents, hashes, strict=True):
        store_image(str(cache), image, Incoming(len(content), "", ""), WHERE)
        assert (cache / image).read_bytes() == content
        assert json.loads((cache / f"{image}.json").read_text()) == {"size": len(content), "sha256": sha256}


def test_an_image_that_is_no_longer_needed_is_passed_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = recorded("base")
    follows(monkeypatch, bytes(3 * 2**20) + b"0" * 64 + content + hashlib.sha256(content).hexdigest().encode())
    pass_over(Incoming(3 * 2**20, "", ""))
    store_image(str(cache), "base.img", Incoming(len(content), "", ""), WHERE)
    assert (cache / "base.img").read_bytes() == content
    pass_over(Incoming(5, "", ""))  # The controller has gone.


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (recorded("base")[:-1], "did not arrive whole: 639 of 640 bytes"),
        (recorded("base"), "did not arrive whole, or changed on its way: its SHA-256 is [0-9a-f]{64} now$"),
        (recorded("base") + b"0" * 64, "did not arrive whole, or changed on its way: its SHA-256 is [0-9a-f]{64} now$"),
    ],
)
def test_an_image_that_breaks_off_leaves_nothing(
    sent: bytes, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follows(monkeypatch, sent)
    with pytest.raises(ItemError, match=message):
        store_image(str(cache), "base.img", Incoming(len(recorded("base")), "", ""), WHERE)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("room", [0, 500, 2**20 - 1000, 2**20 + 600])
def test_an_image_for_which_there_is_no_room_is_named_wherever_the_disk_is_full(
    room: int, tmp_path: Path, cache: Path
) -> None:
    """A last part that is still to be written when the file is closed, too."""
    sent = arrived(tmp_path / "sent", recorded("base") + bytes(2**20))
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(
            ItemError, match=rf"{re.escape(WHERE)}: base image base\.img can't be stored: File too large"
        ):
            store_image(str(cache), "base.img", sent, WHERE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(cache.iterdir()) == []


def test_the_slower_of_two_deploys_changes_nothing(tmp_path: Path, cache: Path) -> None:
    store_image(str(cache), "base.img", arrived(tmp_path / "first", recorded("base")), WHERE)
    store_image(str(cache), "base.img", arrived(tmp_path / "second", b"another image"), WHERE)
    assert (cache / "base.img").read_bytes() == recorded("base")
    assert scan_images(str(cache), USERS)["base.img"].size == len(recorded("base"))


def test_an_image_put_there_by_hand_gets_a_record_without_a_hash(cache: Path) -> None:
    (cache / "base.img").write_bytes(recorded("base"))
    found = scan_images(str(cache), USERS)["base.img"]
    assert not found.has_sidecar
    adopt_image(str(cache), "base.img", found)
    assert json.loads((cache / "base.img.json").read_text()) == {"size": len(recorded("base")), "sha256": None}
    assert scan_images(str(cache), USERS)["base.img"].has_sidecar


@pytest.mark.parametrize(
    ("content", "record", "message"),
    [
        (recorded("base"), '{"size": 641, "sha256": null}', "is damaged: it has 640 bytes and arrived with 641"),
        (recorded("base"), "{}", "is not the record of a base image"),
        (recorded("overlay"), None, "has a backing file"),
        (recorded("base")[:50], None, "cut off"),
    ],
)
def test_a_cached_image_is_checked_before_it_is_used(
    content: bytes, record: str | None, message: str, cache: Path
) -> None:
    (cache / "base.img").write_bytes(content)
    if record is not None:
        (cache / "base.img.json").write_text(record)
    with pytest.raises(ItemError, match=message):
        scan_images(str(cache), USERS)


def test_a_record_alone_is_no_image(cache: Path) -> None:
    (cache / "base.img.json").write_text('{"size": 640, "sha256": null}')
    assert scan_images(str(cache), USERS) == {}


def bytes_read() -> int:
    """What this process has read so far, in bytes, by whatever call."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_a_cached_image_is_not_read_again(tmp_path: Path, cache: Path) -> None:
    size = 64 * 2**20
    content = recorded("base") + bytes(size - len(recorded("base")))
    store_image(str(cache), "base.img", arrived(tmp_path / "sent", content), WHERE)
    before = bytes_read()
    assert scan_images(str(cache), USERS)["base.img"].size == size
    assert bytes_read() - before < 2**20


def test_an_image_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if re.search(r"/\.base\.img\.\w+\.part$", os.readlink(f"/proc/self/fd/{descriptor}")):
            raise OSError("the disk is broken")
        sync(descriptor)

    sent = arrived(tmp_path / "sent", recorded("base"))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ItemError, match=r"base image base\.img can't be stored: the disk is broken"):
        store_image(str(cache), "base.img", sent, WHERE)
    assert list(cache.iterdir()) == []
