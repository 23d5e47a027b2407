#!/usr/bin/python
# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qcow_overlay
short_description: Give a slice's VMs their disks, as qcow2 overlays on cached base images
version_added: 0.1.0
author: cloudrepo contributors (@cloudrepo)
description:
  - Each disk is a qcow2 image that holds only what its VM has written, on top of a base image that many VMs share.
  - A base image that the host lacks is sent from the controller, once, however many disks need it.
    It goes to a temporary name, is compared with the controller's size and SHA-256, and only then gets its name.
    One that the host has is not sent again, and is checked by its size alone.
  - An existing disk is never overwritten. It can grow, and can't shrink or get another base image.
    The disk of a running VM is grown by its QEMU, and the guest sees it at once.
  - A base image with a backing file or an external data file of its own is refused.
  - The module writes nothing but the base images it was sent, their records,
    and files named C(NAME_img.qcow2) in the slice's own folder.
attributes:
  check_mode:
    description: Predicts the result. Nothing is sent.
    support: full
  diff_mode:
    description: Shows the base images that are new, and the changed disks with image, size in bytes, owner and mode.
    support: full
  idempotent:
    description: Disks that are as wanted are not touched.
    support: full
options:
  slice:
    description: The slice whose disks these are.
    type: str
    required: true
  overlays:
    description: The disks.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The VM's name, unique within the slice.
        type: str
        required: true
      image:
        description:
          - File name of the base image, without a folder. It can be qcow2 or raw.
          - Required for O(state=present).
        type: str
      size_gb:
        description:
          - Virtual size in GiB, rounded up to whole MiB. It can't be less than the base image's.
          - Required for O(state=present).
        type: float
  state:
    description:
      - V(present) creates the disks that are missing and grows those that are too small.
      - V(absent) removes the disks, and the slice's folder once it is empty. Base images stay in the cache.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - With O(state=present), remove the slice's disks that are not listed.
      - With O(state=absent), remove all disks of the slice, listed or not.
    type: bool
    default: false
  base_dir:
    description:
      - The host's folder of base images. A slice's disks are in a folder of the slice's name in it.
      - An image that was put there by hand is used as it is.
      - QEMU's user must be able to enter it, which the default in root's home does not allow.
    type: path
    default: ~/vm_images
  run_dir:
    description: The folder of the VMs' sockets, as in M(cloudrepo.slices.qemu_vm). Disks in use grow through these.
    type: path
    default: /run/cloudrepo/vms
  image_dir:
    description: The controller's folder of base images.
    type: path
    default: /tmp/vm_images
  owner:
    description:
      - The user to whom the disks belong, with mode V(0600). It is the user as whom QEMU runs.
      - By default the user as whom the module runs.
    type: str
  _incoming:
    description:
      - What the action plugin has sent. It sets this itself; what a task says here is ignored.
    type: dict
    default: {}
requirements:
  - qemu-img on the host
seealso:
  - module: cloudrepo.slices.qemu_vm
"""

EXAMPLES = r"""
- name: Give two VMs their disks
  cloudrepo.slices.qcow_overlay:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    owner: slices-qemu
    overlays:
      - {name: web, image: cirros-0.6.2-x86_64-disk.img, size_gb: 1}
      - {name: db, image: focal-server-cloudimg-amd64.img, size_gb: 2.2}
    purge: true

- name: Remove all disks of a slice
  cloudrepo.slices.qcow_overlay:
    slice: web
    base_dir: /var/lib/cloudrepo/vm_images
    state: absent
    purge: true
"""

RETURN = r"""
images:
  description: Size in bytes of each base image that is used, by file name.
  returned: O(state=present)
  type: dict
  sample: {"cirros-0.6.2-x86_64-disk.img": 21430272}
pending:
  description: What has to wait until a VM is off, as its QEMU does not answer. It is not counted as a change.
  returned: success
  type: list
  elements: str
  sample: ["overlay web: size 1 GiB -> 2 GiB needs its VM to be off"]
"""

import os
import pwd
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cloudrepo.slices.plugins.module_utils import _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import locked, normal_path, tidy
from ansible_collections.cloudrepo.slices.plugins.module_utils._images import (
    Cached,
    Incoming,
    adopt_image,
    scan_images,
    store_image,
    tidy_cache,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError, labels
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name
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
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import Host

Result = Dict[str, Any]


def _present(params: Mapping[str, Any], check_mode: bool) -> Result:
    base_dir, folder, owner = params["base_dir"], params["folder"], _owner(params["owner"])
    host = _host(params)
    overlays = parse(params["overlays"])
    users = image_users(overlays)
    cached = scan_images(base_dir, users)
    incoming = {name: Incoming(**sent) for name, sent in params["_incoming"].items() if name not in cached}
    _check_sizes(overlays, cached)
    missing = [image for image in users if image not in cached and image not in incoming]
    if missing:
        # What else is wrong with the list is said before anything is sent.
        plan(overlays, scan(folder), owner, params["purge"], can_grow=lambda name: True)
        return {"changed": False, "missing_images": [_missing(base_dir, name, overlays) for name in missing]}

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
        for name, sent in incoming.items():
            store_image(base_dir, name, sent, users[name])
        for name, image in adopted.items():
            adopt_image(base_dir, name, image)
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


def _missing(base_dir: str, image: str, overlays: List[Overlay]) -> Result:
    """What the action plugin has to know to send an image, or to say why it can't."""
    return {
        "image": image,
        "path": os.path.join(base_dir, image),
        "overlays": [overlay._asdict() for overlay in overlays if overlay.image == image],
    }


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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
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
            "_incoming": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # QEMU's user has to enter the folders that are made here.
    params = dict(module.params)
    if not is_name(params["slice"]):
        module.fail_json(msg='slice "%s": the name must be %s' % (params["slice"], NAME_RULE))
    ensure = _present if params["state"] == "present" else _absent
    try:
        params.update({option: normal_path(option, params[option]) for option in ("base_dir", "run_dir")})
        params["folder"] = os.path.join(params["base_dir"], params["slice"])
        result = ensure(params, module.check_mode)
    except (ItemError, CommandError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    for text in result.get("pending", []):
        module.warn(text)
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
