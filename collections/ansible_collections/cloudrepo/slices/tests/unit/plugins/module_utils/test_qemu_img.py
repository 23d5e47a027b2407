# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu_img import is_locked


@pytest.mark.parametrize(
    ("stderr", "locked"),
    [
        # What qemu-img 7.2 said of an image that a VM had open: resize, info.
        (
            "qemu-img: Could not open '/tmp/web_img.qcow2': Failed to get \"write\" lock\n"
            "Is another process using the image [/tmp/web_img.qcow2]?",
            True,
        ),
        (
            "qemu-img: Could not open '/tmp/web_img.qcow2': Failed to get shared \"write\" lock\n"
            "Is another process using the image [/tmp/web_img.qcow2]?",
            True,
        ),
        ("qemu-img: Could not open '/tmp/lock_img.qcow2': Image is not in qcow2 format", False),
    ],
)
def test_an_image_in_use_is_told_from_a_broken_one(stderr: str, locked: bool) -> None:
    assert is_locked(stderr) is locked
