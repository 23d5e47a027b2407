# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    held_part,
    locked,
    part_path,
    tidy,
    write_whole,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_file_name, is_name


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "slice").touch()
    with pytest.raises(FileExistsError), locked(str(tmp_path / "slice")):
        pass


def test_only_one_at_a_time_even_if_each_removes_the_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "slice")
    inside: list[int] = []
    most = 0

    def work(number: int) -> None:
        nonlocal most
        for _round in range(100):
            with locked(folder):
                inside.append(number)
                most = max(most, len(inside))
                assert os.path.isdir(folder)
                inside.remove(number)
                tidy(folder)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [None] * 4
    assert most == 1
    assert not os.path.exists(folder)


def test_what_a_dead_process_leaves_is_tidied_and_never_taken_for_anything(tmp_path: Path) -> None:
    leftover = Path(part_path(str(tmp_path / "web_img.qcow2")))
    leftover.touch()
    assert not is_file_name(leftover.name)
    assert not is_name(leftover.stem)
    (tmp_path / ".config").touch()
    tidy(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".config"]


def test_what_somebody_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    Path(part_path(str(tmp_path / "base.img"))).touch()
    with held_part(str(tmp_path / "base.img")) as first, held_part(str(tmp_path / "base.img")) as second:
        with locked(str(tmp_path)):
            tidy(str(tmp_path))
        assert {str(path) for path in tmp_path.iterdir()} == {first.name, second.name}
        os.rename(first.name, tmp_path / "base.img")
    assert [path.name for path in tmp_path.iterdir()] == ["base.img"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "web.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(str(path), "new \ud800", 0o600)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

    write_whole(str(path), "new", 0o600)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
