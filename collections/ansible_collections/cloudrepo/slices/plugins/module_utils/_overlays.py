# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The slices' disks: ``<base_dir>/<slice>/<name>_img.qcow2``, each an overlay on a base image in ``base_dir``."""

from __future__ import annotations

import math
import os
import pwd
import stat
import threading
from contextlib import contextmanager
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import part_path, remove_file, sync_folder
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, labels, run_each
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_file_name, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import QCOW2, Header, HeaderError, read_header
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu import DISK_NODE, DISK_SUFFIX, Paths
from ansible_collections.cloudrepo.slices.plugins.module_utils._qemu_img import (
    create_argv,
    info_argv,
    is_locked,
    resize_argv,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._qmp import Qmp, QmpError, connect
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import (
    CREATE,
    DELETE,
    Action,
    State,
    reconcile,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import Host

MODE = 0o600

_QMP_SECONDS = 10.0
_BLOCK = 4096
_MIB = 2**20
_GIB = 2**30


class Overlay(NamedTuple):
    """A disk that is wanted. ``size`` is in bytes, ``label`` is how errors call it."""

    label: str
    name: str
    image: str
    size: int


def parse(items: Sequence[Mapping[str, Any]]) -> List[Overlay]:
    """The ``overlays`` option, checked as far as that goes without looking at any file."""
    return [_parse(item, where) for item, where in zip(items, labels("overlays", items).values())]


def _parse(item: Mapping[str, Any], where: str) -> Overlay:
    image, size_gb = item["image"], item["size_gb"]
    if image is None or size_gb is None:
        raise ItemError("%s: image and size_gb are required" % where)
    if not is_file_name(image) or image.endswith(".json"):
        raise ItemError('%s: "%s" is not the file name of an image' % (where, image))
    if not 0 < size_gb < math.inf:
        raise ItemError("%s: size_gb must be more than 0, not %g" % (where, size_gb))
    return Overlay(where, item["name"], image, size_in_bytes(size_gb))


def size_in_bytes(size_gb: float) -> int:
    """GiB as bytes, rounded up to whole MiB."""
    return math.ceil(size_gb * 1024) * _MIB


def readable(size: int) -> str:
    """A number of bytes as an error message says it."""
    return "%.6g GiB" % (size / _GIB) if size >= _GIB else "%.6g MiB" % (size / _MIB)


def check_size(overlay: Overlay, header: Header) -> None:
    """Refuse a disk that would cut its base image off."""
    if overlay.size < header.virtual_size:
        raise ItemError(
            "%s: the disk's size %s is smaller than its base image %s, which has %s"
            % (overlay.label, readable(overlay.size), overlay.image, readable(header.virtual_size))
        )


def image_users(overlays: Sequence[Overlay]) -> Dict[str, str]:
    """The label of the first overlay that needs each image, by image."""
    users: Dict[str, str] = {}
    for overlay in overlays:
        users.setdefault(overlay.image, overlay.label)
    return users


def scan(folder: str) -> Dict[str, Dict[str, Any]]:
    """The overlays in a slice's folder, by name: one look at the folder and at each header, no process."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return {}
    found = {}
    for entry in entries:
        name = entry.name[: -len(DISK_SUFFIX)]
        if entry.name.endswith(DISK_SUFFIX) and is_name(name) and entry.is_file(follow_symlinks=False):
            found[name] = _state(entry.path, entry.stat(follow_symlinks=False))
    return found


def _state(path: str, status: os.stat_result) -> Dict[str, Any]:
    try:
        header = read_header(path)
    except HeaderError:
        header = Header("", 0, False, False)
    base_dir = os.path.dirname(os.path.dirname(path))
    folder, image = os.path.split(header.backing_file)
    return {
        "image": image if folder == base_dir else header.backing_file,
        "size": header.virtual_size if header.format == QCOW2 else None,
        "owner": _user_name(status.st_uid),
        "mode": "%04o" % stat.S_IMODE(status.st_mode),
    }


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def plan(
    overlays: Sequence[Overlay],
    have: Mapping[str, State],
    owner: str,
    purge: bool,
    can_grow: Callable[[str], bool],
) -> Tuple[List[Action], List[str]]:
    """The actions that make ``overlays`` out of ``have``, and what has to wait until a VM is off.

    Args:
        overlays: the wanted disks.
        have: the disks that exist, from scan().
        owner: the user whose disks they are to be.
        purge: whether other disks of the slice are deleted.
        can_grow: tells whether the disk of that name can grow now; asked only about one that is to.

    Raises:
        ItemError: a disk would have to be overwritten or cut off.
    """
    want: Dict[str, State] = {}
    pending = []
    for overlay in overlays:
        size = overlay.size
        existing = have.get(overlay.name)
        if existing is not None:
            _check_existing(overlay, existing)
            if size > existing["size"] and not can_grow(overlay.name):
                pending.append(waits(overlay.name, existing["size"], size))
                size = existing["size"]
        want[overlay.name] = wanted(overlay, owner, size)
    return reconcile(want, have, purge), pending


def wanted(overlay: Overlay, owner: str, size: int) -> State:
    """A disk as it is to be, with the size that it can have."""
    return {"image": overlay.image, "size": size, "owner": owner, "mode": "%04o" % MODE}


def waits(name: str, before: int, after: int) -> str:
    """The message about a disk that can't grow now."""
    return "overlay %s: size %s -> %s needs its VM to be off" % (name, readable(before), readable(after))


def _check_existing(overlay: Overlay, existing: State) -> None:
    if existing["size"] is None:
        raise ItemError("%s: the disk exists and is not a qcow2 image" % overlay.label)
    if existing["image"] != overlay.image:
        raise ItemError(
            "%s: the disk exists and is based on %s, not on %s; it is never overwritten"
            % (overlay.label, existing["image"] or "no image", overlay.image)
        )
    if overlay.size < existing["size"]:
        raise ItemError(
            "%s: the disk has %s and can't shrink to %s"
            % (overlay.label, readable(existing["size"]), readable(overlay.size))
        )


def can_grow(host: Host, name: str) -> bool:
    """Whether a disk can grow now: nobody has it open, or its VM's QEMU answers."""
    paths = host.paths(name)
    try:
        run(info_argv(paths.disk))
    except CommandError as error:
        if not is_locked(error.stderr):
            raise
    else:
        return True
    try:
        with _holder(paths):
            return True
    except (QmpError, OSError):
        return False


@contextmanager
def _holder(paths: Paths) -> Iterator[Qmp]:
    """The QEMU of a VM, having made sure that this very disk is the one it has."""
    with connect(paths.qmp, _QMP_SECONDS) as qmp:
        qmp.negotiate()
        nodes = qmp.execute("query-named-block-nodes", flat=True)
        if paths.disk not in [node["file"] for node in nodes if node["node-name"] == DISK_NODE]:
            raise QmpError("QMP: this QEMU does not have %s" % paths.disk)
        yield qmp


class Applied(NamedTuple):
    """The messages of the actions that failed, and of those that turned out to have to wait, by name."""

    errors: Dict[str, str]
    pending: Dict[str, str]


def apply(host: Host, actions: Sequence[Action], bases: Mapping[str, Header], owner: str) -> Applied:
    """Carry the actions out in the slice's folder, which the caller holds, as many at a time as there are cores.

    Args:
        host: where the disks and their VMs are.
        actions: what plan() found.
        bases: the headers of the base images, by image.
        owner: the user whose disks they are.
    """
    by_name = {action.name: action for action in actions}
    blanks = _Blanks(os.path.join(host.base_dir, host.slice_name), bases)
    pending: Dict[str, str] = {}

    def change(name: str) -> None:
        action = by_name[name]
        paths = host.paths(name)
        if action.kind == DELETE:
            os.unlink(paths.disk)
        elif action.kind == CREATE:
            _create(paths.disk, action, blanks, owner)
        else:
            _modify(paths, action, owner, pending)

    errors = run_each(change, by_name, (CommandError, OSError))
    if any(action.kind == CREATE for action in actions):
        sync_folder(blanks.folder)
    return Applied(errors, pending)


class _Blanks:
    """Overlays as ``qemu-img create`` makes them, each kind once: a process takes longer than a copy of its file."""

    def __init__(self, folder: str, bases: Mapping[str, Header]) -> None:
        self.folder = folder
        self._bases = bases
        self._made: Dict[Tuple[str, int], bytes] = {}
        self._lock = threading.Lock()

    def content(self, image: str, size: int) -> bytes:
        """The bytes of an overlay on ``image`` in which nothing was written."""
        with self._lock:
            if (image, size) not in self._made:
                self._made[image, size] = self._make(image, size)
            return self._made[image, size]

    def _make(self, image: str, size: int) -> bytes:
        part = part_path(os.path.join(self.folder, image))
        base = os.path.join(os.path.dirname(self.folder), image)
        try:
            run(create_argv(part, size, base, self._bases[image].format))
            with open(part, "rb") as file:
                return file.read()
        finally:
            remove_file(part)


def _create(path: str, action: Action, blanks: _Blanks, owner: str) -> None:
    after = action.after or {}
    content = blanks.content(after["image"], after["size"])
    part = part_path(path)
    try:
        with open(part, "xb") as file:
            _write_sparse(file, content)
        _give_to(part, owner)
        os.link(part, path)  # Unlike a rename it fails where something is.
    finally:
        remove_file(part)


def _write_sparse(file: BinaryIO, content: bytes) -> None:
    """Write what is not zero: most of an empty overlay is, and takes no room."""
    file.truncate(len(content))
    for offset in range(0, len(content), _BLOCK):
        block = content[offset : offset + _BLOCK]
        if block.count(0) < len(block):
            file.seek(offset)
            file.write(block)


def _modify(paths: Paths, action: Action, owner: str, pending: Dict[str, str]) -> None:
    before, after = action.before or {}, action.after or {}
    _give_to(paths.disk, owner)
    if after["size"] != before["size"] and not _grow(paths, after["size"]):
        pending[action.name] = waits(action.name, before["size"], after["size"])


def _grow(paths: Paths, size: int) -> bool:
    """Grow a disk, by its VM's QEMU if that has it open; False if that does not answer."""
    try:
        run(resize_argv(paths.disk, size))
        return True
    except CommandError as error:
        if not is_locked(error.stderr):
            raise
    try:
        with _holder(paths) as qmp:
            qmp.execute("block_resize", **{"node-name": DISK_NODE, "size": size})
            return True
    except (QmpError, OSError):
        return False


def _give_to(path: str, owner: str) -> None:
    user = pwd.getpwnam(owner)
    os.chmod(path, MODE)
    if os.stat(path).st_uid != user.pw_uid:
        os.chown(path, user.pw_uid, user.pw_gid)
