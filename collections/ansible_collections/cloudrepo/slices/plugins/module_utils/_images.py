# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base images in a worker's cache: ``<base_dir>/<image>``, with a sidecar ``<image>.json`` of size and SHA-256."""

from __future__ import annotations

import json
import os
import shutil
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    locked,
    part_path,
    remove_file,
    remove_parts,
    sync_folder,
    write_whole,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import Header, HeaderError, read_header

_BLOCK = 2**20


class Incoming(NamedTuple):
    """A base image that the controller sent: where it lies on this host, and what must have arrived.

    In check mode nothing was sent and ``path`` is empty.
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
    """Move a base image that arrived into the cache, once it is known to be what was sent.

    If another deploy was faster, its image stays.
    """
    path = os.path.join(base_dir, image)
    part = part_path(path)
    # All the time: so whoever holds the cache knows that a part in it is nobody's.
    with locked(base_dir):
        remove_parts(base_dir)
        try:
            _move(incoming.path, part)
            size, sha256 = _fingerprint(part)
            if (size, sha256) != (incoming.size, incoming.sha256):
                raise ItemError(
                    "%s: base image %s did not arrive whole: %d bytes with SHA-256 %s, sent were %d with %s"
                    % (where, image, size, sha256, incoming.size, incoming.sha256)
                )
            check_base(where, image, image_header(where, part))
            if not os.path.lexists(path):
                _write_sidecar(path, size, sha256)
                os.rename(part, path)
                sync_folder(base_dir)
        finally:
            remove_file(part)


def _move(source: str, target: str) -> None:
    """Rename where that is possible, else copy. Either way the file is ours then, and readable to QEMU's user."""
    try:
        os.rename(source, target)
    except OSError:  # Another file system, or another user's folder.
        shutil.copyfile(source, target)
    if os.stat(target).st_uid != os.geteuid():
        os.chown(target, os.geteuid(), os.getegid())
    os.chmod(target, 0o644)


def _fingerprint(path: str) -> Tuple[int, str]:
    """Size and SHA-256 of what is on the disk."""
    import hashlib  # What takes long to import waits until an image arrives.
    from concurrent.futures import ThreadPoolExecutor

    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as file, ThreadPoolExecutor(1) as pool:
        synced = pool.submit(os.fsync, file.fileno())  # The disk writes while the processor hashes.
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
            size += len(block)
        synced.result()
    return size, digest.hexdigest()


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
