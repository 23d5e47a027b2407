# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of named items in a module's options: errors that name the item, and work on several at a time."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Type

from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name


class ItemError(Exception):
    """Something is wrong with one item; the message names it."""


def label(option: str, index: int, name: object) -> str:
    """How errors call an item: ``vms[17] "web-17"``. A name that is none may be anything, and is escaped."""
    text = str(name)[:60]
    return '%s[%d] "%s"' % (option, index, text if text.isprintable() else text.encode("unicode_escape").decode())


def labels(option: str, items: Sequence[Mapping[str, Any]]) -> Dict[str, str]:
    """The label of each item by name, in the list's order.

    Raises:
        ItemError: a name is not one, or stands there twice.
    """
    found: Dict[str, str] = {}
    for index, item in enumerate(items):
        name = item["name"]
        if not is_name(name):
            raise ItemError("%s: the name must be %s" % (label(option, index, name), NAME_RULE))
        if name in found:
            raise ItemError("%s: the name is used by %s already" % (label(option, index, name), found[name]))
        found[name] = label(option, index, name)
    return found


def run_each(
    job: Callable[[str], None],
    names: Iterable[str],
    errors: Tuple[Type[Exception], ...],
    at_once: Optional[int] = None,
) -> Dict[str, str]:
    """Run ``job`` for every name, several at a time, and return the messages of those that failed.

    Args:
        job: what is done for one name.
        names: for whom.
        errors: the exceptions that mean this one failed; any other is a defect and is raised.
        at_once: how many at a time; by default as many as there are cores, for jobs that keep one busy.
    """

    def attempt(name: str) -> Optional[str]:
        try:
            job(name)
        except errors as error:
            return str(error)
        return None

    todo: List[str] = list(names)
    if not todo:
        return {}
    from concurrent.futures import ThreadPoolExecutor  # 5 ms, which asking a host does without.

    with ThreadPoolExecutor(max_workers=at_once or len(os.sched_getaffinity(0))) as pool:
        messages = list(pool.map(attempt, todo))
    return {name: message for name, message in zip(todo, messages) if message is not None}
