# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.cloudrepo.slices.plugins.action import qcow_overlay
from ansible_collections.cloudrepo.slices.plugins.action.qcow_overlay import (
    Source,
    check_all,
    fingerprint,
    megabytes,
    outdated,
    write_images,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

from ..module_utils.disk_images import recorded


def needing(**images: str) -> dict[str, Any]:
    """The options of a task with a disk of 1 GiB on each image, by VM."""
    overlays = [{"name": vm, "image": image, "size_gb": 1.0} for vm, image in images.items()]
    return {"base_dir": "/cache", "overlays": overlays}


def source(image_dir: Path, playbook: int = 0) -> Source:
    return Source(str(image_dir), "worker1", playbook)


def test_all_images_that_are_nowhere_are_named_with_vm_and_both_paths(tmp_path: Path) -> None:
    with pytest.raises(ItemError) as error:
        check_all(["a.img", "b.img"], needing(web="a.img", db="a.img", red="b.img"), source(tmp_path))
    assert str(error.value) == (
        f'overlays[0] "web": base image a.img is neither on the controller ({tmp_path}/a.img) '
        f'nor on worker1 (/cache/a.img); overlays[2] "red": base image b.img is neither on the controller '
        f"({tmp_path}/b.img) nor on worker1 (/cache/b.img)"
    )


@pytest.mark.parametrize(
    ("content", "size_gb", "message"),
    [
        (recorded("base"), 2**-10, 'overlays\\[0\\] "web": the disk\'s size 1 MiB is smaller than its base image'),
        (recorded("overlay"), 1.0, "has a backing file of its own"),
        (recorded("external"), 1.0, "has an external data file"),
        (recorded("base")[:50], 1.0, 'overlays\\[0\\] "web": .*cut off'),
    ],
)
def test_what_would_not_be_accepted_is_refused_before_it_is_sent(
    content: bytes, size_gb: float, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.img").write_bytes(content)
    options = needing(web="a.img")
    options["overlays"][0]["size_gb"] = size_gb
    with pytest.raises(ItemError, match=message):
        check_all(["a.img"], options, source(tmp_path))


def test_a_host_gets_no_image_that_no_disk_of_the_task_needs(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(recorded("base"))
    images = tmp_path / "images"
    with pytest.raises(ItemError, match=r"^worker1 asks for the base image \.\./a\.img\\x1b, which no disk needs$"):
        check_all(["../a.img\x1b"], needing(web="a.img"), source(images))


@pytest.mark.parametrize(
    ("known", "asked", "calls"),
    [
        (["a.img", "b.img"], [], [["a.img", "b.img"]]),
        (["a.img"], ["b.img"], [["a.img"], ["a.img", "b.img"]]),
        ([], ["a.img", "b.img"], [[], ["a.img", "b.img"]]),
        (["a.img"], ["a.img"], [["a.img"]]),
        ([], 5, [[]]),
        ([], [["a.img"], None], [[]]),
    ],
)
def test_what_the_host_is_known_to_lack_is_sent_at_once_and_the_rest_when_it_asks(
    known: list[str], asked: Any, calls: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    def host(_action: Any, _module: Any, args: Any, *_more: Any) -> dict[str, Any]:
        made.append(sorted(args["_incoming"]))
        return {"missing_images": asked}

    monkeypatch.setattr(qcow_overlay, "call", host)
    for image in ("a.img", "b.img"):
        (tmp_path / image).write_bytes(recorded("base"))
    args = {**needing(web="a.img", db="b.img"), "slice": "web", "image_dir": str(tmp_path), "_missing": known}
    task = SimpleNamespace(args=args, delegate_to=None, async_val=0, check_mode=True, diff=False, action="qcow_overlay")
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
    qcow_overlay.ActionModule(task, connection, None, None, None, None).run(None, {"inventory_hostname": "worker1"})
    assert made == calls


def written(folder: Path, images: Iterable[str], playbook: int) -> bytes:
    """What a host reads, were the play run by this process."""
    with suppress(AnsibleActionFail), open(folder / "pipe", "wb") as pipe:
        write_images(list(images), source(folder, playbook), pipe)
    return (folder / "pipe").read_bytes()


@pytest.mark.parametrize("refused_after", [None, 0, 1])
def test_each_image_is_followed_by_its_hash(
    refused_after: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the kernel copies nothing, or stops in the middle."""
    contents = {"a.img": os.urandom(3 * 2**20 + 5), "b.img": b"small"}
    for image, content in contents.items():
        (tmp_path / image).write_bytes(content)
    sendfile, calls = os.sendfile, iter(range(1000))

    def send(*args: Any) -> int:
        if next(calls) == refused_after:
            raise OSError
        return sendfile(*args)

    monkeypatch.setattr(os, "sendfile", send)
    assert written(tmp_path, contents, os.getppid()) == b"".join(
        content + hashlib.sha256(content).hexdigest().encode() for content in contents.values()
    )


def test_whoever_sends_for_a_run_that_was_killed_withholds_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"image")
    assert written(tmp_path, ["a.img"], os.getpid()) == b"image"


def test_another_image_of_the_same_name_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"12")
    assert outdated({"a.img": 2, "not-here.img": 5}, str(tmp_path), "worker1") == []
    [warning] = outdated({"a.img": 3}, str(tmp_path), "worker1")
    assert "on worker1 has 3 bytes" in warning
    assert "Give the new image a new name" in warning


@pytest.mark.parametrize(("size", "text"), [(196_616, "0.2"), (21_757_952, "22"), (500_000_000, "500")])
def test_sizes_in_messages(size: int, text: str) -> None:
    assert megabytes(size) == text


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder of one run."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were really read for their hash."""
    names: list[str] = []
    digest = hashlib.file_digest

    def record(file: Any, name: str) -> Any:
        names.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(qcow_overlay.hashlib, "file_digest", record)
    return names


def test_an_image_is_hashed_once_for_all_hosts(tmp_path: Path, shared: Path, hashed: list[str]) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"image" * 2**20)
    with ThreadPoolExecutor(8) as hosts:
        found = set(hosts.map(lambda _host: fingerprint(str(image), str(shared)), range(8)))
    assert found == {hashlib.sha256(b"image" * 2**20).hexdigest()}
    assert hashed == [str(image)]


def test_an_image_that_changed_in_between_is_hashed_again(tmp_path: Path, shared: Path, hashed: list[str]) -> None:
    image = tmp_path / "a.img"
    for turn, content in enumerate((b"first", b"other")):
        image.write_bytes(content)
        os.utime(image, (turn, turn))
        assert fingerprint(str(image), str(shared)) == hashlib.sha256(content).hexdigest()
    assert len(hashed) == 2


def test_a_process_that_died_while_it_hashed_is_no_harm(tmp_path: Path, shared: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"image")
    whole = fingerprint(str(image), str(shared))
    [known] = shared.iterdir()
    known.write_text("")
    assert fingerprint(str(image), str(shared)) == whole
