# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The worst that a user can write, through the real playbook: refused in one clean line, or deployed as it is meant.

The unit tests try ten thousand specs on the planner and the builders; this tries fifty on everything.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

CANARY = "/tmp/cloudrepo-canary"
PAYLOADS = {
    "shell": f"$(touch {CANARY})",
    "backtick": f"`touch {CANARY}`",
    "semicolon": f"a;touch {CANARY}",
    "template": f"{{{{ lookup('pipe', 'touch {CANARY}') }}}}",
    "qemu": f"a,script={CANARY}",
    "qemu comma": "a,,file=/etc/shadow",
    "ovs": '" -- --if-exists del-br br-int -- "',
    "dnsmasq": f"a\ndhcp-script={CANARY}",
    "path": f"../../../..{CANARY}",
    "option": "--help",
    "terminal": "a\x1b]0;owned\x07\x1b[2J",
    "direction": "a\u202eb\u200b",
    "digit": "\uff11\u0661",
    "zero": "a\0b",
    "long": "a" * 20000,
}
# Where it is written: keys and indexes into SPEC, or FLAVOR for what starts with "flavor".
FIELDS: list[tuple[Any, ...]] = [
    ("owner",),
    ("vlan_pool_size",),
    ("vms", 0, "name"),
    ("vms", 0, "flavor"),
    ("vms", 0, "interfaces"),
    ("vms", 0, "internet"),
    ("vms", 0, "worker"),
    ("vms", 0, "default_route"),
    ("vms", 0, "new\x1b[31mkey"),
    ("links", 0, "name"),
    ("links", 0, "subnet"),
    ("links", 0, "endpoints", 0),
    ("links", 0, "dhcp"),
    ("topology",),
    ("name",),
    ("flavor", "name"),
    ("flavor", "image"),
    ("flavor", "disk_gb"),
]
SPEC: dict[str, Any] = {
    "name": "worst",
    "owner": "alice",
    "vms": [{"name": "a", "flavor": "own", "interfaces": 1}, {"name": "b", "flavor": "own"}],
    "links": [{"endpoints": ["a:eth1", "b"], "name": "lan", "subnet": "10.77.0.0/24"}],
}
FLAVOR = {"name": "own", "cores": 1, "memory_gb": 0.25, "disk_gb": 1, "image": "cirros-0.6.2-x86_64-disk.img"}
# What an operator sets, and what -e slice= says: refused as well, before anything is reserved.
SETTINGS: dict[str, dict[str, Any]] = {
    "slice": {"slice": f"worst;touch {CANARY}"},
    "slice with a path": {"slice": f"../..{CANARY}"},
    "slice with a newline": {"slice": "worst\x1b[31m\n"},
    "subnet": {"slices_internet_subnet": "10.60.7.0/24\n10.0.0.0/8"},
    "bridge": {"slices_bridge": "br-int -- del-br br-int"},
    "relative folder": {"slices_base_dir": "vm_images"},
    "folder with a newline": {"slices_base_dir": "/var/lib/cloudrepo/vm\nimages"},
    "folder with a zero": {"slices_base_dir": "/var/lib/cloudrepo/vm\0images"},
    "registry": {"slices_registry_path": "slices.sqlite"},
    "user": {"slices_qemu_user": f"root;touch {CANARY}"},
    "user who runs it": {"awx_user_name": "al\x1b[31mice"},
    "quotas": {"slices_quotas": {"al\nice": "\uff11" * 5000}},
    "reserved VLANs": {"slices_reserved_vlans": None, "slices_internet_vlan": "4095"},
}
# Hostile by looks only: these have to be deployed.
GOOD: dict[str, dict[str, Any]] = {
    "g" + "0" * 31: {"owner": "al.ice+x_y-z@example.org", "vms": [{"name": "v" + "-" * 30 + "9", "flavor": "own"}]},
    "null": {"owner": "-rf", "vms": [{"name": "true", "flavor": "own"}, {"name": "0x10", "flavor": "own"}]},
}


