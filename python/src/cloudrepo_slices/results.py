# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interface:
    """A VM's network card. Not connected: ``vlan`` and ``address`` are None. ``address`` has its prefix length."""

    name: str
    mac: str
    vlan: int | None
    address: str | None
    link: int | None
    default_route: bool
    tap: str


@dataclass(frozen=True)
class VM:
    """A virtual machine. ``pid``, ``state`` and ``console`` are None where nobody saw it on its worker.

    Attributes:
        worker: the inventory's name of its worker, at ``worker_address``.
        vnc_port: TCP port of its screen on the worker; on the worker's loopback, unless the inventory says otherwise.
        console: socket of its serial console on the worker.
        state: what QEMU says, such as ``running``.
        retired: the spec no longer names it, and it could not be removed yet.
    """

    id: int
    name: str
    flavor: str
    cores: int
    memory_mb: int
    disk_gb: float
    image: str
    worker: str
    worker_address: str
    vnc_port: int
    console: str | None
    pid: int | None
    state: str | None
    retired: bool
    interfaces: tuple[Interface, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, without prefix lengths."""
        return tuple(nic.address.partition("/")[0] for nic in self.interfaces if nic.address)


@dataclass(frozen=True)
class Link:
    """A layer-2 link. Its ``endpoints`` are written as in a spec: ``("web:eth1", "db:eth1")``."""

    number: int
    name: str
    vlan: int
    subnet: str
    dhcp: bool
    gateway: bool
    port_security: bool
    endpoints: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """A slice as the registry knows it.

    Attributes:
        status: ``design``, ``deploying``, ``running``, ``failed`` or ``deleting``.
        reason: why it failed, else empty.
        vlans: the VLANs that are its own.
    """

    id: int
    name: str
    owner: str
    status: str
    reason: str
    vlans: range
    vms: tuple[VM, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Step:
    """One task of the playbook: how long it took, and how long on each host that it was not skipped on."""

    name: str
    seconds: float
    hosts: Mapping[str, float]


@dataclass(frozen=True)
class Failure:
    """What went wrong first: the task, the host and the whole message."""

    step: str
    host: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run went.

    Attributes:
        changed: whether it changed anything on any host.
        seconds: how long it took.
        steps: the same for each of its steps, in their order.
        warnings: what waits for a restart, for instance.
        failed: what went wrong, if anything did.
    """

    changed: bool
    seconds: float
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    failed: Failure | None


@dataclass(frozen=True, kw_only=True)
class SliceResult(Result):
    """What ``deploy`` and ``design`` come to."""

    slice: Slice

    @property
    def vms(self) -> tuple[VM, ...]:
        """The slice's VMs."""
        return self.slice.vms

    @property
    def links(self) -> tuple[Link, ...]:
        """The slice's links."""
        return self.slice.links


@dataclass(frozen=True, kw_only=True)
class ShowResult(Result):
    """What ``show`` comes to."""

    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Finding:
    """What is off, on which host and of which slice. Empty strings where it is about none.

    Attributes:
        kind: the kind of resource, such as ``vm`` or ``port``.
        item: its name.
        commands: the argument lists of the commands that remove it, where that is the remedy.
    """

    slice: str
    host: str
    kind: str
    item: str
    message: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Probe:
    """What was asked on a link, and whether the answer was not as it should be."""

    slice: str
    host: str
    name: str
    message: str
    failed: bool


@dataclass(frozen=True, kw_only=True)
class AuditResult(Result):
    """What ``audit`` comes to.

    Attributes:
        sound: whether nothing is off.
        summary: all of it in one line.
        slices: the slices that were judged.
        drift: in what hosts and registry differ.
        orphans: what belongs to no slice, and is still there.
        removed: the orphans that were removed.
        errors: why others could not be removed.
        probes: the probes of links that were made.
    """

    sound: bool
    summary: str
    slices: tuple[str, ...]
    drift: tuple[Finding, ...]
    orphans: tuple[Finding, ...]
    removed: tuple[Finding, ...]
    errors: tuple[str, ...]
    probes: tuple[Probe, ...]


def read_slice(record: Mapping[str, Any]) -> Slice:
    """A slice from the record that the playbooks hand to ``set_stats``."""
    pool = record["vlan_pool"]
    return Slice(
        **_same(record, "id", "name", "owner", "status", "reason"),
        vlans=range(pool["first"], pool["first"] + pool["size"]),
        vms=tuple(map(_vm, record["vms"])),
        links=tuple(map(_link, record["links"])),
    )


def read_audit(audit: Mapping[str, Any], result: Result) -> AuditResult:
    """An audit from what the playbook hands to ``set_stats``."""
    return AuditResult(
        **vars(result),
        **_same(audit, "sound", "summary"),
        slices=tuple(audit["slices"]),
        errors=tuple(audit["errors"]),
        probes=tuple(Probe(**_same(probe, "slice", "host", "name", "message", "failed")) for probe in audit["probes"]),
        drift=tuple(map(_finding, audit["drift"])),
        orphans=tuple(map(_finding, audit["orphans"])),
        removed=tuple(map(_finding, audit["removed"])),
    )


def _vm(record: Mapping[str, Any]) -> VM:
    interfaces = (
        Interface(**_same(nic, "name", "mac", "vlan", "address", "link", "default_route", "tap"))
        for nic in record["interfaces"]
    )
    reserved = _same(record, "id", "name", "flavor", "cores", "memory_mb", "disk_gb", "image")
    placed = _same(record, "worker", "worker_address", "vnc_port", "console", "pid", "state", "retired")
    return VM(**reserved, **placed, interfaces=tuple(interfaces))


def _link(record: Mapping[str, Any]) -> Link:
    endpoints = tuple(f"{end['vm']}:{end['interface']}" for end in record["endpoints"])
    same = _same(record, "number", "name", "vlan", "subnet", "dhcp", "gateway", "port_security")
    return Link(**same, endpoints=endpoints)


def _finding(record: Mapping[str, Any]) -> Finding:
    commands = tuple(map(tuple, record["commands"]))
    return Finding(**_same(record, "slice", "host", "kind", "item", "message"), commands=commands)


def _same(record: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {field: record[field] for field in fields}
