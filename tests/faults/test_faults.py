# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From any state deploy converges and delete cleans, and no other slice notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .world import Case, World, run_case


def test_fault(world: World, case: Case, note: Callable[[dict[str, Any]], None]) -> None:
    result = run_case(world, case)
    note(result.row())
    assert not result.problems, "\n".join(result.problems)
    if not result.struck:
        pytest.skip("the play was over before the fault could strike")
