# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qemu-img: its argument lists and what its errors mean. Runs nothing."""

from __future__ import annotations

import re
from typing import List

# QEMU locks the images it has open: "Failed to get "write" lock", "Failed to get shared "write" lock".
_LOCKED = re.compile(r'Failed to get (?:shared )?"[^"]+" lock')


def create_argv(path: str, size: int, base: str, base_format: str) -> List[str]:
    """Create an overlay of ``size`` bytes on ``base``. Both are absolute paths, so neither reads as an option."""
    return ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", base_format, path, str(size)]


def resize_argv(path: str, size: int) -> List[str]:
    """Grow an overlay to ``size`` bytes; qemu-img refuses to shrink without being told twice."""
    return ["qemu-img", "resize", "-q", "-f", "qcow2", path, str(size)]


def info_argv(path: str) -> List[str]:
    """Open an image as a reader that shares it with nobody who writes: fails while a VM uses it."""
    return ["qemu-img", "info", "-f", "qcow2", "--output=json", path]


def is_locked(stderr: str) -> bool:
    """Whether qemu-img failed because a running VM has the image open."""
    return _LOCKED.search(stderr) is not None
