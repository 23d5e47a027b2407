# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of measurements: goals, table and picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from .figures import Goal, goals
from .floor import renamed, scripts
from .report import goal_table, markdown, svg, with_figures

SETTINGS = {"accelerator": "tcg", "nic_offload": False}
MACHINE = {"cores": 2, "memory_gb": 24, "accelerator": "tcg", "versions": {"QEMU": "7.2"}}


def results(**own: list[float]) -> dict[str, Any]:
    """The floor takes 10 s for everything, loops 200 s; ours what is given."""
    floor = {what: {30: [10.0], 100: [10.0, 9.0, 30.0]} for what in ("deploy", "delete")}
    ours = {what: {30: seconds, 100: seconds} for what, seconds in own.items()}
    times = {"floor": floor, "ours": ours, "loops": {"deploy": {30: [200.0]}}}
    return {"times": times, "quick": False, "date": "2026-11-21", "commit": "abc", "load": 0.1, "machine": MACHINE}


def met(found: list[Goal]) -> dict[str, bool]:
    return {goal.text: goal.met for goal in found}


@pytest.mark.parametrize(("seconds", "expected"), [([13.4, 99.0, 1.0], True), ([13.6, 13.6, 1.0], False)])
def test_deploy_is_judged_by_medians(seconds: list[float], expected: bool) -> None:
    found = met(goals(results(deploy=seconds)))
    assert found["deploy of 30 VMs, over the floor"] is expected
    assert found["deploy of 100 VMs, over the floor"] is expected


def test_the_ratios_go_the_right_way() -> None:
    assert met(goals(results(deploy=[16.5]))) == {
        "deploy of 30 VMs, over the floor": False,
        "deploy of 100 VMs, over the floor": False,
        "deploy of 100 VMs, to the floor": False,
        "deploy of 30 VMs, loops to ours": True,
    }
    assert met(goals(results(deploy=[20.5])))["deploy of 30 VMs, loops to ours"] is False


def test_an_image_that_is_known_does_not_count_as_sent() -> None:
    # The second run was slow as a whole.
    images = {
        "scp": [4.0, 4.0],
        "scp_like_ansible": [2.5, 2.5],
        "first": [9.0, 29.0],
        "known": [4.0, 24.0],
        "small": [3.9, 23.9],
    }
    assert [round(goal.value, 3) for goal in goals({**results(), "images": images})] == [1.25, 2.0, 0.1]


def test_times_are_judged_at_this_machines_speed_besides() -> None:
    slow = results(deploy=[14.0])
    assert "| 4.00 s | ≤ 3.5 s | **not met** |  |  |  |" in goal_table(slow)
    slow["times"]["ours"]["empty"] = {0: [0.8]}
    lines = goal_table(slow).splitlines()
    assert any(line.endswith("| 4.00 s | ≤ 3.5 s | **not met** | 5.00 plays | ≤ 8.75 plays | met |") for line in lines)
    # What is a ratio already stays one.
    assert any(line.endswith("| ≥ 10 x | met |  |  |  |") for line in lines)


def test_table_has_a_row_for_each_number_of_vms() -> None:
    rows = markdown(results(deploy=[12.0, 14.0])).splitlines()
    assert "| deploy | 30 | 10.0 (10.0-10.0) | 13.0 (12.0-14.0) | 200.0 (200.0-200.0) | 1.3 | 15.4 |" in rows


def test_picture_has_every_point_inside_and_no_name_on_another() -> None:
    picture = ElementTree.fromstring(svg(results(deploy=[12.0], delete=[12.0])))
    dots = picture.findall("{*}circle")
    assert len(dots) == 8
    assert all(0 < float(dot.attrib["cy"]) < float(picture.attrib["height"]) for dot in dots)
    names = [float(text.attrib["y"]) for text in picture.findall("{*}text") if ", " in str(text.text)]
    assert len(names) == 4
    assert min(abs(a - b) for a in names for b in names if a is not b) >= 16


def test_readme_is_changed_between_its_marks_only() -> None:
    readme = "a\n<!-- bin/bench writes from here -->\nold\n<!-- to here -->\nz\n"
    changed = with_figures(readme, results(deploy=[12.0]))
    assert changed.startswith("a\n<!--") and changed.endswith("-->\nz\n") and "old" not in changed
    with pytest.raises(ValueError, match="no <!--"):
        with_figures("a\n", results(deploy=[12.0]))


def test_floor_makes_all_of_the_ring_under_names_that_no_slice_has() -> None:
    made = scripts(7, ["w1", "w2", "w3"], "n1", SETTINGS)
    deploys = "".join(each.deploy for each in made.values())
    assert deploys.count("-pidfile ") == deploys.count("cp --sparse=always ") == 7
    # One empty overlay for each worker, of which those of its VMs are copies.
    assert deploys.count("qemu-img create ") == 3
    assert deploys.count("tuntap add ") == 7 * 3 + 1
    assert made["n1"].deploy.count("address replace ") == 7
    for scripted in made.values():
        for text in scripted:
            assert renamed(text) == text