def worst() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Forty cases: a name, a spec and the variables of the run. Every payload and every field is among them."""
    pairs = list(itertools.product(FIELDS, PAYLOADS))
    random.Random(3).shuffle(pairs)
    chosen: list[tuple[tuple[Any, ...], str]] = []
    for field, payload in pairs:
        used = sum(field == other for other, _ in chosen), sum(payload == other for _, other in chosen)
        if max(used) < 3 and len(chosen) < 40:
            chosen.append((field, payload))
    return [(f"{'.'.join(map(str, field))}: {payload}", *_with(field, PAYLOADS[payload])) for field, payload in chosen]


def _with(field: tuple[Any, ...], payload: str) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, flavor = copy.deepcopy(SPEC), dict(FLAVOR)
    at: Any = {**spec, "flavor": flavor}
    for step in field[:-1]:
        at = at[step]
    (spec if len(field) == 1 else at)[field[-1]] = payload
    return spec, {"slices_flavors": [flavor]}


def problems(name: str, run: Any) -> list[str]:
    """What is wrong with how a run was refused."""
    errors = re.findall(r"^\[ERROR\]: (?:Task failed: )?(.*)$", run.output, re.MULTILINE)
    found = {
        "was not refused": run.rc == 0,
        "changed something": not run.recap or run.total("changed") > 0,
        "said nothing": not errors or len(errors[-1]) < 10,
        "ended in a traceback": "Traceback" in run.output,
        "reached the terminal": any(not sign.isprintable() for sign in run.output if sign not in "\n\t"),
    }
    return [f"{name} {problem}: {run.output[-1500:]!a}" for problem, so in found.items() if so]


@pytest.fixture
def state(run_playbook: Any) -> Callable[[], str]:
    """What the registry has, as it is shown."""

    def ask() -> str:
        shown = run_playbook("show_slices", output="json")
        assert shown.rc == 0, shown.output
        return shown.output[shown.output.index("\n{\n") : shown.output.index("\n}\n")]

    return ask


def test_the_worst_specs(
    run_playbook: Any, run_module: Any, state: Callable[[], str], tmp_path: Path, record_property: Any
) -> None:
    before = state()
    cases = [(name, spec, extra) for name, spec, extra in worst()]
    cases += [(name, SPEC, {"slices_flavors": [FLAVOR], **extra}) for name, extra in SETTINGS.items()]
    assert len(cases) >= 50
    assert {name.rpartition(": ")[2] for name, _, _ in cases} >= set(PAYLOADS)

    def deploy(number: int) -> list[str]:
        name, spec, extra = cases[number]
        # As a file: unlike a variable of the command line, nobody has to trust it.
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "worst.yml").write_text(json.dumps(spec), encoding="utf-8")
        return problems(name, run_playbook("deploy_slice", **{"slice": "worst", "slices_dir": str(folder), **extra}))

    with ThreadPoolExecutor(3) as pool:
        found = [problem for each in pool.map(deploy, range(len(cases))) for problem in each]
    record_property("cases", len(cases))
    assert not found, "\n\n".join(found)
    assert state() == before
    assert not Path(CANARY).exists()
    for host in ("worker1", "worker2", "worker3", "network1"):
        listed = run_module(host, "ansible.builtin.command", {"argv": ["find", "/tmp", "/var/lib/cloudrepo", "/run"]})
        names = listed["stdout"].splitlines()
        assert not [path for path in names if "canary" in path or "/worst" in path], host


def test_what_only_looks_hostile_is_deployed(run_playbook: Any, state: Callable[[], str]) -> None:
    before = state()
    for name, spec in GOOD.items():
        wanted = {"name": name, **spec}
        run = run_playbook("deploy_slice", slice_spec=wanted, slices_flavors=[FLAVOR])
        deleted = run_playbook("delete_slice", slice=name)
        assert run.rc == 0, run.output
        assert deleted.rc == 0, deleted.output
    assert state() == before
