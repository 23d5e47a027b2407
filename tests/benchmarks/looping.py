# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of the playbooks in ``loops``: the floor's ring, as those who write such playbooks have it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .floor import BASE_DIR, RUN_DIR, machines, planned_floor, renamed
from .rings import BLANK, Record


def inventory(count: int, workers: Sequence[str], node: str, settings: Mapping[str, Any]) -> Record:
    """What the playbooks take for a ring of ``count`` VMs, as variables of the hosts whose they are, and of all.

    The arguments are those of ``floor.scripts``.
    """
    planned = planned_floor(count, workers, node)
    for share in planned["hosts"].values():
        vlans = {port["name"]: port.get("vlan") for port in share["ports"]}
        share["vms"] = [_vm(name, config, vlans) for name, config in machines(share, settings).items()]
    shares = json.loads(renamed(json.dumps(planned["hosts"])))
    places = {"image": f"{BASE_DIR}/{BLANK}", "disks": f"{BASE_DIR}/loops{count}", "run_dir": f"{RUN_DIR}/loops{count}"}
    return {
        "all": {"hosts": {host: {"share": share} for host, share in shares.items()}, "vars": {**places, **settings}}
    }


def _vm(name: str, config: Mapping[str, Any], vlans: Mapping[str, int | None]) -> Record:
    interfaces = [{"mac": nic["mac"], "tap": nic["tap"], "vlan": vlans[nic["tap"]]} for nic in config["interfaces"]]
    machine = {key: config[key] for key in ("cores", "memory_mb", "vnc_port")}
    return {"name": f"loops-{name}", "interfaces": interfaces, **machine}
