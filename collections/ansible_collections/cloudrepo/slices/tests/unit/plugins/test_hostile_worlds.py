# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is written into a spec, a flavor or a setting is refused in one clean line, or reaches every tool as meant.

Ten thousand hostile worlds go through the planner, and what is planned through every module's own checks and every
builder of arguments and configuration. ``readers`` reads the results, knowing nothing of who wrote them.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.cloudrepo.slices.plugins.module_utils import (
    _dnsmasq,
    _internet,
    _iproute,
    _overlays,
    _ovs,
    _qemu,
    _qemu_img,
    _registry,
    _vlan_ports,
    _vlan_steps,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import normal_path
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import reconcile
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._planning import plan
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._report import render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, parse_settings
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import parse_flavors, parse_spec
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._yaml import load_yaml

from . import hostile, readers
from .plugin_utils.clusters import EMPTY, FLAVORS, IMAGES, NETWORK_NODE, workers

WORLDS = 10_000
_SCHEMA_FILE = os.path.join(os.path.dirname(__file__), "../../../roles/slice/meta/argument_specs.yml")
_ERROR_MAX = 1000
RUN_DIR = "/run/cloudrepo/vms"


class Refused(Exception):
    """By whom, and in which words."""

    def __init__(self, by: str, message: str) -> None:
        super().__init__(message)
        self.by = by


def schema() -> dict[str, Any]:
    """Every option that a user sets to deploy a slice."""
    with open(_SCHEMA_FILE, encoding="utf-8") as file:
        entries = yaml.safe_load(file)["argument_specs"]
    return {**entries["plan"]["options"], **entries["realize"]["options"]}


@functools.cache
def argument_spec(module: str) -> dict[str, Any]:
    """The argument specification that a module's ``main()`` hands to Ansible."""
    found = importlib.import_module(f"ansible_collections.cloudrepo.slices.plugins.modules.{module}")
    specs: list[dict[str, Any]] = []

    class Caught(Exception):
        pass

    def catch(**kwargs: Any) -> None:
        specs.append(kwargs["argument_spec"])
        raise Caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "AnsibleModule", catch)
        patch.setattr(os, "umask", lambda mask: mask)
        with pytest.raises(Caught):
            found.main()
    return specs[0]


@functools.cache
def validator(module: str) -> ArgumentSpecValidator:
    return ArgumentSpecValidator(argument_spec(module))


def module_params(module: str, **args: Any) -> dict[str, Any]:
    """The arguments as a module gets them: through JSON, checked and converted by Ansible."""
    try:
        result = validator(module).validate(json.loads(json.dumps(args, default=str)))
    except (ValueError, OverflowError) as error:  # Ansible's own, for numbers that Python can't convert.
        raise Refused("ansible", str(error)) from error
    if result.error_messages:
        raise Refused(module, result.error_messages[0])
    params: dict[str, Any] = result.validated_parameters
    return params


# Settings that Ansible itself converts, on their way into the lookup.
SETTING_TYPES = {
    "slices_internet_vlan": {"type": "int"},
    "slices_internet_subnet": {"type": "str"},
    "slices_reserved_vlans": {"type": "list", "elements": "int"},
    "slices_quota": {"type": "int"},
    "slices_quotas": {"type": "dict"},
    "slices_overcommit": {"type": "dict"},
    "slices_placement": {"type": "str", "choices": ["round_robin", "packed", "balanced"]},
    "slices_image_dir": {"type": "str"},
}
DEFAULTS = {"slices_placement": "round_robin", "slices_image_dir": "/tmp/vm_images"}
SETTINGS = ArgumentSpecValidator(SETTING_TYPES)


