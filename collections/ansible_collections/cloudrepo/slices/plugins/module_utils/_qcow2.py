# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the header of a disk image without a process. Reads a few hundred bytes and follows no other file."""

from __future__ import annotations

import struct
from typing import NamedTuple

RAW = "raw"
QCOW2 = "qcow2"

_MAGIC = b"QFI\xfb"
# Magic, version, backing file's offset and length, cluster bits, virtual size.
_HEADER = struct.Struct(">4sIQIIQ")
_FEATURES = struct.Struct(">Q")
_FEATURES_OFFSET = 72
_DATA_FILE_BIT = 1 << 2
_NAME_MAX = 1023


class HeaderError(ValueError):
    """The file has the magic number of qcow2, but not a header that QEMU would accept."""


class Header(NamedTuple):
    """What the header of an image says. A file without qcow2's magic number is a raw image as large as the file."""

    format: str
    virtual_size: int
    has_backing_file: bool
    has_data_file: bool
    backing_file: str = ""


def read_header(path: str) -> Header:
    """The header of the image at ``path``.

    Raises:
        HeaderError: it starts like a qcow2 image and is none.
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        start = file.read(_FEATURES_OFFSET + _FEATURES.size)
        if not start.startswith(_MAGIC):
            return Header(RAW, file.seek(0, 2), False, False)
        if len(start) < _FEATURES_OFFSET:
            raise HeaderError("%s: the qcow2 header is cut off" % path)
        _magic, version, offset, length, _bits, virtual_size = _HEADER.unpack_from(start)
        if version not in (2, 3):
            raise HeaderError("%s: qcow2 version %d is not known" % (path, version))
        if length > _NAME_MAX:
            raise HeaderError("%s: the name of the backing file is too long" % path)
        if version == 3 and len(start) < _FEATURES_OFFSET + _FEATURES.size:
            raise HeaderError("%s: the qcow2 header is cut off" % path)
        features = _FEATURES.unpack_from(start, _FEATURES_OFFSET)[0] if version == 3 else 0
        backing_file = ""
        if offset:
            file.seek(offset)
            backing_file = file.read(length).decode("utf-8", "surrogateescape")
    return Header(QCOW2, virtual_size, offset != 0, bool(features & _DATA_FILE_BIT), backing_file)
