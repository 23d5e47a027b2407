# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is deployed: rings of VMs that boot nothing, so that no guest is in the figures. Pure."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

BLANK = "bench-blank.qcow2"  # By this name in the workers' caches, until the end.
BLANK_MB = 64
OWNER = "bench"
# VLANs beyond those of the ring's own links, for what is added to it.
_SPARE_VLANS = 8


def flavor(name: str, image: str, disk_gb: float = BLANK_MB / 1024) -> Record:
    """A flavor with one core and 64 MiB of memory; ``disk_gb`` in GiB."""
    return {"name": name, "cores": 1, "memory_gb": 0.0625, "disk_gb": disk_gb, "image": image}


FLAVORS = [flavor("blank", BLANK)]


def ring(name: str, count: int, longer: bool = False) -> Record:
    """The spec of a ring of ``count`` VMs, each with two data interfaces, and as many links.

    The first VM has a third interface. If the ring is ``longer``, one more VM is linked to it there.
    """
    vms = [_vm(number, interfaces=3 if number == 1 else 2) for number in range(1, count + 1)]
    links = [_link(f"l{n}", f"vm{n}:eth2", f"vm{n % count + 1}:eth1") for n in range(1, count + 1)]
    if longer:
        vms.append(_vm(count + 1, interfaces=2))
        links.append(_link(f"l{count + 1}", "vm1:eth3", f"vm{count + 1}:eth1"))
    return {"name": name, "owner": OWNER, "vlan_pool_size": count + _SPARE_VLANS, "vms": vms, "links": links}


def _vm(number: int, interfaces: int) -> Record:
    return {"name": f"vm{number}", "flavor": "blank", "interfaces": interfaces}


def _link(name: str, *ends: str) -> Record:
    return {"name": name, "endpoints": list(ends)}
