# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base images in a worker's cache: ``<base_dir>/<image>``, with a sidecar ``<image>.json`` of size and SHA-256."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from contextlib import suppress
from typing import BinaryIO, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    held_part,
    locked,
    remove_parts,
    sync_folder,
    write_whole,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import Header, HeaderError, read_header

_BLOCK = 2**20
_HASH = 64
_SYNCED_AT_ONCE = 2**26
# fcntl has its name from Python 3.10 on.
_F_SETPIPE_SZ = 1031


class Incoming(NamedTuple):
    """A base image that the controller sent: what must have arrived, and where it lies on this host.

    If ``path`` is empty it comes on standard input, followed by its SHA-256 in hex. In check mode nothing comes.
    """

    size: int
    sha256: str
    path: str


class Cached(NamedTuple):
    """A base image in the cache. One that was put there by hand has no sidecar yet."""

    size: int
    header: Header
    has_sidecar: bool


def check_base(where: str, image: str, header: Header) -> None:
    """Refuse a base image that would make QEMU open further files, which its maker could name at will."""
    if header.has_backing_file:
        raise ItemError("%s: base image %s has a backing file of its own" % (where, image))
    if header.has_data_file:
        raise ItemError("%s: base image %s has an external data file" % (where, image))


def scan_images(base_dir: str, users: Mapping[str, str]) -> Dict[str, Cached]:
    """Those of the wanted images that the cache has. Sizes are compared, contents are not read again.

    Args:
        base_dir: the cache.
        users: by image, how errors call what needs it.
    """
    found = {}
    for image, where in users.items():
        path = os.path.join(base_dir, image)
        if not os.path.lexists(path):
            continue
        if not os.path.isfile(path):
            raise ItemError("%s: base image %s is not a file" % (where, path))
        size = os.path.getsize(path)
        recorded = _recorded_size(where, path + ".json")
        if recorded not in (None, size):
            raise ItemError(
                "%s: base image %s is damaged: it has %d bytes and arrived with %d" % (where, path, size, recorded)
            )
        header = image_header(where, path)
        check_base(where, path, header)
        found[image] = Cached(size, header, recorded is not None)
    return found


def _recorded_size(where: str, sidecar: str) -> Optional[int]:
    try:
        with open(sidecar, encoding="utf-8") as file:
            return int(json.load(file)["size"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ItemError("%s: %s is not the record of a base image" % (where, sidecar)) from error


def is_record(path: str) -> bool:
    """Whether this file is the sidecar of a base image, as we write it."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.keys() == {"size", "sha256"} and isinstance(record["size"], int)


def image_header(where: str, path: str) -> Header:
    """The header of the image at ``path``; errors name ``where``."""
    try:
        return read_header(path)
    except HeaderError as error:
        raise ItemError("%s: %s" % (where, error)) from error


def store_image(base_dir: str, image: str, incoming: Incoming, where: str) -> None:
    """Put a base image that arrives into the cache, once it is known to be what was sent.

    If another deploy was faster, its image stays.
    """
    path = os.path.join(base_dir, image)
    label = "%s: base image %s" % (where, image)
    try:
        with held_part(path) as part:
            sha256 = _fill(part, incoming, label)
            check_base(where, image, image_header(where, part.name))
            with locked(base_dir):
                if not os.path.lexists(path):
                    _write_sidecar(path, incoming.size, sha256)
                    os.rename(part.name, path)
                    sync_folder(base_dir)
    except OSError as error:
        raise ItemError("%s can't be stored: %s" % (label, error.strerror or error)) from error


def _fill(part: BinaryIO, incoming: Incoming, label: str) -> str:
    """Write what arrives to a file and to the disk, and refuse it unless it is what was sent.

    Returns:
        Its SHA-256.
    """
    os.fchmod(part.fileno(), 0o644)
    if incoming.path:
        with open(incoming.path, "rb") as sent:
            sha256, expected = _copy(sent, part, incoming.size), incoming.sha256
    else:
        with suppress(OSError):  # It is no pipe, and works as well.
            fcntl.fcntl(sys.stdin, _F_SETPIPE_SZ, _BLOCK)
        sha256 = _copy(sys.stdin.buffer, part, incoming.size)
        expected = sys.stdin.buffer.read(_HASH).decode("ascii", "replace")
    size = os.path.getsize(part.name)
    if size != incoming.size:
        raise ItemError("%s did not arrive whole: %d of %d bytes" % (label, size, incoming.size))
    if sha256 != expected:
        raise ItemError("%s did not arrive whole, or changed on its way: its SHA-256 is %s now" % (label, sha256))
    return sha256


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> str:
    """Copy so many bytes, or what there is, to the disk. Returns their SHA-256."""
    import hashlib  # What takes long to import waits until an image arrives.
    from concurrent.futures import Future, ThreadPoolExecutor

    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    copied = 0
    synced: List[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:  # The disk writes while the rest is on its way.
        while copied < size:
            count = source.readinto1(block[: size - copied])  # type: ignore[attr-defined]  # All files of bytes have it.
            if not count:
                break
            digest.update(block[:count])
            target.write(block[:count])
            copied += count
            if copied >= _SYNCED_AT_ONCE * (len(synced) + 1):
                synced.append(pool.submit(os.fdatasync, target.fileno()))
        target.flush()
        synced.append(pool.submit(os.fsync, target.fileno()))
    for each in synced:
        each.result()
    return digest.hexdigest()


def pass_over(incoming: Incoming) -> None:
    """Read an image on standard input that somebody else has stored meanwhile: others may follow."""
    left = incoming.size + _HASH
    while left:
        count = len(sys.stdin.buffer.read(min(left, _BLOCK)))
        if not count:
            break
        left -= count


def _write_sidecar(path: str, size: int, sha256: Optional[str]) -> None:
    write_whole(path + ".json", json.dumps({"size": size, "sha256": sha256}) + "\n", 0o644)


def adopt_image(base_dir: str, image: str, cached: Cached) -> None:
    """Record an image that was put into the cache by hand. Nobody sent it, so there is no hash to compare with."""
    with locked(base_dir):
        _write_sidecar(os.path.join(base_dir, image), cached.size, None)


def tidy_cache(base_dir: str) -> None:
    """Remove the parts of images whose sending was cut off."""
    if os.path.isdir(base_dir):
        with locked(base_dir):
            remove_parts(base_dir)
