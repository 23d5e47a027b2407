# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The measurements, each checked for what it claims to have done. Kinds take turns, so that noise hits all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from . import floor, lab, looping, memory, planner_scale
from .lab import HOSTS, NODE, ROOT, WORKERS, BenchError
from .rings import BLANK, BLANK_MB, FLAVORS, Record, flavor, ring

IMAGES = lab.CACHE / "images"
PLAYBOOKS = ROOT / "playbooks"
LOOPS = ROOT / "tests" / "benchmarks" / "loops"

_CACHES = "/var/lib/cloudrepo/vm_images"
# A cache of its own, which can be emptied, so that an image is sent again.
_SENT_DIR = f"{floor.BASE_DIR}/images"
_SENT = "bench-sent.raw"
_SENT_BYTES = 500 * 10**6
_SETTINGS: Record = {"slices_image_dir": str(IMAGES), "slices_flavors": FLAVORS, "slices_quota": 1000}

Seconds = dict[str, dict[str, dict[int, list[float]]]]


class Times:
    """The seconds of every repetition, by kind, what was done, and N; each is told as it comes."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    def add(self, kind: str, what: str, count: int, took: float) -> None:
        self.seconds.setdefault(kind, {}).setdefault(what, {}).setdefault(count, []).append(took)
        say(f"{kind} {what} N={count}: {took:.2f} s")


def say(what: str) -> None:
    """Progress, at once even into a pipe."""
    print(f"  {what}", flush=True)


def prepare(counts: Sequence[int]) -> None:
    """What is not measured: the loops' collection, an image on every worker, and the floor's scripts."""
    lab.install_loops()
    lab.play(LOOPS / "prepare.yml", {})
    clean(counts)
    IMAGES.mkdir(parents=True, exist_ok=True)
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    lab.timed([*create, str(IMAGES / BLANK), f"{BLANK_MB}M"])
    for host in WORKERS:
        lab.run_in(host, "mkdir", "-p", floor.BASE_DIR)
        lab.run_in(host, *create, f"{floor.BASE_DIR}/{BLANK}", f"{BLANK_MB}M")
    for count in counts:
        for host, scripts in floor.scripts(count, WORKERS, NODE, _qemu_settings()).items():
            for what, text in scripts._asdict().items():
                lab.write_in(host, _script(count, what), text)
    for host in HOSTS:
        lab.write_in(host, f"{floor.BASE_DIR}/nothing_left.sh", floor.NOTHING_LEFT)
    _deploy(ring(_name(3), 3))
    _delete(_name(3))


def clean(counts: Sequence[int]) -> None:
    """Remove what this run, or one that was ended, has on the hosts."""
    for count in {3, *counts}:
        _delete(_name(count))
    for host in HOSTS:
        lab.run_in(host, "bash", "-c", floor.CLEAN)
        lab.run_in(host, "bash", "-c", f"rm -f {_CACHES}/bench-*")


def rings(counts: Sequence[int], runs: int, loop_counts: Sequence[int], loop_runs: int) -> Seconds:
    """Floor, ours and loops for rings of each number of VMs."""
    times = Times()
    for run in range(1, runs + 1):
        # What Ansible takes to do nothing tells how fast the machine is at the time.
        lab.warm()
        times.add("ours", "empty", 0, lab.play(lab.empty_play(), {}))
        for count in counts:
            say(f"--- run {run} of {runs}, N={count}")
            lab.warm()
            _floor(times, count)
            _ours(times, count, adding=count == max(counts))
            if count in loop_counts and run <= loop_runs:
                _loops(times, count)
    return times.seconds


def _floor(times: Times, count: int) -> None:
    times.add("floor", "deploy", count, lab.at_once(_script(count, "deploy")))
    lab.at_once(_script(count, "check"))
    times.add("floor", "delete", count, lab.at_once(_script(count, "delete")))
    _expect_nothing_left()


def _loops(times: Times, count: int) -> None:
    inventory = looping.inventory(count, WORKERS, NODE, _qemu_settings())
    times.add("loops", "deploy", count, lab.play_with(LOOPS / "deploy.yml", inventory))
    lab.at_once(_script(count, "check"))
    times.add("loops", "delete", count, lab.play_with(LOOPS / "delete.yml", inventory))
    _expect_nothing_left()


def _ours(times: Times, count: int, adding: bool) -> None:
    name = _name(count)
    times.add("ours", "deploy", count, _deploy(ring(name, count)))
    before = _expect_running(name, count)
    times.add("ours", "redeploy", count, _deploy(ring(name, count)))
    _expect_untouched(before, _expect_running(name, count))
    times.add("ours", "show", count, lab.play(PLAYBOOKS / "show_slices.yml", {**_SETTINGS, "slice": name}))
    if adding:
        parts = lab.parts(name)
        times.add("ours", "add", count, _deploy(ring(name, count, longer=True)))
        _expect_untouched(before, _expect_running(name, count + 1))
        # The first VM's record has one connected interface more.
        _expect_kept({part for part in parts if "/vm1.json " not in part}, lab.parts(name))
    times.add("ours", "delete", count, _delete(name))
    _expect_running(name, 0)


def planner(runs: int) -> dict[int, dict[str, list[float]]]:
    """Seconds and megabytes of plans of 1,000 and 10,000 VMs and links over 1,000 workers beside 1,000 slices."""
    given = {count: planner_scale.inputs(count) for count in (1000, 10_000)}
    found: dict[int, dict[str, list[float]]] = {count: {"seconds": [], "megabytes": []} for count in given}
    for _run in range(runs):
        for count, inputs in given.items():
            seconds, peak = planner_scale.measure(inputs)
            found[count]["seconds"].append(seconds)
            found[count]["megabytes"].append(peak / 10**6)
            say(f"plan of {count} VMs: {seconds:.2f} s, {peak / 10**6:.0f} MB")
    return found


def controller_memory(count: int, runs: int) -> Record:
    """The most memory of ansible-playbook in deploys, and in plays for the same hosts that do nothing."""
    name = _name(count)
    deploys: list[float] = []
    empty: list[float] = []
    for _run in range(runs):
        lab.warm()
        empty.append(_peak_mb(lab.play_argv(lab.empty_play(), {})))
        deploys.append(_peak_mb(lab.play_argv(PLAYBOOKS / "deploy_slice.yml", _variables(ring(name, count)))))
        _expect_running(name, count)
        _delete(name)
        say(f"memory: {deploys[-1]:.0f} MB for a deploy of {count} VMs, {empty[-1]:.0f} MB for an empty play")
    return {"count": count, "empty_mb": empty, "deploy_mb": deploys}


def _peak_mb(argv: Sequence[str]) -> float:
    process = lab.start(argv)
    peak, said = memory.peak_mb(process)
    if process.returncode != 0:
        raise BenchError(f"{' '.join(argv)[:300]} failed (rc={process.returncode}):\n{said[-4000:]}")
    return peak


def images(runs: int) -> dict[str, list[float]]:
    """Seconds to send an image of 500 MB to three workers: scp of all at once, and deploys of three VMs.

    ``scp`` is as a user types it, ``scp_like_ansible`` has the ciphers that the inventory gives to Ansible. ``first``
    sends the image, ``known`` finds it on the workers, ``small`` is a deploy with the small image, known as well.
    """
    found: dict[str, list[float]] = {"scp": [], "scp_like_ansible": [], "first": [], "known": [], "small": []}
    name = _name(3)
    for _run in range(runs):
        # Never the same again, and nothing that could be compressed.
        (IMAGES / _SENT).write_bytes(os.urandom(_SENT_BYTES))
        lab.warm()
        variables = {**_variables(ring(name, 3)), "slices_base_dir": _SENT_DIR}
        variables["slices_flavors"] = [flavor("blank", _SENT, disk_gb=0.5)]
        for what in found:
            os.sync()  # What the one before it wrote is not written on its time.
            if what.startswith("scp"):
                took = _scp(IMAGES / _SENT, ciphers=what != "scp")
            else:
                took = lab.play(
                    PLAYBOOKS / "deploy_slice.yml", _variables(ring(name, 3)) if what == "small" else variables
                )
                _expect_running(name, 3)
                lab.play(
                    PLAYBOOKS / "delete_slice.yml", {**variables, "slice": name} if what != "small" else {"slice": name}
                )
            found[what].append(took)
            say(f"image, {what}: {took:.2f} s")
        for host in WORKERS:
            lab.run_in(host, "rm", "-r", _SENT_DIR)
    (IMAGES / _SENT).unlink()
    return found


def _scp(file: os.PathLike[str], ciphers: bool) -> float:
    target = "/tmp/bench-scp"
    took = lab.timed(
        *(["scp", *lab.ssh_options(host, ciphers), str(file), f"{lab.address(host)}:{target}"] for host in WORKERS)
    )
    for host in WORKERS:
        lab.run_in(host, "rm", target)
    return took


def _name(count: int) -> str:
    return f"bench{count}"


def _script(count: int, what: str) -> str:
    return f"{floor.BASE_DIR}/{what}{count}.sh"


def _qemu_settings() -> Record:
    known = lab.host_vars(WORKERS[0])
    return {name: known[f"slices_{name}"] for name in ("accelerator", "nic_offload")}


def _variables(spec: Record) -> Record:
    return {**_SETTINGS, "slice_spec": spec}


def _deploy(spec: Record) -> float:
    return lab.play(PLAYBOOKS / "deploy_slice.yml", _variables(spec))


def _delete(name: str) -> float:
    return lab.play(PLAYBOOKS / "delete_slice.yml", {**_SETTINGS, "slice": name})


def _expect_nothing_left() -> None:
    lab.at_once(f"{floor.BASE_DIR}/nothing_left.sh")


def _expect_running(name: str, count: int) -> dict[str, int]:
    found = lab.running(name)
    if len(found) != count:
        raise BenchError(f"slice {name}: {len(found)} VMs run, not {count}")
    return found


def _expect_untouched(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    touched = [vm for vm, pid in before.items() if after.get(vm) != pid]
    if touched:
        raise BenchError(f"{', '.join(touched)}: restarted or gone")


def _expect_kept(before: set[str], after: set[str]) -> None:
    if before - after:
        raise BenchError("\n".join(["another VM and link touched", *sorted(before - after)]))


def machine() -> Record:
    """What it was measured on."""
    known: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known["memory_gb"] = round(pages / 2**30)
    known["accelerator"] = _qemu_settings()["accelerator"]
    known["versions"] = lab.versions()
    return known
