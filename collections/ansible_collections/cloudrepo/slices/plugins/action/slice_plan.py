# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collect what the planner needs to know, plan, and reserve; again if another run was faster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.action.qcow_overlay import outdated
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.module_utils._qcow2 import read_header
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._asked import answer, answer_in
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import parse_spec

display = Display()

# Each loss means that another run succeeded; more than this many in a row is no coincidence.
_MOST_PLANS = 20


class ActionModule(ActionBase):
    """Plans on the controller, and has ``slice_registry`` do the rest where it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "spec": {"type": "dict", "required": True},
                "owner": {"type": "str", "required": True},
                "status": {"type": "str", "choices": ["design", "deploying"], "required": True},
                "registry_path": {"type": "path", "required": True},
                "registry_host": {"type": "str"},
                "flavors": {"type": "list", "elements": "dict", "required": True},
                "image_dir": {"type": "path", "required": True},
                "settings": {"type": "dict", "default": {}},
                "admins": {"type": "list", "elements": "str", "default": []},
                "hold_timeout": {"type": "int", "default": 900},
            }
        )
        variables = task_vars or {}
        options = {
            "owner": args["owner"],
            "flavors": args["flavors"],
            "workers": [host_facts(name, variables) for name in variables["groups"]["workers"]],
            "network_nodes": [
                {**host_facts(name, variables), **internet_of(name, variables)}
                for name in variables["groups"]["network_node"]
            ],
            "images": _images(args["image_dir"], args["flavors"], args["spec"]),
            "image_dir": args["image_dir"],
            **args["settings"],
        }
        for node in options["network_nodes"]:
            if node["problem"] and node["name"] == args["registry_host"]:
                raise AnsibleActionFail(f"network node {node['name']} {node['problem']}")
        # Read when the hosts were asked; good for one try.
        text = None
        if args["registry_host"]:
            text = answer(variables["hostvars"], args["registry_host"]).get("registry")
        known = json.loads(text) if text else None

        def plan_from(registry: dict[str, Any]) -> dict[str, Any]:
            if args["status"] == "design":
                _refuse_started(args["spec"]["name"], registry)
            return self._plan(args["spec"], registry, options, variables)

        def read() -> dict[str, Any]:
            registry: dict[str, Any] = self._registry({"state": "read"}, args, variables)["registry"]
            return registry

        for attempt in range(1, _MOST_PLANS + 1):
            plan = planned(plan_from, known, read)
            reserved = self._registry(_reservation(plan, args["status"]), args, variables)
            if not reserved["conflict"]:
                for warning in plan["warnings"] + _outdated(plan["hosts"], options["workers"], args["image_dir"]):
                    display.warning(warning)
                now = time.time()
                result = {
                    "changed": reserved["changed"],
                    **handed_on(plan, reserved["record"]),
                    "reserved_at": now,
                    "late_from": now + args["hold_timeout"] / 2,
                    "lacking_images": lacking_images(plan["hosts"], options["workers"]),
                }
                return {**result, "diff": reserved["diff"]} if self._task.diff else result
            known = None
            display.display(f"another run changed the registry: planning again ({attempt})")
        raise AnsibleActionFail(f"slice {args['spec']['name']}: lost the race for the registry {_MOST_PLANS} times")

    def _plan(
        self, spec: dict[str, Any], registry: dict[str, Any], options: dict[str, Any], variables: dict[str, Any]
    ) -> dict[str, Any]:
        planner = lookup_loader.get("cloudrepo.slices.slice_planner", loader=self._loader, templar=self._templar)
        try:
            plans: list[dict[str, Any]] = planner.run([spec], variables, registry=registry, **options)
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error
        return plans[0]

    def _registry(self, wanted: dict[str, Any], args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        common = {"path": args["registry_path"], "admins": args["admins"], "hold_timeout": args["hold_timeout"]}
        result = ask_registry(self, {**common, **wanted}, variables)
        if result.get("failed") or result.get("unreachable"):
            raise AnsibleActionFail(result.get("msg", "the registry can't be reached"), result=result)
        return result


def planned(
    plan_from: Callable[[dict[str, Any]], dict[str, Any]],
    known: dict[str, Any] | None,
    read: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """A plan from what is known of the registry, or from what it has now.

    What is known was read while the hosts were asked. What they had a moment later can be newer than that, and is then
    no reason to refuse: a refusal counts only from what the registry has now.
    """
    if known is not None:
        try:
            return plan_from(known)
        except AnsibleActionFail:
            pass
    return plan_from(read())


def handed_on(plan: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks that follow need of a plan. What grows with the slice is JSON text, of which Ansible makes one
    value: it goes through each leaf of a structure several times for every task and host.
    """
    brief = {field: record[field] for field in ("id", "name", "owner", "vlan_pool", "has_run", "network_node")}
    return {
        "slice": brief,
        "record": json.dumps(record),
        "shares": {host: json.dumps(share) for host, share in plan["hosts"].items()},
        "leaving": [vm["name"] for share in plan["hosts"].values() for vm in share["retired"]],
    }


def _reservation(plan: dict[str, Any], status: str) -> dict[str, Any]:
    counters = {key: plan[key] for key in ("revision", "next_id", "last_worker")}
    return {"state": "reserved", "record": plan["slice"], "status": status, **counters}


def host_facts(name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What ``slice_host_info`` found on a host, or the problem that kept it from doing so."""
    found = variables["hostvars"][name]
    info = answer_in(found)
    facts = {"name": name, "address": str(found.get("ansible_host", name)), "problem": _problem(info)}
    return facts if facts["problem"] else {**facts, **info["host"]}


def internet_of(name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The way to the internet that the inventory gives to a network node, if it has one of its own."""
    found = variables["hostvars"][name]
    return {key: found.get(f"slices_{key}") for key in ("internet_vlan", "internet_subnet")}


def lacking_images(hosts: Mapping[str, Any], workers: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The base images that workers have not got and their disks need, by worker."""
    found = {worker["name"]: worker.get("images", {}) for worker in workers}
    needed = {name: {overlay["image"] for overlay in share["overlays"]} for name, share in hosts.items()}
    lacking = {name: sorted(images - set(found.get(name, ()))) for name, images in needed.items()}
    return {name: images for name, images in lacking.items() if images}


def _outdated(hosts: Mapping[str, Any], workers: Iterable[Mapping[str, Any]], image_dir: str) -> list[str]:
    """Warnings about images that the disks need, of which workers have others than the controller."""
    warnings = []
    for worker in workers:
        needed = {overlay["image"] for overlay in hosts.get(worker["name"], {}).get("overlays", ())}
        sizes = {image: size for image, size in worker.get("image_bytes", {}).items() if image in needed}
        warnings += outdated(sizes, image_dir, worker["name"])
    return warnings


def _problem(info: Mapping[str, Any]) -> str:
    if not info:
        return "is not part of this run (--limit?)"
    if info.get("unreachable"):
        return "is unreachable"
    if info.get("failed"):
        return f"can't be used: {info.get('msg', 'it gave no reason')}"
    if info["host"]["missing"]:
        return f"is not prepared: {', '.join(info['host']['missing'])} (run the playbook prepare_hosts)"
    if info["host"]["wrong"]:
        return f"can't do what is set for it: {', '.join(info['host']['wrong'])}"
    return ""


def _images(folder: str, flavors: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, int]:
    """The virtual sizes of the base images that the spec needs and the controller has."""
    wanted = {vm.flavor for vm in parse_spec(spec).vms}
    sizes = {}
    for image in {flavor["image"] for flavor in flavors if flavor["name"] in wanted}:
        path = Path(folder) / image
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
