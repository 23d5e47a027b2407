# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One case: bring the broken slice to where it starts, break a play, look, and see whether all can be put right."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from . import lab, slices
from .lab import NODE, Play, Played, Record, Snapshot
from .slices import BROKEN, CACHE, SETTINGS

DEPLOY, REDEPLOY, DELETE = "deploy", "redeploy", "delete"
SCENARIOS = (DEPLOY, REDEPLOY, DELETE)
RETIRING = "retire.yml for"  # Ansible says when it includes a file.
CALLBACKS = {
    "ANSIBLE_CALLBACK_PLUGINS": str(lab.ROOT / "tests/faults/callback_plugins"),
    "ANSIBLE_CALLBACKS_ENABLED": "fault_hook",
}
HOOKED = {"ansible_python_interpreter": f"{lab.HOOK}/python"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: its row in the table.
        inject: breaks the play that runs inside of it, and mends what it broke when that is over.
        fails: whether the play has to end with an error; None if it may.
        controller_dies: then nothing is left that could take away what a first deploy made.
        hurts_vms: VMs that ran may end, or may need a restart, without the play being to blame.
        out_of_reach: hosts from which a failed deploy can take nothing away.
        by_hand: a first deploy is past what is destroyed, and need not notice.
        reboots_node: of the bystander only the ping on one link is watched: the network node is off for a while.
    """

    kind: str
    inject: Callable[[Run], AbstractContextManager[None]]
    fails: bool | None = None
    controller_dies: bool = False
    hurts_vms: bool = False
    out_of_reach: tuple[str, ...] = ()
    by_hand: bool = False
    reboots_node: bool = False


@dataclass(frozen=True)
class Case:
    id: str
    scenario: str
    fault: Fault
    aftermath: str  # DEPLOY or DELETE


@dataclass
class Run:
    """A case while it runs. Faults note what they see in `problems`, and whether they struck at all."""

    case: Case
    world: World
    play: Play
    struck: bool = True
    problems: list[str] = field(default_factory=list)


class World:
    """The lab with its two slices."""

    def __init__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        slices.make_images()
        for host in lab.HOSTS:
            lab.install_hook(host)
            lab.give_order(host)
        self.version: str | None = None  # of the spec that runs now, untouched by any fault
        self.delete()
        self.bystander = slices.Bystander()
        # An ID that is also a VLAN, or the 10000 leases of dnsmasq, could not be told from it where lines are compared.
        lab.skip_ids(20_000)
        self.baseline = lab.look()
        self.references = self.undisturbed()

    def undisturbed(self) -> dict[str, dict[str, Counter[str]]]:
        """By version of the spec, what the slice looks like when nothing goes wrong; looked at once for a product."""
        path = CACHE / f"undisturbed-{digest()}.json"
        if path.exists():
            known = json.loads(path.read_text())
            return {v: {host: Counter(lines) for host, lines in hosts.items()} for v, hosts in known.items()}
        found = {}
        for version in "AB":
            self.deploy(version)
            found[version] = self.normal_lines(lab.look())
        self.delete()
        problems = self.leftovers()
        assert not problems, f"even without a fault: {problems}"
        path.write_text(json.dumps(found, indent=1))
        return found

    # --- what plays do

    def extra(self, scenario: str, version: str) -> tuple[str, dict[str, Any]]:
        """The playbook of a scenario, and its variables."""
        if scenario == DELETE:
            return "delete_slice", {"slice": BROKEN, **SETTINGS}
        return "deploy_slice", {"slice_spec": slices.spec(version), **SETTINGS}

    def deploy(self, version: str) -> None:
        name, extra = self.extra(DEPLOY, version)
        lab.playbook(name, **extra)
        self.version = version

    def delete(self) -> None:
        name, extra = self.extra(DELETE, "")
        lab.playbook(name, **extra)
        self.version = None

    def prepare(self, scenario: str) -> str:
        """Bring the slice to where a scenario starts. Returns the version that it deploys."""
        if scenario == DEPLOY:
            if self.version:
                self.delete()
            slices.forget_image()
            return "A"
        if not self.version:
            self.deploy("A")
        assert self.version
        return {"A": "B", "B": "A"}[self.version] if scenario == REDEPLOY else self.version

    # --- what is to be seen

    def normal_lines(self, snapshot: Snapshot) -> dict[str, Counter[str]]:
        record = lab.record_of(BROKEN)
        assert record, f"there is no slice {BROKEN}"
        names = slices.names_of(record)
        own = slices.apart_from(snapshot.lines, self.baseline.lines)
        return {host: slices.normal_lines(lines, names) for host, lines in own.items()}

    def leftovers(self, snapshot: Snapshot | None = None) -> list[str]:
        """What is there beside the bystander, and what the bystander lacks."""
        now = (snapshot or lab.look()).lines
        extra = slices.apart_from(now, self.baseline.lines)
        lacking = slices.apart_from(self.baseline.lines, now)
        return slices.differences(lacking, extra)

    def bystander_problems(self, node_rebooted: bool) -> list[str]:
        snapshot = lab.look()
        lacking = slices.apart_from(self.baseline.lines, snapshot.lines)
        problems = [f"bystander: {host} lacks {line[:200]}" for host in lacking for line in lacking[host]]
        for host, pids in self.baseline.pids.items():
            if host == NODE and node_rebooted:
                continue
            now = snapshot.pids[host]
            problems += [f"bystander: {name} is another process" for name in pids if now.get(name) != pids[name]]
        problems += self.bystander.problems(only_layer_2=node_rebooted)
        if node_rebooted:
            self.bystander.watch()
            self.baseline = Snapshot(self.baseline.lines, {**self.baseline.pids, NODE: own_pids(snapshot)})
        return problems

    def reset(self) -> None:
        """After a case that could not be put right: a new lab, as the next case must not pay for it."""
        with suppress(OSError):  # Its folder may be a mount, which stays; then all that was in it is gone.
            lab.playbook("lab_down")
        lab.playbook("lab_up")
        lab.playbook("prepare_hosts")
        self.__init__()  # type: ignore[misc]


def own_pids(snapshot: Snapshot) -> dict[str, int]:
    """The network node's processes that are not the broken slice's."""
    return {name: pid for name, pid in snapshot.pids[NODE].items() if BROKEN not in name}


@dataclass
class Result:
    """What came of a case."""

    case: Case
    struck: bool
    problems: list[str]
    seconds: float
    log: str = ""

    def row(self) -> dict[str, Any]:
        return {
            "id": self.case.id,
            "kind": self.case.fault.kind,
            "scenario": self.case.scenario,
            "aftermath": self.case.aftermath,
            "struck": self.struck,
            "problems": self.problems,
            "seconds": round(self.seconds, 1),
        }


def run_case(world: World, case: Case) -> Result:
    began = time.monotonic()
    play = Play("", {}, CACHE / "play.log", dict(CALLBACKS))
    run = Run(case, world, play)
    played = Played(None, "", 0)
    try:
        version = world.prepare(case.scenario)
        before = lab.look()
        record_before = lab.record_of(BROKEN)
        play.name, play.extra = world.extra(case.scenario, version)
        world.version = None
        with case.fault.inject(run):
            play.start()
            played = play.wait()
        problems = run.problems
        problems += after_fault(run, version, played, before)
        later = aftermath(run, version, before, record_before)
        later += world.bystander_problems(case.fault.reboots_node)
        problems += later
    except Exception as error:  # The harness must go on: what it could not do is this case's problem.
        problems = later = [*run.problems, f"harness: {type(error).__name__}: {str(error)[-1500:]}"]
    finally:
        if play.process:
            play.kill()
    if problems:
        (CACHE / "logs").mkdir(exist_ok=True)
        (CACHE / "logs" / f"{case.id}.log").write_text("\n".join([*problems, "", played.output]))
    if later:
        repair(world)
    return Result(case, run.struck, problems, time.monotonic() - began)


def after_fault(run: Run, version: str, played: Played, before: Snapshot) -> list[str]:
    case, fault = run.case, run.case.fault
    problems = []
    if played.rc is None:
        problems.append(f"the play did not end within {run.play.timeout:.0f} seconds")
    elif fault.fails is not None and fault.fails != (played.rc != 0) and run.struck:
        problems.append(f"the play ended with {played.rc}")
    now = lab.look()
    # What can't be recorded is not taken away either: its numbers would be given out again with it still there.
    recorded = not fault.controller_dies and NODE not in fault.out_of_reach
    if case.scenario == DEPLOY and played.rc and recorded:
        left = [line for line in run.world.leftovers(now) if line.partition(":")[0] not in fault.out_of_reach]
        problems += [f"failed deploy left: {line} ({len(left)} such lines)" for line in left[:1]]
        problems += [f"failed deploy left: {line}" for line in wrong_status(lab.record_of(BROKEN))]
    # A VM that needs a restart is told of in a warning.
    unnoticed = (fault.by_hand and case.scenario == DEPLOY) or (fault.hurts_vms and case.scenario == REDEPLOY)
    if played.rc == 0 and not unnoticed:
        problems += [f"the play said ok, and yet: {line}" for line in not_as_said(run, version, now)[:20]]
    if case.scenario == REDEPLOY and not fault.hurts_vms:
        # Unless the play got as far as to remove what is no longer wanted, nobody has lost anything.
        names = kept_vms() if RETIRING in played.output else set(slices.broken_vms(before))
        problems += lost_vms(before, now, names, "the fault")
    return problems


def not_as_said(run: Run, version: str, now: Snapshot) -> list[str]:
    """Where the hosts differ from what a play that ended without an error promises."""
    if run.case.scenario == DELETE:
        return run.world.leftovers(now)
    return slices.differences(run.world.references[version], run.world.normal_lines(now))


def wrong_status(record: Record | None) -> list[str]:
    if record is None or (record["status"] == "failed" and record["reason"]):
        return []
    return [f"status {record['status']}, reason {record['reason']!r}"]


def kept_vms() -> set[str]:
    """The VMs that are in both specs."""
    return {vm["name"] for vm in slices.spec("A")["vms"]} & {vm["name"] for vm in slices.spec("B")["vms"]}


def lost_vms(before: Snapshot, now: Snapshot, names: set[str], what: str) -> list[str]:
    """VMs of these names that ran and run no more, or again."""
    one, other = slices.broken_vms(before), slices.broken_vms(now)
    return [f"{vm} did not survive {what}" for vm in sorted(names) if vm in one and other.get(vm) != one[vm]]


def aftermath(run: Run, version: str, before: Snapshot, record_before: Record | None) -> list[str]:
    world, case = run.world, run.case
    record = lab.record_of(BROKEN)
    name, extra = world.extra(case.aftermath, version)
    if case.fault.hurts_vms:
        extra["slices_allow_restart"] = True
    play = Play(name, extra, CACHE / "aftermath.log")
    play.start()
    played = play.wait()
    if played.rc != 0:
        return [f"{name} after it failed (rc={played.rc}): {played.output[-2500:]}"]
    now = lab.look()
    if case.aftermath == DELETE:
        problems = [f"delete left: {line}" for line in world.leftovers(now)]
        if lab.record_of(BROKEN):
            problems.append("delete left the registry's row")
        return problems
    world.version = version
    after = lab.record_of(BROKEN)
    if after is None or after["status"] != "running":
        return [f"deployed again it is {after and after['status']}"]
    if case.scenario == DELETE and case.fault.controller_dies and record and record["id"] != after["id"]:
        record = None  # A module that outlived its play went on to forget the slice.
    problems = [f"deployed again: {line}" for line in changed(record, after)]
    if case.scenario != DELETE:
        # Numbers of a slice that was being deleted may be gone with it, if its row is gone.
        problems += [f"deployed again: {line}" for line in changed(record_before, after)]
    differences = slices.differences(world.references[version], world.normal_lines(now))
    problems += [f"deployed again: {line}" for line in differences[:20]]
    if case.scenario == REDEPLOY and not case.fault.hurts_vms:
        problems += lost_vms(before, now, kept_vms(), "the deploy after the fault")
    return problems


def changed(before: Record | None, after: Record) -> list[str]:
    return slices.changed_allocations(before, after) if before else []


def repair(world: World) -> None:
    """Make the world fit for the next case again, with the product if it can, else with a new lab."""
    try:
        world.delete()
        if not world.leftovers() and not world.bystander.problems():
            return
    except Exception as error:
        print(f"repair: {error}")
    world.reset()


def digest() -> str:
    """Of what is tested: of another product, other things have to be counted."""
    found = hashlib.sha256((lab.ROOT / "tests/faults/slices.py").read_bytes())
    for path in sorted([*(lab.ROOT / "collections").rglob("*"), *(lab.ROOT / "tests/faults/on_host").iterdir()]):
        if path.suffix in (".py", ".yml") and "/tests/" not in str(path):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def counts() -> dict[str, Any]:
    """By scenario, the names of its tasks, and the actions of each module's calls by host; counted once."""
    path = CACHE / f"counts-{digest()}.json"
    if not path.exists():
        counted = count()
        path.write_text(json.dumps(counted, indent=1))
    return dict(json.loads(path.read_text()))


def count() -> dict[str, Any]:
    """Play each scenario once, with the hooks counting."""
    CACHE.mkdir(parents=True, exist_ok=True)
    slices.make_images()
    found: dict[str, Any] = {}
    # The registry and the hosts' folders, which the first deploy of all makes, are there when faults strike.
    name, extra = World.extra(None, DEPLOY, "A")  # type: ignore[arg-type]
    lab.playbook(name, **extra)
    lab.playbook("delete_slice", slice=BROKEN)
    slices.forget_image()
    for scenario, version in ((DEPLOY, "A"), (REDEPLOY, "B"), (DELETE, "")):
        for host in lab.HOSTS:
            lab.install_hook(host)
            lab.give_order(host, do="count")
        tasks = CACHE / "tasks"
        tasks.unlink(missing_ok=True)
        name, extra = World.extra(None, scenario, version)  # type: ignore[arg-type]
        play = Play(name, {**extra, **HOOKED}, CACHE / "count.log", {**CALLBACKS, "FAULTS_LOG": str(tasks)})
        play.start()
        played = play.wait()
        assert played.rc == 0, played.output
        # What the changed spec removes and adds is on worker3.
        hosts = ("worker1", "worker3", NODE) if scenario == REDEPLOY else ("worker1", NODE)
        actions = {host: lab.counted_actions(host) for host in hosts}
        found[scenario] = {"tasks": tasks.read_text().splitlines(), "actions": actions}
    for host in lab.HOSTS:
        lab.give_order(host)
    return found
