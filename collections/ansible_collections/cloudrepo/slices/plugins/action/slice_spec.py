# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find a slice's spec, read it and check it, before any host is asked."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._inventory import check_groups
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._netaddr import require_netaddr
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._preload import preload
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._run import known_user
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import (
    check_name,
    check_owner,
    parse_flavors,
    parse_spec,
)
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._yaml import load_yaml

preload()  # A deploy or a delete begins with this plugin.


class ActionModule(ActionBase):
    """Runs on the controller only."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "slice": {"type": "raw"},
                "slice_spec": {"type": "raw"},
                "slices_dir": {"type": "path"},
                "flavors": {"type": "raw"},
                "registry_host": {"type": "str"},
                "switches": {"type": "dict", "default": {}},
                "name_only": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        try:
            require_netaddr()
            check_groups(variables.get("groups", {}), args["registry_host"])
            check_switches(args["switches"])
            user = known_user(variables)
            if user:
                check_owner(user)
            if args["name_only"]:
                return {"changed": False, "name": _name(args)}
            spec = read_spec(args, _slices_dir(args, variables))
            parsed = parse_spec(spec)
            flavors = parse_flavors(args["flavors"])
            for vm in parsed.vms:
                if vm.flavor not in flavors:
                    known = ", ".join(sorted(flavors))
                    raise SpecError(f"{vm.label}: unknown flavor {vm.flavor[:60]!r} (there are: {known})")
        except SpecError as error:
            raise AnsibleActionFail(str(error)) from error
        # As text, which is one value: Ansible goes through each leaf of a structure for every task and host to come.
        return {"changed": False, "name": parsed.name, "spec": json.dumps(spec), "owner": _owner(variables)}


def check_switches(switches: Mapping[str, object]) -> None:
    """Refuse a switch that is neither on nor off: where it is used, it would be off without a word."""
    for name, value in switches.items():
        try:
            boolean(value, strict=True)
        except TypeError:
            raise SpecError(f"{name} must be true or false, not {str(value)[:60]!r}") from None


def read_spec(args: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The spec that is meant, as it is written, with its name."""
    return _inline(args) if args["slice_spec"] else _from_file(args, folder)


def _name(args: Mapping[str, Any]) -> str:
    """The slice that is meant, from its name or from an inline spec."""
    if args["slice"]:
        check_name(args["slice"], "slice")
        return str(args["slice"])
    if args["slice_spec"]:
        spec = _inline(args)
        check_name(spec.get("name"), "slice name")
        return str(spec["name"])
    raise SpecError("which slice? Give -e slice=NAME or -e slice_spec=...")


def _inline(args: Mapping[str, Any]) -> dict[str, Any]:
    return _with_name(_mapping(args["slice_spec"], "slice_spec"), args["slice"], "-e slice")


def _from_file(args: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    # The name is checked before it becomes part of a path.
    name = _name(args)
    if folder is None:
        raise SpecError("slices_dir is not set, and the inventory has no folder that it could be beside")
    path = folder / f"{name}.yml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"slice {name}: there is no spec {path}{_others(folder)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"slice {name}: {path} can't be read: {error}") from None
    return _with_name(_mapping(text, str(path)), name, "the file's name")


def _others(folder: Path) -> str:
    names = sorted(path.stem for path in folder.glob("*.yml"))
    return f" (there are: {', '.join(names)})" if names else ""


def _mapping(value: object, label: str) -> dict[str, Any]:
    if isinstance(value, str):
        value = load_yaml(value, label)
    if not isinstance(value, Mapping):
        raise SpecError(f"{label} must be a mapping with the keys of a spec, not {type(value).__name__}")
    return dict(value)


def _with_name(spec: dict[str, Any], name: object, source: str) -> dict[str, Any]:
    if not name:
        if not spec.get("name"):
            raise SpecError("slice_spec: the name is missing")
        return spec
    check_name(name, "slice")
    if spec.get("name") not in (None, name):
        raise SpecError(f'the spec\'s name "{spec["name"]}" differs from {source} "{name}"')
    return {**spec, "name": name}


def _slices_dir(args: Mapping[str, Any], variables: Mapping[str, Any]) -> Path | None:
    """``slices_dir``, else ``slices`` beside the inventory that the network node comes from."""
    if args["slices_dir"]:
        return Path(args["slices_dir"])
    node = variables["hostvars"][variables["groups"]["network_node"][0]]
    folder = node.get("inventory_dir")
    return Path(folder) / "slices" if folder else None


def _owner(variables: Mapping[str, Any]) -> str:
    """The AWX user, else the login name."""
    return known_user(variables) or getpass.getuser()
