# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send the base images that a host lacks, with a call of the module of the same name."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any, NamedTuple

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_overlays
from ansible_collections.cloudrepo.slices.plugins.module_utils._images import check_base
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import check_size, parse
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import HeaderError, read_header
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, Send, call, can_send, checked
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable

Result = dict[str, Any]

MODULE = Module("qcow_overlay", _ensure_overlays)
_BLOCK = 2**20


class Source(NamedTuple):
    """Where images come from, for which host, and the process of the run in which they are sent."""

    image_dir: str
    host: str
    playbook: int

    def path(self, image: str) -> str:
        """The file of an image on the controller."""
        return os.path.join(self.image_dir, image)

    def announce(self, image: str) -> None:
        """Say what takes so long."""
        Display().display(f"sending {image} ({megabytes(os.path.getsize(self.path(image)))} MB) to {self.host}")


class ActionModule(ActionBase):
    """Send the images that the host is known to lack, and those that the module says it lacks instead of its work."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        playbook = os.getppid()
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = {key: value for key, value in self._task.args.items() if key != "_incoming"}
        options, errors = checked(MODULE, args)
        if errors:
            return call(self, MODULE, args, variables)
        image_dir = os.path.abspath(os.path.expanduser(options["image_dir"]))
        source = Source(image_dir, str(self._task.delegate_to or variables["inventory_hostname"]), playbook)

        def call_with(images: list[str]) -> Result:
            try:
                check_all(images, options, source)
            except (ItemError, OSError) as error:
                raise AnsibleActionFail(str(error)) from error
            refuse_if_orphaned(playbook)
            return self._call_with(images, args, variables, source)

        images: list[str] = options["_missing"]
        result = call_with(images)
        while more := [image for image in _lacking(result) if image not in images]:
            images = [*images, *more]
            result = call_with(images)
        result.setdefault("warnings", []).extend(outdated(result.get("images", {}), image_dir, source.host))
        return result

    def _call_with(self, images: list[str], args: Result, variables: Result, source: Source) -> Result:
        """Call the module with images that it lacks, after its options where that is possible."""
        incoming: dict[str, Result] = {
            image: {"size": os.path.getsize(source.path(image)), "sha256": "", "path": ""} for image in images
        }
        send: Send | None = None
        if not images or self._task.check_mode:
            pass
        elif can_send(self, variables):
            send = partial(write_images, images, source)
        else:
            for image in images:
                incoming[image].update(self._transfer(image, source))
                refuse_if_orphaned(source.playbook)
        return call(self, MODULE, {**args, "_incoming": incoming}, variables, send)

    def _transfer(self, image: str, source: Source) -> Result:
        """Copy an image to the host as a file of its own. Returns where it is there, and its SHA-256."""
        source.announce(image)
        shell = self._connection._shell
        folder = shell.tmpdir or self._make_tmp_path()
        remote = shell.join_path(folder, image)
        with hashing(source.path(image)) as sha256:
            self._transfer_file(source.path(image), remote)
        # Nobody but the remote user and the one it becomes may read the image on its way.
        self._fixup_perms2((folder, remote), execute=False)
        return {"sha256": sha256.result(), "path": remote}


def _lacking(result: Result) -> list[str]:
    """The images that a host says it lacks. It may say anything."""
    said = result.get("missing_images")
    return [image for image in said if isinstance(image, str)] if isinstance(said, list) else []


def write_images(images: list[str], source: Source, pipe: IO[bytes]) -> None:
    """Write images to what the module reads: each followed by its SHA-256, in hex, without which it makes no disk."""
    for image in images:
        source.announce(image)
        with hashing(source.path(image)) as sha256, open(source.path(image), "rb") as file:
            pipe.flush()
            if sys.platform == "linux":
                with suppress(OSError):  # Not every file system can, and what is left is copied.
                    while os.sendfile(pipe.fileno(), file.fileno(), None, _BLOCK):
                        pass
            shutil.copyfileobj(file, pipe, _BLOCK)
        refuse_if_orphaned(source.playbook)
        pipe.write(sha256.result().encode())


@contextmanager
def hashing(image: str) -> Iterator[Future[str]]:
    """The SHA-256 of an image, for which it is read while it is on its way."""
    run_dir = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]  # Settings become attributes when they load.
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(fingerprint, image, run_dir)


def refuse_if_orphaned(playbook: int) -> None:
    """Sending can take minutes: whoever goes on after a run that was killed must not find disks made later."""
    if os.getppid() != playbook:
        raise AnsibleActionFail("ansible-playbook was killed")


def check_all(images: list[str], options: Result, source: Source) -> None:
    """Refuse what can't be sent or would not be accepted, for all images, before the first one is sent.

    That includes what no disk needs: a host that was taken over must not get whatever it likes from the controller.

    Raises:
        ItemError: it is missing, no base image, larger than a disk on it, or not asked for.
        OSError: it can't be read.
    """
    overlays = {image: [each for each in parse(options["overlays"]) if each.image == image] for image in images}
    for image, users in overlays.items():
        if not users:
            raise ItemError(printable(f"{source.host} asks for the base image {image}, which no disk needs"))
    absent = [image for image in images if not os.path.isfile(source.path(image))]
    if absent:
        raise ItemError(
            "; ".join(
                f"{overlays[image][0].label}: base image {image} is neither on the controller ({source.path(image)}) "
                f"nor on {source.host} ({os.path.join(options['base_dir'], image)})"
                for image in absent
            )
        )
    for image, users in overlays.items():
        try:
            header = read_header(source.path(image))
            check_base(users[0].label, source.path(image), header)
            for overlay in users:
                check_size(overlay, header)
        except HeaderError as error:
            raise ItemError(f"{users[0].label}: {error}") from error


def outdated(cached: dict[str, int], image_dir: str, host: str) -> list[str]:
    """Warnings about images of which controller and host have different ones under the same name."""
    warnings = []
    for image, size in cached.items():
        local = os.path.join(image_dir, image)
        if os.path.isfile(local) and os.path.getsize(local) != size:
            warnings.append(
                f"base image {image} on {host} has {size} bytes, {local} has {os.path.getsize(local)}: "
                f"{host} keeps using its own, as its disks are built on it. Give the new image a new name."
            )
    return warnings


def megabytes(size: int) -> str:
    """A size for a message: 0.2, 21, 500."""
    return f"{size / 1e6:.2g}" if size < 10e6 else f"{size / 1e6:.0f}"


def fingerprint(path: str, shared: str) -> str:
    """SHA-256 of a file. The first process reads it, and those for the other hosts find the result in ``shared``.

    Args:
        path: the file.
        shared: a folder that belongs to this run alone.
    """
    status = os.stat(path)
    version = f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}.sha256"
    with open(os.path.join(shared, version), "a+", encoding="ascii") as known:
        fcntl.flock(known, fcntl.LOCK_EX)
        known.seek(0)
        sha256 = known.read()
        if not sha256:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            known.write(sha256)
        return sha256
