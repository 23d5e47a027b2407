# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disks of a slice on one host: made what they should be, with what has to be sent before."""

from __future__ import annotations

import os
import pwd
from contextlib import ExitStack
from typing import Any, List, Mapping

from ansible_collections.cloudrepo.slices.plugins.module_utils import _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result, check_slice
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import locked, normal_path, tidy
from ansible_collections.cloudrepo.slices.plugins.module_utils._images import (
    Cached,
    Incoming,
    adopt_image,
    pass_over,
    scan_images,
    store_image,
    tidy_cache,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, labels
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import (
    Overlay,
    apply,
    can_grow,
    check_size,
    image_users,
    parse,
    plan,
    scan,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, diff, reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import Host

ARGUMENTS: _specs.Spec = {
    "slice": {"type": "str", "required": True},
    "overlays": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": _specs.OVERLAY,
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "base_dir": {"type": "path", "default": "~/vm_images"},
    "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
    "image_dir": {"type": "path", "default": "/tmp/vm_images"},
    "owner": {"type": "str"},
    "_missing": {"type": "list", "elements": "str", "default": []},
    "_incoming": {"type": "dict", "default": {}},
}


def ensure(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``qcow_overlay`` documents its options and what it returns; ``missing_images`` if nothing could be done."""
    check_slice(params["slice"])
    os.umask(0o022)  # QEMU's user has to enter the folders that are made here.
    params = {**params, **{option: normal_path(option, params[option]) for option in ("base_dir", "run_dir")}}
    params["folder"] = os.path.join(params["base_dir"], params["slice"])
    return _present(params, check_mode) if params["state"] == "present" else _absent(params, check_mode)


def _present(params: Mapping[str, Any], check_mode: bool) -> Result:
    base_dir, folder, owner = params["base_dir"], params["folder"], _owner(params["owner"])
    host = _host(params)
    overlays = parse(params["overlays"])
    users = image_users(overlays)
    cached = scan_images(base_dir, users)
    sent = {name: Incoming(**image) for name, image in params["_incoming"].items()}
    incoming = {name: image for name, image in sent.items() if name not in cached}
    _check_sizes(overlays, cached)
    missing = [image for image in users if image not in cached and image not in incoming]
    if missing or incoming:
        # What else is wrong with the list is said before an image is sent, or is read to its end.
        plan(overlays, scan(folder), owner, params["purge"], can_grow=lambda name: True)
    if missing:
        return {"changed": False, "missing_images": missing}

    if not check_mode:
        # That can take minutes, and is no reason for others to wait.
        for name, image in sent.items():
            if name in incoming:
                store_image(base_dir, name, image, users[name])
            elif not image.path:
                pass_over(image)
    with ExitStack() as stack:
        if not check_mode:
            stack.enter_context(locked(folder))
            stack.callback(tidy, folder)
        have = scan(folder)
        actions, pending = plan(overlays, have, owner, params["purge"], can_grow=lambda name: can_grow(host, name))
        adopted = {name: image for name, image in cached.items() if not image.has_sidecar}
        sizes = {name: cached[name].size if name in cached else incoming[name].size for name in users}
        result = _result(actions, [*incoming, *adopted], sizes, pending)
        if check_mode:
            return result
        for name, found in adopted.items():
            adopt_image(base_dir, name, found)
        stored = scan_images(base_dir, users)
        _check_sizes(overlays, stored)
        applied = apply(host, actions, {name: image.header for name, image in stored.items()}, owner)
    undone = {*applied.errors, *applied.pending}
    result = _result(
        [action for action in actions if action.name not in undone],
        [*incoming, *adopted],
        {name: image.size for name, image in stored.items()},
        [*pending, *applied.pending.values()],
    )
    return _complete(result, applied.errors, {overlay.name: overlay.label for overlay in overlays})


def _absent(params: Mapping[str, Any], check_mode: bool) -> Result:
    folder = params["folder"]
    listed = labels("overlays", params["overlays"])
    if not check_mode:
        tidy_cache(params["base_dir"])
    if not os.path.isdir(folder):
        return _result([], [], {}, [])
    with ExitStack() as stack:
        if not check_mode:
            stack.enter_context(locked(folder))
            stack.callback(tidy, folder)
        have = {name: state for name, state in scan(folder).items() if params["purge"] or name in listed}
        actions = reconcile({}, have, purge=True)
        if check_mode:
            return _result(actions, [], {}, [])
        applied = apply(_host(params), actions, {}, "")
    done = [action for action in actions if action.name not in applied.errors]
    return _complete(_result(done, [], {}, []), applied.errors, listed)


def _host(params: Mapping[str, Any]) -> Host:
    return Host(params["base_dir"], params["run_dir"], params["slice"])


def _owner(name: str) -> str:
    if not name:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError as error:
        raise ItemError('owner: there is no user "%s" on this host' % name) from error


def _check_sizes(overlays: List[Overlay], cached: Mapping[str, Cached]) -> None:
    for overlay in overlays:
        if overlay.image in cached:
            check_size(overlay, cached[overlay.image].header)


def _result(actions: List[Action], new: List[str], sizes: Mapping[str, int], pending: List[str]) -> Result:
    overlays = diff(actions)
    return {
        "changed": bool(actions or new),
        "images": dict(sizes),
        "pending": pending,
        "diff": {
            "before": {"images": {}, "overlays": overlays["before"]},
            "after": {"images": {name: sizes[name] for name in sorted(new)}, "overlays": overlays["after"]},
        },
    }


def _complete(result: Result, errors: Mapping[str, str], known: Mapping[str, str]) -> Result:
    """The result, with a message if some disks failed; the others are done."""
    if errors:
        failed = ["%s: %s" % (known.get(name, 'overlay "%s"' % name), text) for name, text in errors.items()]
        result["msg"] = "; ".join(failed)
    return result
