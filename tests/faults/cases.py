# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix: every fault with every scenario that it can hit, and what comes after, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from . import faults
from .lab import BASE_DIR, NODE
from .world import DELETE, DEPLOY, REDEPLOY, SCENARIOS, Case, Fault

SIGNALS = ("SIGINT", "SIGKILL")
Counts = dict[str, Any]


def cases(counts: Counts) -> list[Case]:
    """All of them. The aftermaths alternate, in each group of like cases from its first on."""
    groups: dict[tuple[str, str], list[tuple[str, str, Fault]]] = {}
    for name, scenario, fault in (*controller(counts), *modules(counts), *single()):
        groups.setdefault((fault.kind, scenario), []).append((name, scenario, fault))
    found = []
    for turn, group in enumerate(groups.values()):
        for place, (name, scenario, fault) in enumerate(group):
            after = (DELETE, DEPLOY)[(turn + place) % 2]
            found.append(Case(f"{name}-{scenario}", scenario, fault, after))
    # Those that need no other start stand together.
    return sorted(found, key=lambda case: SCENARIOS.index(case.scenario))


def calls(actions: list[list[Any]]) -> dict[tuple[str, int], int]:
    """How many actions each call of a module has."""
    return {(module, call): number for module, call, number, _what in actions}


def controller(counts: Counts) -> Iterator[tuple[str, str, Fault]]:
    for scenario in SCENARIOS:
        for kind in SIGNALS:
            for task in range(1, len(counts[scenario]["tasks"]) + 1):
                strike = partial(faults.signal_at, kind=kind, task=task)
                yield f"{kind}-task{task:02}", scenario, Fault(f"{kind} at a task boundary", strike, None, True)
            for host, actions in counts[scenario]["actions"].items():
                for (module, call), number in calls(actions).items():
                    strike = partial(
                        faults.signal_inside, kind=kind, host=host, module=module, call=call, action=(number + 1) // 2
                    )
                    yield (
                        f"{kind}-in-{module}.{call}-on-{host}",
                        scenario,
                        Fault(f"{kind} in a module", strike, None, True),
                    )


def modules(counts: Counts) -> Iterator[tuple[str, str, Fault]]:
    for scenario in SCENARIOS:
        for host, actions in counts[scenario]["actions"].items():
            for (module, call), number in calls(actions).items():
                for action in range(1, number + 1):
                    strike = partial(faults.module_killed, host=host, module=module, call=call, action=action)
                    # A write to the registry is tried again.
                    fault = Fault(f"{module} killed", strike, None if module == "slice_registry" else True)
                    yield f"kill-{module}.{call}-on-{host}-{action:02}", scenario, fault


def single() -> Iterator[tuple[str, str, Fault]]:
    def each(name: str, fault: Fault, *scenarios: str) -> Iterator[tuple[str, str, Fault]]:
        for scenario in scenarios or SCENARIOS:
            yield name, scenario, fault

    both = (DEPLOY, REDEPLOY)
    yield from each("vnc-port-taken", Fault("a QEMU refuses to start", faults.vnc_port_taken, True), *both)
    yield from each("vm-dies", Fault("a QEMU dies right after its start", faults.vm_dies, True), *both)
    yield from each("vm-killed", hand("a QEMU is killed", faults.kill_vm, True), REDEPLOY, DELETE)
    full = partial(faults.disk_full, host="worker3", folder=BASE_DIR)
    yield from each("disk-full", Fault("a worker's disk is full", full, True), *both)
    yield from each("disk-full", Fault("a worker's disk is full", full, False), DELETE)
    full = partial(faults.disk_full, host=NODE, folder="/var/lib/cloudrepo")
    yield from each("node-disk-full", Fault("the network node's disk is full", full, True), *both)
    yield from each("node-disk-full", Fault("the network node's disk is full", full), DELETE)
    for label, pipelining in (("sent", True), ("file", False)):
        cut = Fault("a base image arrives truncated", partial(faults.image_truncated, pipelining=pipelining), True)
        yield from each(f"image-truncated-{label}", cut, DEPLOY)
    for host in ("worker1", NODE):
        yield from each(f"ovsdb-gone-on-{host}", Fault("ovs-vsctl fails", partial(faults.ovsdb_gone, host=host), True))
        yield from each(
            f"ovsdb-hangs-on-{host}", Fault("ovs-vsctl hangs", partial(faults.ovsdb_hangs, host=host), True)
        )
    yield from each("dnsmasq-killed", hand("dnsmasq is killed", faults.kill_dnsmasq))
    yield from each("tap-deleted", hand("a TAP is deleted by hand", faults.delete_tap, True))
    yield from each("port-deleted", hand("an OVS port is deleted by hand", faults.delete_port))
    yield from each("overlay-deleted", hand("an overlay is deleted by hand", faults.delete_overlay, True))
    yield from each("namespace-deleted", hand("the namespace is deleted by hand", faults.delete_namespace))
    for way, how in (("cable", faults.unplugged), ("sshd", faults.without_sshd)):
        for host in ("worker2", NODE):
            what = "the network node" if host == NODE else "a worker"
            begin, later = (partial(how, host=host, in_the_middle=late) for late in (False, True))
            start = Fault(f"{what} is unreachable at the start", begin, True, out_of_reach=(host,))
            middle = Fault(f"{what} becomes unreachable", later, True, out_of_reach=(host,))
            yield from each(f"no-{way}-at-start-on-{host}", start)
            yield from each(f"no-{way}-in-the-middle-on-{host}", middle)
    worker = Fault("a worker is rebooted", partial(faults.rebooted, host="worker3"), hurts_vms=True, by_hand=True)
    yield from each("reboot-worker3", worker)
    node = Fault("the network node is rebooted", partial(faults.rebooted, host=NODE), reboots_node=True, by_hand=True)
    yield from each(f"reboot-{NODE}", node)
    locked = Fault("the registry is locked", partial(faults.registry_locked, seconds=300), True)
    yield from each("registry-locked", locked)
    busy = Fault("the registry is locked for 8 s", partial(faults.registry_locked, seconds=8), False)
    yield from each("registry-busy", busy)
    yield from each("registry-read-only", Fault("the registry is read-only", faults.registry_read_only, True))
    for damage, hurt in (("empty", faults.truncate_whole), ("cut", faults.truncate_half), ("gone", faults.remove)):
        broken = Fault("the registry is truncated or gone", partial(faults.registry_damaged, damage=hurt), True)
        yield from each(f"registry-{damage}", broken)


def hand(kind: str, action: Any, hurts_vms: bool = False) -> Fault:
    return Fault(kind, partial(faults.done_by_hand, action=action), hurts_vms=hurts_vms, by_hand=True)
