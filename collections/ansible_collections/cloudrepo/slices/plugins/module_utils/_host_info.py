# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host tells before anything is planned: what it has and lacks, its VMs, and the registry if it has one."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils import _host, _specs
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Result
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import normal_path
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import is_name

ARGUMENTS: _specs.Spec = {
    "roles": {"type": "list", "elements": "str", "choices": ["worker", "network"], "required": True},
    "base_dir": {"type": "path", "default": "~/vm_images"},
    "bridge": {"type": "str", "default": "br-int"},
    "user": {"type": "str", "default": "slices-qemu"},
    "accelerator": {"type": "str", "default": "auto"},
    "vnc_listen": {"type": "str", "default": "127.0.0.1"},
    "vnc_passwords": {"type": "bool", "default": False},
    "registry_path": {"type": "path"},
    "vms": {"type": "bool", "default": False},
    "run_dir": {"type": "path", "default": "/run/cloudrepo/vms"},
    "slice": {"type": "str"},
}


def tell(params: Mapping[str, Any], check_mode: bool) -> Result:
    """As ``slice_host_info`` documents its options and what it returns. It changes nothing."""
    base_dir = normal_path("base_dir", params["base_dir"])
    images = _host.images(base_dir)
    host = {
        **_host.capacity(base_dir),
        "kvm": _host.has_kvm(),
        "images": {name: image.virtual_size for name, image in images.items()},
        "image_bytes": {name: image.size for name, image in images.items()},
        "stamps": json.dumps(_host.stamps(base_dir)),
        "missing": _host.missing(params["roles"], params["bridge"], params["user"]),
        "wrong": _host.wrong(params["roles"], params["accelerator"], params["vnc_listen"], params["vnc_passwords"]),
    }
    registry = _read_registry(params["registry_path"], params["slice"])
    return {"changed": False, "host": host, **registry, **_vms(base_dir, params)}


def _read_registry(path: Optional[str], only: Optional[str]) -> Dict[str, Any]:
    if path is None:
        return {}
    # Python compiles at each call what a module imports, and only one host has a registry.
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _registry
    from ansible_collections.cloudrepo.slices.plugins.module_utils._registry_schema import RegistryError

    try:
        with _registry.opened(normal_path("registry_path", path), write=False) as connection:
            return _registry.as_text(_registry.read(connection), only)
    except RegistryError as error:
        raise ValueError(str(error)) from error


def _vms(base_dir: str, params: Mapping[str, Any]) -> Dict[str, Any]:
    if not params["vms"] or _host.WORKER not in params["roles"]:
        return {}
    from ansible_collections.cloudrepo.slices.plugins.module_utils import _vms

    only, run_dir = params["slice"], normal_path("run_dir", params["run_dir"])
    # What is no name is no slice's, and no path.
    found = _vms.running(base_dir, run_dir, only) if only is None or is_name(only) else []
    return {"vms": json.dumps(found)}
