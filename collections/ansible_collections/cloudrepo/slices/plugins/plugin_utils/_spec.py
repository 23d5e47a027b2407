# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The spec of a slice: what a user writes, checked and in one form. Pure but for reading the schema's file."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..module_utils._names import NAME_RULE, OWNER_RULE, is_file_name, is_name, is_owner
from ._addressing import POOL_VLANS, Subnet
from ._netaddr import AddrFormatError, IPNetwork
from ._schema import SpecError, check_options, element_label
from ._topology import generate

MAX_VMS = 10_000
# The PC machine type has room for 24 network cards beside its disk and screen; one of them is eth0.
MAX_DATA_INTERFACES = 23

_INTERFACE = re.compile(r"eth(0|[1-9][0-9]?)")
_SCHEMA_FILE = Path(__file__).parents[2] / "roles" / "slice" / "meta" / "argument_specs.yml"


@dataclass(frozen=True)
class Flavor:
    """The size and the base image of a VM."""

    name: str
    cores: int
    memory_mb: int
    disk_gb: float
    image: str


class Endpoint(NamedTuple):
    """One end of a link; ``interface`` is None where the VM's next free data interface is meant."""

    vm: str
    interface: str | None


class Link(NamedTuple):
    """A layer-2 segment. ``name`` is the key under which its numbers are kept; ``label`` names it in errors."""

    name: str
    label: str
    endpoints: tuple[Endpoint, ...]
    subnet: Subnet | None
    dhcp: bool
    gateway: bool
    port_security: bool


class Vm(NamedTuple):
    """A virtual machine. ``interfaces`` counts data interfaces; None: as many as the links need."""

    name: str
    label: str
    flavor: str
    interfaces: int | None
    internet: bool
    worker: str | None
    default_route: str | None


@dataclass(frozen=True)
class SliceSpec:
    """A whole slice as the user wants it."""

    name: str
    owner: str | None
    vlan_pool_size: int | None
    vms: tuple[Vm, ...]
    links: tuple[Link, ...] = field(default=())


@functools.cache
def load_schema() -> dict[str, Any]:
    """The spec's and the flavors' schema: the options of the role's ``plan`` entry point."""
    # The loader in C, where PyYAML has it, takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    specs = yaml.load(_SCHEMA_FILE.read_text(encoding="utf-8"), Loader=loader)
    options: dict[str, Any] = specs["argument_specs"]["plan"]["options"]
    return options


def parse_spec(raw: object, vlans: range = POOL_VLANS) -> SliceSpec:
    """Check a spec and bring it into one form; a ``topology`` becomes VMs and links.

    Args:
        raw: what the user wrote.
        vlans: what pools are made of.

    Raises:
        SpecError: one line that names the item.
    """
    checked = check_options(raw, load_schema()["slice_spec"]["options"], "slice")
    name = checked["name"]
    check_name(name, "slice name")
    if checked["owner"] is not None:
        check_owner(checked["owner"])
    size = checked["vlan_pool_size"]
    most = len(vlans)
    if size is not None and not 1 <= size <= most:
        raise SpecError(f"vlan_pool_size must be 1 to {most}, not {size}")
    raw_vms, raw_links = list(checked["vms"]), list(checked["links"])
    if checked["topology"] is not None:
        # Without a size here, the registry may know a larger pool than the standard one: the planner checks that.
        vms, links = _generate(checked["topology"], size or most)
        raw_vms += vms
        raw_links += links
    if not raw_vms:
        raise SpecError(f"slice {name}: no VMs: give vms or a topology")
    if len(raw_vms) > MAX_VMS:
        raise SpecError(f"slice {name}: {len(raw_vms)} VMs, more than {MAX_VMS}")
    parsed_vms = tuple(_vm(vm, element_label("vms", index, vm)) for index, vm in enumerate(raw_vms))
    _refuse_duplicates("vms", [vm.name for vm in parsed_vms], "VM")
    parsed_links = _links(raw_links)
    _refuse_duplicates("links", [link.name for link in parsed_links], "link")
    _check_endpoints({vm.name: vm for vm in parsed_vms}, parsed_links)
    return SliceSpec(name, checked["owner"], size, parsed_vms, parsed_links)


