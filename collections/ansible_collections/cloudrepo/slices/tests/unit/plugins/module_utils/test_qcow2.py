# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import Header, HeaderError, read_header

from .disk_images import MIB, recorded


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("base", Header("qcow2", 64 * MIB, False, False)),
        ("overlay", Header("qcow2", 100 * MIB, True, False, "/tmp/images/base.qcow2")),
        ("external", Header("qcow2", 64 * MIB, False, True)),
        ("old", Header("qcow2", 2253 * MIB, True, False, "/tmp/images/base.qcow2")),
    ],
)
def test_headers_of_real_images(name: str, header: Header, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(recorded(name))
    assert read_header(str(path)) == header


def test_anything_else_is_raw_and_as_large_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"\x55\xaa" * 300)
    assert read_header(str(path)) == Header("raw", 600, False, False)
    path.write_bytes(b"")
    assert read_header(str(path)).virtual_size == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (recorded("base")[:40], "cut off"),
        (recorded("base")[:76], "cut off"),
        (recorded("base")[:7] + b"\x04" + recorded("base")[8:], "version 4"),
        (recorded("overlay")[:16] + b"\xff" * 4 + recorded("overlay")[20:], "too long"),
    ],
)
def test_a_broken_header_is_an_error_and_not_raw(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(HeaderError, match=message):
        read_header(str(path))
