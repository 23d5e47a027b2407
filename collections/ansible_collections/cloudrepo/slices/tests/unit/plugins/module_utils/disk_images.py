# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

GIB = 2**30
MIB = 2**20

_FOLDER = Path(__file__).parent / "fixtures" / "qcow2"


def recorded(name: str) -> bytes:
    """The first 640 bytes of an image that qemu-img 7.2 made.

    base:     create -f qcow2 base.qcow2 64M
    overlay:  create -f qcow2 -b /tmp/images/base.qcow2 -F qcow2 overlay.qcow2 100M
    external: create -f qcow2 -o data_file=/tmp/images/data.raw,data_file_raw=on external.qcow2 64M
    old:      create -f qcow2 -o compat=0.10 -b /tmp/images/base.qcow2 -F qcow2 old.qcow2 2253M
    """
    return (_FOLDER / name).read_bytes()
