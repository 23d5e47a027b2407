# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collect what the planner needs to know, and plan once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import read_header

display = Display()


class ActionModule(ActionBase):
    """Runs on the controller only."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "spec": {"type": "dict", "required": True},
                "owner": {"type": "str", "required": True},
                "registry": {"type": "dict", "required": True},
                "flavors": {"type": "list", "elements": "dict", "required": True},
                "image_dir": {"type": "path", "required": True},
                "settings": {"type": "dict", "default": {}},
                "design": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        if args["design"]:
            _refuse_started(args["spec"]["name"], args["registry"])
        planner = lookup_loader.get("cloudrepo.slices.slice_planner", loader=self._loader, templar=self._templar)
        try:
            (plan,) = planner.run(
                [args["spec"]],
                variables,
                owner=args["owner"],
                flavors=args["flavors"],
                workers=[host_facts(name, variables) for name in variables["groups"]["workers"]],
                network_node=host_facts(variables["groups"]["network_node"][0], variables),
                registry=args["registry"],
                images=_images(args["image_dir"], args["flavors"]),
                image_dir=args["image_dir"],
                **args["settings"],
            )
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error
        for warning in plan["warnings"]:
            display.warning(warning)
        return {"changed": False, "plan": plan}


def host_facts(name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What ``slice_host_info`` found on a host, or the problem that kept it from doing so."""
    found = variables["hostvars"][name]
    info = found.get("slices_host_info") or {}
    facts = {"name": name, "address": str(found.get("ansible_host", name)), "problem": _problem(info)}
    return facts if facts["problem"] else {**facts, **info["host"]}


def _problem(info: Mapping[str, Any]) -> str:
    if not info:
        return "is not part of this run (--limit?)"
    if info.get("unreachable"):
        return "is unreachable"
    if info.get("failed"):
        return f"can't be used: {info.get('msg', 'it gave no reason')}"
    if info["host"]["missing"]:
        return f"is not prepared: {', '.join(info['host']['missing'])} (run the playbook prepare_hosts)"
    return ""


def _images(folder: str, flavors: list[dict[str, Any]]) -> dict[str, int]:
    """The virtual sizes of the base images that the controller has."""
    paths = {flavor["image"]: Path(folder) / flavor["image"] for flavor in flavors}
    sizes = {}
    for image, path in paths.items():
        if path.is_file():
            try:
                sizes[image] = read_header(str(path)).virtual_size
            except (OSError, ValueError) as error:
                raise AnsibleActionFail(f"base image {path} can't be read: {error}") from error
    return sizes


def _refuse_started(name: str, registry: Mapping[str, Any]) -> None:
    for record in registry["slices"]:
        if record["name"] == name and record["status"] != "design":
            raise AnsibleActionFail(
                f"slice {name} is {record['status']}: only a slice of which nothing runs can be designed "
                f"(deploy_slice --check shows what a changed spec would do)"
            )
