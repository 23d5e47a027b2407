# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of the playbooks in ``loops``: the floor's ring, as those who write such playbooks have it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _qemu

from .floor import BASE_DIR, RUN_DIR, USER, machines, planned_floor, renamed
from .rings import BLANK, Record

# What nobody would write who has QEMU put itself into the background.
_OTHERWISE = ("-sandbox", "-pidfile")


def inventory(count: int, workers: Sequence[str], node: str, settings: Mapping[str, Any]) -> Record:
    """What the playbooks take for a ring of ``count`` VMs, as variables of the hosts whose they are, and of all.

    The arguments are those of ``floor.scripts``.
    """
    planned = planned_floor(count, workers, node)
    run_dir = f"{RUN_DIR}/loops{count}"
    for share in planned["hosts"].values():
        configs = machines(share, settings)
        share["vms"] = [{"name": name, "options": _options(name, configs[name], run_dir)} for name in configs]
    shares = json.loads(renamed(json.dumps(planned["hosts"])))
    return {
        "all": {
            "hosts": {host: {"share": share} for host, share in shares.items()},
            "vars": {"run_dir": run_dir, "image": f"{BASE_DIR}/{BLANK}", "qemu_binary": _qemu.BINARY},
        }
    }


def _options(name: str, config: Mapping[str, Any], run_dir: str) -> list[str]:
    folder = f"{run_dir}/{name}"
    places = _qemu.Paths(
        disk=f"{folder}/disk.qcow2",
        manifest="",
        folder=folder,
        pidfile="",
        qmp=f"{folder}/qmp.sock",
        console=f"{folder}/console.sock",
        console_log=f"{folder}/console.log",
        qemu_log="",
    )
    argv = _qemu.argv("loops", name, config, places, config["accelerator"])
    # Nobody would let them begin.
    words = [word for word in argv[1:] if word != "-S"]
    for option in _OTHERWISE:
        place = words.index(option)
        del words[place : place + 2]
    return [*words, "-runas", USER]
