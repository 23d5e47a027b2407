# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every process of a run needs of Ansible, loaded once.

Ansible forks a process for each task and host. What its main process has loaded by then they all have, and an action
plugin is loaded before. Filters and tests are loaded by the first template that has one; that is in a fork, and so in
each of them, 25 ms of CPU each time.
"""

from __future__ import annotations

from functools import cache

from ansible.template import Templar, trust_as_template

# Compiled, which loads them, and never evaluated.
_ANY_FILTER_AND_TEST = "true or x | default is defined"


@cache
def preload() -> None:
    """Load Ansible's filters and tests, if this process has not."""
    Templar().evaluate_expression(trust_as_template(_ANY_FILTER_AND_TEST))