class Registry:
    """One in memory, in which every plan is reserved, started and removed."""

    def __init__(self) -> None:
        self._opened = _registry.opened("/nonexistent/slices.sqlite", write=False)
        self.connection = self._opened.__enter__()

    def read(self) -> dict[str, Any]:
        return _registry.read(self.connection)

    def take(self, planned: Mapping[str, Any]) -> dict[str, Any]:
        record = planned["slice"]
        counters = (planned["revision"], planned["next_id"], planned["last_worker"])
        change = _registry.reserve(self.connection, record, "deploying", *counters)
        assert not change.conflict
        stored = _registry.set_status(self.connection, record["name"], "running", "").after
        assert stored == {**record, "status": "running", "reason": "", **_unstored(stored)}
        _registry.remove(self.connection, record["name"])
        return dict(stored)


def _unstored(stored: Any) -> dict[str, Any]:
    """What the registry itself adds to a record."""
    return {key: stored[key] for key in stored if key == "has_run"}


def read_world(world: hostile.World) -> tuple[Any, ...]:
    """What the planner gets of a world."""
    settings = {key: world[key] for key in SETTING_TYPES if key in world}
    try:
        result = SETTINGS.validate({**DEFAULTS, **settings})
    except (ValueError, OverflowError) as error:
        raise Refused("ansible", str(error)) from error
    if result.error_messages:
        raise Refused("ansible", result.error_messages[0])
    options = {key.removeprefix("slices_"): value for key, value in result.validated_parameters.items()}
    spec = parse_spec(world.get("slice_spec"))
    return spec, parse_flavors([*FLAVORS, *_listed(world.get("slices_flavors"))]), parse_settings(options)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def plan_world(world: hostile.World, registry: Registry) -> dict[str, Any]:
    spec, flavors, settings = read_world(world)
    cluster = Cluster(workers(), [NETWORK_NODE], {**IMAGES, "x.img": 2**20})
    planned = plan(spec, "nobody", flavors, cluster, registry.read(), settings)
    planned["settings"] = settings
    return planned


def build_all(planned: Mapping[str, Any], world: hostile.World) -> None:
    """Every builder for every host, each after its module's own checks."""
    record, settings = planned["slice"], planned["settings"]
    readers.assert_printable(*render([record]).splitlines())
    name, number = record["name"], record["id"]
    common = {"slice": name}
    world = {**hostile.good_world(0), **world}
    base_dir = world["slices_base_dir"]
    for share in planned["hosts"].values():
        network = share["network"]
        namespace = {"namespace": network["namespace"]} if network else {}
        build_disks(module_params("qcow_overlay", **common, base_dir=base_dir, overlays=share["overlays"]))
        bridge = world["slices_bridge"]
        build_ports(
            module_params("ovs_vlan", **common, slice_id=number, bridge=bridge, ports=share["ports"], **namespace)
        )
        build_vms(module_params("qemu_vm", **common, base_dir=base_dir, vms=share["vms"]))
        if network:
            service = {key: network[key] for key in ("namespace", "domain", "networks", "names")}
            build_dnsmasq(module_params("dnsmasq_dhcp", **common, **service))
            build_nat(
                module_params(
                    "slice_nat",
                    **common,
                    namespace=network["namespace"],
                    bridge=bridge,
                    vlan=settings.internet_vlan,
                    subnet=settings.internet_subnet,
                    uplink=world["slices_uplink_interface"] or None,
                    protected_networks=world["slices_protected_networks"],
                    **(network["internet"] or {}),
                )
            )


def build_disks(params: Mapping[str, Any]) -> None:
    base_dir = normal_path("base_dir", params["base_dir"])
    for overlay in _overlays.parse(params["overlays"]):
        paths = _qemu.vm_paths(base_dir, RUN_DIR, params["slice"], overlay.name)
        base = os.path.join(base_dir, overlay.image)
        argv = _qemu_img.create_argv(paths.disk, overlay.size, base, "qcow2")
        assert_file_of(base_dir, params["slice"], paths)
        assert os.path.dirname(base) == base_dir and argv.index(base) == argv.index("-b") + 1
        assert argv[:5] == ["qemu-img", "create", "-q", "-f", "qcow2"] and len(argv) == 11
        readers.assert_lines(argv[-1:], r"[1-9][0-9]{5,}")
        readers.assert_printable(overlay.image, overlay.name)