def parse_flavors(raw: object) -> dict[str, Flavor]:
    """Check a list of flavors; of two with the same name the later one counts, so that users can override ours.

    Raises:
        SpecError: one line that names the flavor.
    """
    schema = {"slices_flavors": load_schema()["slices_flavors"]}
    checked = check_options({"slices_flavors": raw}, schema, "inventory")["slices_flavors"]
    return {flavor["name"]: _flavor(flavor, f"slices_flavors[{index}]") for index, flavor in enumerate(checked)}


def check_name(value: object, label: str) -> None:
    """Refuse what may not name a slice, a VM or a link."""
    if not is_name(value):
        raise SpecError(f"{label} {str(value)[:60]!r} must be {NAME_RULE}")


def check_owner(value: object) -> None:
    """Refuse whom no slice may belong to: the name goes into the registry, onto the hosts and into reports."""
    if not is_owner(value):
        raise SpecError(f"owner {str(value)[:60]!r} must be {OWNER_RULE}")


def _generate(topology: dict[str, Any], most_links: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if topology["vms"] > MAX_VMS:
        raise SpecError(f"topology: vms must be at most {MAX_VMS}, not {topology['vms']}")
    vms, links = generate(topology["type"], topology["vms"], topology["flavor"], most_links)
    options = load_schema()["slice_spec"]["options"]
    return (
        [check_options(vm, options["vms"]["options"], "topology") for vm in vms],
        [check_options(link, options["links"]["options"], "topology") for link in links],
    )


def _flavor(checked: dict[str, Any], where: str) -> Flavor:
    name = checked["name"]
    if not is_file_name(name):
        raise SpecError(f"{where}: name {name[:60]!r} must be letters, digits or any of . _ -")
    label = f'flavor "{name}"'
    for key in ("cores", "memory_gb", "disk_gb"):
        if not 0 < checked[key] < 1_000_000:
            raise SpecError(f"{label}: {key} must be more than 0, not {checked[key]}")
    if not is_file_name(checked["image"]):
        raise SpecError(f"{label}: image {checked['image'][:60]!r} must be a file name without a folder")
    # 1 GB of a flavor is 1024 MB, as QEMU counts.
    return Flavor(
        name,
        checked["cores"],
        max(1, round(checked["memory_gb"] * 1024)),
        checked["disk_gb"],
        checked["image"],
    )


def _vm(checked: dict[str, Any], label: str) -> Vm:
    check_name(checked["name"], f"{label.split(' ')[0]}: name")
    count = checked["interfaces"]
    if count is not None and not 0 <= count <= MAX_DATA_INTERFACES:
        raise SpecError(f"{label}: interfaces must be 0 to {MAX_DATA_INTERFACES}, not {count}")
    if checked["default_route"] is not None:
        _check_interface_name(checked["default_route"], f"{label}: default_route")
    return Vm(
        name=checked["name"],
        label=label,
        flavor=checked["flavor"],
        interfaces=count,
        internet=checked["internet"],
        worker=checked["worker"],
        default_route=checked["default_route"],
    )


def _links(raw_links: list[dict[str, Any]]) -> tuple[Link, ...]:
    parallel: Counter[str] = Counter()
    links = []
    for index, checked in enumerate(raw_links):
        label = element_label("links", index, checked)
        endpoints = tuple(
            _endpoint(text, f"{label}: endpoints[{number}]") for number, text in enumerate(checked["endpoints"])
        )
        if len(endpoints) < 2:
            raise SpecError(f"{label}: a link has two or more endpoints, not {len(endpoints)}")
        name = checked["name"]
        if name is None:
            name = _derived_name(checked["endpoints"], parallel)
        else:
            check_name(name, f"links[{index}]: name")
        subnet = None if checked["subnet"] is None else parse_subnet(checked["subnet"], label)
        dhcp, port_security = checked["dhcp"], checked["port_security"]
        if port_security and not dhcp:
            raise SpecError(f"{label}: port_security needs dhcp: a guest without a given address can't be held to it")
        links.append(Link(name, label, endpoints, subnet, dhcp, checked["gateway"], port_security))
    return tuple(links)


def _derived_name(endpoints: list[str], parallel: Counter[str]) -> str:
    """The key of a link without a name: its endpoints in any order; parallel ones are counted."""
    # "_" and "." can't be in a name that a user chooses, so the two kinds of names never meet.
    name = "_".join(sorted(endpoints))
    parallel[name] += 1
    return name if parallel[name] == 1 else f"{name}.{parallel[name]}"


def _endpoint(text: str, label: str) -> Endpoint:
    vm, colon, interface = text.partition(":")
    check_name(vm, f"{label}: VM name")
    if colon:
        _check_interface_name(interface, label)
        if interface == "eth0":
            raise SpecError(f"{label}: eth0 is the management interface; links use eth1 and up")
    return Endpoint(vm, interface if colon else None)


def _check_interface_name(value: str, label: str) -> None:
    if not _INTERFACE.fullmatch(value) or int(value[3:]) > MAX_DATA_INTERFACES:
        raise SpecError(f"{label}: {value[:60]!r} is no interface name; they are eth0 to eth{MAX_DATA_INTERFACES}")


def parse_subnet(text: str, label: str) -> Subnet:
    """An IPv4 network that guests can live in.

    Raises:
        SpecError: it is no network, has host bits set, or is of a kind that guests can't use.
    """
    try:
        if not re.fullmatch(r"[0-9.]{7,15}/[0-9]{1,2}", text):
            raise ValueError(text)
        network = IPNetwork(text)
    except (AddrFormatError, ValueError):
        raise SpecError(f"{label}: subnet {text[:60]!r} must be an IPv4 network such as 192.168.50.0/24") from None
    if network.ip != network.network:
        raise SpecError(f"{label}: subnet {text} has host bits set; did you mean {network.cidr}?")
    if not 8 <= network.prefixlen <= 29:
        raise SpecError(f"{label}: subnet {text} must be between /8 and /29")
    # 0/8, loopback, link-local and everything from multicast up do not work as a guest's subnet.
    if network.first >> 24 in (0, 127) or network.first >> 16 == 0xA9FE or network.last >> 28 >= 14:
        raise SpecError(f"{label}: subnet {text} can't be used for guests")
    return Subnet(int(network.first), int(network.prefixlen))


def _refuse_duplicates(where: str, names: list[str], kind: str) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            raise SpecError(f'{where}[{index}] "{name}": duplicate {kind}, {where}[{first[name]}] has that name too')
        first[name] = index


def _check_endpoints(vms: Mapping[str, Vm], links: tuple[Link, ...]) -> None:
    used: dict[tuple[str, str], str] = {}
    for link in links:
        seen: set[str] = set()
        for endpoint in link.endpoints:
            if endpoint.vm not in vms:
                raise SpecError(f'{link.label}: there is no VM "{endpoint.vm}" in this slice')
            if endpoint.vm in seen:
                raise SpecError(f'{link.label}: links VM "{endpoint.vm}" to itself')
            seen.add(endpoint.vm)
            if endpoint.interface is None:
                continue
            count = vms[endpoint.vm].interfaces
            if count is not None and int(endpoint.interface[3:]) > count:
                raise SpecError(
                    f'{link.label}: VM "{endpoint.vm}" has no interface {endpoint.interface} (interfaces: {count})'
                )
            key = (endpoint.vm, endpoint.interface)
            if key in used:
                raise SpecError(
                    f"{link.label}: {endpoint.vm}:{endpoint.interface} is used twice, {used[key]} has it already"
                )
            used[key] = link.label
