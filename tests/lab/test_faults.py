# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sample of tests/faults, whose whole takes hours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from ..faults import faults, lab
from ..faults.lab import NODE
from ..faults.slices import BYSTANDER
from ..faults.world import DELETE, DEPLOY, REDEPLOY, Case, Fault, World, run_case

REALIZE = "Create disks and ports, serve DHCP and NAT, start the VMs"
SAMPLE = [
    Case(
        "SIGINT before the hosts",
        DEPLOY,
        Fault("", partial(faults.signal_at, kind="SIGINT", task=REALIZE), None, True),
        DEPLOY,
    ),
    Case(
        "slice_host killed between two VMs",
        REDEPLOY,
        Fault("", partial(faults.module_killed, host="worker3", module="slice_host", call=1, action=12)),
        DEPLOY,
    ),
    Case(
        "namespace deleted", REDEPLOY, Fault("", partial(faults.done_by_hand, action=faults.delete_namespace)), DEPLOY
    ),
    Case(
        "SIGKILL inside slice_host",
        DELETE,
        Fault(
            "",
            partial(faults.signal_inside, kind="SIGKILL", host=NODE, module="slice_host", call=1, action=4),
            None,
            True,
        ),
        DELETE,
    ),
    Case("ovs-vsctl fails", DEPLOY, Fault("", partial(faults.ovsdb_gone, host="worker1"), True), DELETE),
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.delete()
    lab.playbook("delete_slice", slice=BYSTANDER)


@pytest.mark.parametrize("case", SAMPLE, ids=[case.id for case in SAMPLE])
def test_fault(world: World, case: Case) -> None:
    result = run_case(world, case)
    assert not result.problems, "\n".join(result.problems)
    assert result.struck
