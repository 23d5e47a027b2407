# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection says of itself is what it has."""

from __future__ import annotations

from pathlib import Path

import yaml

COLLECTION = Path(__file__).parents[2]


def test_the_action_group_has_every_module_and_action() -> None:
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    plugins = COLLECTION / "plugins"
    there = {path.stem for kind in ("modules", "action") for path in (plugins / kind).glob("*.py")}
    assert runtime["action_groups"]["slices"] == sorted(there - {"__init__"})
