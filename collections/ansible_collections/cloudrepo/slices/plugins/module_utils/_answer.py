# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module does and answers, whoever calls it: Ansible's own way or ours (``_called``)."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError

Result = Dict[str, Any]
# From a module's options and whether it is in check mode to its result, which has ``msg`` if a part of it failed.
Ensure = Callable[[Mapping[str, Any], bool], Result]

ERRORS = (CommandError, ItemError, OSError, ValueError)


def check_slice(name: str) -> None:
    """Refuse a slice's name that is none, before it becomes part of a path.

    Raises:
        ValueError: it is not.
    """
    if not is_name(name):
        raise ValueError('slice "%s": the name must be %s' % (name, NAME_RULE))


def answered(ensure: Ensure, params: Mapping[str, Any], check_mode: bool, with_diff: bool) -> Result:
    """Do it, and say what came of it: what is ``pending`` is a warning, too, and what has a ``msg`` has failed."""
    try:
        result = ensure(params, check_mode)
    except ERRORS as error:
        result = {"msg": str(error)}
    if not with_diff:
        result.pop("diff", None)  # Of many resources it is long, and nobody looks at it.
    if result.get("pending"):
        result["warnings"] = list(result["pending"])
    if "msg" in result:
        result["failed"] = True
    return result