def assert_file_of(base_dir: str, slice_name: str, paths: _qemu.Paths) -> None:
    for path in (paths.disk, paths.manifest, paths.console_log):
        assert os.path.dirname(path) == os.path.join(base_dir, slice_name) and os.path.normpath(path) == path
    readers.assert_inside(os.path.join(RUN_DIR, slice_name), paths.folder, paths.pidfile, paths.qmp, paths.console)


UPLINK = _iproute.Device("eth0", "", True, "", ["192.0.2.9/24"], "")


def build_ports(params: Mapping[str, Any]) -> None:
    fields = {field: params[field] for field in _vlan_ports.Options._fields if field in params}
    options = _vlan_ports.Options(**{**fields, "present": True, "purge": True})
    _vlan_ports.validate(options)
    host = _vlan_ports.Host(
        _ovs.Database({options.bridge: _ovs.Bridge(options.bridge, True)}, {}), _iproute.Network({}, {}), None, {}
    )
    _vlan_ports.check_host(options, host, known_user=True)
    done = _vlan_steps.steps(_vlan_ports.actions(options, host), options, host)
    for lines in (done.leftovers, done.prepare, done.place, done.settle):
        readers.assert_lines([line.text for line in lines], *readers.IP_LINES)
    readers.assert_lines(done.remove, readers.IFNAME)
    for command in (*done.detach, *done.connect):
        readers.assert_lines([word for word in command if word != options.bridge], *readers.OVS_WORDS)
    readers.assert_lines([options.bridge], r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
    readers.assert_lines(done.secure, *readers.FLOW_LINES)
    written = [*done.deafen, *done.sysctls]
    assert all("/" not in change.name and change.name not in (".", "..") for change in written)
    readers.assert_lines([change.name for change in written], readers.IFNAME)


def build_vms(params: Mapping[str, Any]) -> None:
    common = {"vnc_listen": _qemu.check_address(params["vnc_listen"]), "accelerator": "tcg", "nic_offload": False}
    base_dir = normal_path("base_dir", params["base_dir"])
    for name, config in _qemu.parse(params["vms"], {**common, "user": params["user"]}, params["vnc_passwords"]).items():
        paths = _qemu.vm_paths(base_dir, RUN_DIR, params["slice"], name)
        assert_file_of(base_dir, params["slice"], paths)
        argv = _qemu.argv(params["slice"], name, config, paths, "tcg")
        options = readers.read_qemu(argv)
        # What is one value to us is one value to QEMU.
        assert ("-name", {"guest": f"{params['slice']}/{name}"}) in options
        assert [each["file.filename"] for option, each in options if option == "-blockdev"] == [paths.disk]
        assert [each["path"] for option, each in options if option == "-chardev"] == [paths.qmp, paths.console]
        taps = [each["ifname"] for option, each in options if option == "-netdev"]
        assert taps == [nic["tap"] for nic in config["interfaces"]]


def build_dnsmasq(params: Mapping[str, Any]) -> None:
    listed = (params["networks"], params["names"])
    service = _dnsmasq.parse_service(params["domain"], params["lease_time"], *listed, ["192.0.2.53"])
    files = _dnsmasq.render(service, "/state")
    assert set(files) == set(readers.DNSMASQ_LINES)
    for file, text in files.items():
        assert text.endswith("\n")
        readers.assert_lines(text[:-1].split("\n"), *readers.DNSMASQ_LINES[file])
    assert files["hosts"].count("\n") == 1 + sum(len(network["hosts"]) for network in params["networks"])
    assert files["names"].count("\n") == 1 + sum(len(name["addresses"]) for name in params["names"])


def build_nat(params: Mapping[str, Any]) -> None:
    options = _internet.parse_options({**params, "state": "present"})
    devices = {name: UPLINK._replace(name=name) for name in ("eth0", options.uplink or "eth0")}
    network = _iproute.Network(devices, {"eth0": "192.0.2.1"})
    bridges = {options.bridge: _ovs.Bridge(options.bridge, True)}
    host = _internet.Host(_ovs.Database(bridges, {}), network, {}, False, None, None)
    _internet.validate(options, host)
    actions = reconcile(_internet.wanted(options, host), _internet.observed(options, host), purge=True)
    done = _internet.steps(actions, options, host)
    uplink = str(_internet.uplink(options, host))
    readers.assert_lines([uplink], r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
    for script in (done.rules, done.inner_rules):
        lines = [line.replace(f'"{uplink}"', '"eth0"') for line in script.split("\n") if line]
        readers.assert_lines(lines, *readers.NFT_LINES)
    readers.assert_lines(done.lines, *readers.IP_LINES)
    for command in done.connect:
        words = [word for word in command if word != options.bridge]
        readers.assert_lines(words, *readers.OVS_WORDS, r'external_ids:"cloudrepo-role"="internet-gateway"')


def fate(world: hostile.World, registry: Registry) -> str:
    """How a world ended: ``refused by …``, or ``built``."""
    try:
        planned = plan_world(world, registry)
    except SpecError as error:
        message = str(error)
        readers.assert_printable(message)
        assert 0 < len(message) <= _ERROR_MAX, message
        return "refused by planner"
    except Refused as error:
        return f"refused by {error.by}"
    try:
        build_all(planned, world)
    except (ItemError, ValueError) as error:
        # Only settings of single hosts are left for the modules to judge.
        assert "\n" not in str(error)
        settings = {key: value for key, value in world.items() if key != "slice_spec"}
        assert settings != hostile.good_world(0), error
        return "refused by module"
    except Refused as error:
        return f"refused by {error.by}"
    registry.take(planned)
    return "built"


TEXTS = [
    "vms: [\u202e",
    '{"\\e[31m": 1, "\\e[31m": 2}',
    "{" + "? " * 3000,
    "[" * 5000,
    "name: !!python/object/apply:os.system [reboot]",
    'name: !<tag:\\x1b> "x"',
    "a: &a [*a]",
    "vms: *nobody\u200b",
    "x\0y",
    "\x1b[31m",
    "{name: web, vms: [{name: a, flavor: !!binary aGk=}]}",
    "{name: web, vlan_pool_size: 0x" + "f" * 5000 + "}",
    "{name: web, vms: 2026-13-45}",
    "name: " + "9" * 5000,
    "- " * 2000,
    "{name: web, ? [a, b] : 1}",
    "{? {a: b} : 1}",
    "--- a\n--- b",
    "key: " + "x" * 5000 + ": y",
]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_hostile_yaml(number: int) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(load_yaml(TEXTS[number], "slice_spec"))
    readers.assert_printable(str(refused.value))
    assert len(str(refused.value)) <= _ERROR_MAX


def test_whose_slice_it_would_be_is_checked_too() -> None:
    cluster = Cluster(workers(), [NETWORK_NODE], IMAGES)
    spec, flavors, settings = read_world({**hostile.good_world(0), "slice_spec": {"name": "a", **VMS}})
    for owner in ("alice\n", "", "a b", "\uff41", "a" * 151):
        with pytest.raises(SpecError, match="owner"):
            plan(spec, owner, flavors, cluster, EMPTY, settings)


VMS = {"vms": [{"name": "a", "flavor": "cirros"}]}


def test_hostile_worlds(record_property: Any) -> None:
    registry = Registry()
    fates: Counter[str] = Counter()
    for number, world in enumerate(hostile.worlds(schema(), WORLDS, seed=3)):
        try:
            fates[fate(world, registry)] += 1
        except Exception as error:
            raise AssertionError(f"world {number}: {error!r:.2000}") from error
    record_property("fates", dict(fates))
    print(dict(fates))
    assert sum(fates.values()) == WORLDS
    # Were all refused at the first look, nothing would have been tried.
    assert fates["built"] > WORLDS // 5 and fates["refused by planner"] > WORLDS // 5
