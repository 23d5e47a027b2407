# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send the base images that a host lacks, around two calls of the module of the same name."""

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
from typing import IO, Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_overlays
from ansible_collections.cloudrepo.slices.plugins.module_utils._images import check_base
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import Overlay, check_size
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import HeaderError, read_header
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, Send, call, can_send, checked
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable

Result = dict[str, Any]

MODULE = Module("qcow_overlay", _ensure_overlays)
_IMAGE_DIR = "/tmp/vm_images"
_BLOCK = 2**20


class ActionModule(ActionBase):
    """The module says which images are missing and does nothing else; with these sent, it does everything."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        playbook = os.getppid()
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = {key: value for key, value in self._task.args.items() if not key.startswith("_")}
        image_dir = os.path.abspath(os.path.expanduser(args.get("image_dir") or _IMAGE_DIR))
        host = _host(self, variables)

        result: Result = call(self, MODULE, args, variables)
        missing = result.get("missing_images")
        if missing and not result.get("failed"):
            refuse_unasked(missing, args, host)
            check_all(missing, image_dir, host)
            images = [os.path.join(image_dir, entry["image"]) for entry in missing]
            result = self._call_with(images, args, variables, playbook)

        result.setdefault("warnings", []).extend(outdated(result.get("images", {}), image_dir, host))
        return result

    def _call_with(self, images: list[str], args: Result, variables: Result, playbook: int) -> Result:
        """Call the module with the images that it lacks, after its options where that is possible."""
        host = _host(self, variables)
        refuse_if_orphaned(playbook)
        incoming: dict[str, Result] = {
            os.path.basename(image): {"size": os.path.getsize(image), "sha256": "", "path": ""} for image in images
        }
        send: Send | None = None
        if self._task.check_mode:
            pass
        elif can_send(self, variables):
            send = partial(write_images, images, host, playbook)
        else:
            for image in images:
                incoming[os.path.basename(image)].update(self._transfer(image, host))
                refuse_if_orphaned(playbook)
        return call(self, MODULE, {**args, "_incoming": incoming}, variables, send)

    def _transfer(self, image: str, host: str) -> Result:
        """Copy an image to the host as a file of its own. Returns where it is there, and its SHA-256."""
        announce(image, host)
        shell = self._connection._shell
        folder = shell.tmpdir or self._make_tmp_path()
        remote = shell.join_path(folder, os.path.basename(image))
        with hashing(image) as sha256:
            self._transfer_file(image, remote)
        # Nobody but the remote user and the one it becomes may read the image on its way.
        self._fixup_perms2((folder, remote), execute=False)
        return {"sha256": sha256.result(), "path": remote}


def _host(action: ActionBase, variables: Result) -> str:
    return str(action._task.delegate_to or variables["inventory_hostname"])


def write_images(images: list[str], host: str, playbook: int, pipe: IO[bytes]) -> None:
    """Write images to what the module reads: each followed by its SHA-256, in hex, without which it makes no disk."""
    for image in images:
        announce(image, host)
        with hashing(image) as sha256, open(image, "rb") as file:
            pipe.flush()
            if sys.platform == "linux":
                with suppress(OSError):  # Not every file system can, and what is left is copied.
                    while os.sendfile(pipe.fileno(), file.fileno(), None, _BLOCK):
                        pass
            shutil.copyfileobj(file, pipe, _BLOCK)
        refuse_if_orphaned(playbook)
        pipe.write(sha256.result().encode())


def announce(image: str, host: str) -> None:
    """Say what takes so long."""
    Display().display(f"sending {os.path.basename(image)} ({megabytes(os.path.getsize(image))} MB) to {host}")


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


def refuse_unasked(missing: list[Result], args: Result, host: str) -> None:
    """A host that was taken over must not get whatever it likes from the controller."""
    wanted = {overlay["image"] for overlay in checked(MODULE, args)[0]["overlays"]}
    for entry in missing:
        if entry["image"] not in wanted:
            raise AnsibleActionFail(printable(f"{host} asks for the base image {entry['image']}, which no disk needs"))


def check_all(missing: list[Result], image_dir: str, host: str) -> None:
    """Refuse what can't be sent or would not be accepted, for all images, before the first one is sent."""
    absent = [entry for entry in missing if not os.path.isfile(os.path.join(image_dir, entry["image"]))]
    if absent:
        raise AnsibleActionFail("; ".join(_absent(entry, image_dir, host) for entry in absent))
    for entry in missing:
        overlays = [Overlay(**overlay) for overlay in entry["overlays"]]
        path = os.path.join(image_dir, entry["image"])
        try:
            header = read_header(path)
            check_base(overlays[0].label, path, header)
            for overlay in overlays:
                check_size(overlay, header)
        except HeaderError as error:
            raise AnsibleActionFail(f"{overlays[0].label}: {error}") from error
        except (ItemError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error


def _absent(entry: Result, image_dir: str, host: str) -> str:
    local = os.path.join(image_dir, entry["image"])
    where = entry["overlays"][0]["label"]
    return (
        f"{where}: base image {entry['image']} is neither on the controller ({local}) nor on {host} ({entry['path']})"
    )


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
