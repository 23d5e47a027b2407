# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what is wanted with what is there. Pure: it reads and changes nothing."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional

State = Mapping[str, Any]

CREATE = "create"
MODIFY = "modify"
DELETE = "delete"


class Action(NamedTuple):
    """One change to one resource; ``before`` is None for a creation, ``after`` for a deletion."""

    kind: str
    name: str
    before: Optional[State]
    after: Optional[State]

    def changed_keys(self) -> List[str]:
        """The fields in which ``before`` and ``after`` differ, sorted."""
        before, after = self.before or {}, self.after or {}
        return sorted(key for key in set(before) | set(after) if before.get(key) != after.get(key))


def reconcile(want: Mapping[str, State], have: Mapping[str, State], purge: bool) -> List[Action]:
    """The actions that turn ``have`` into ``want``, deletions first, each in the order of its mapping.

    Args:
        want: the wanted resources by name, each with every field that is managed.
        have: the resources that exist and carry our stamp, by name, with the same fields.
        purge: whether what exists and is not wanted is deleted.
    """
    actions = [Action(DELETE, name, state, None) for name, state in have.items() if purge and name not in want]
    for name, state in want.items():
        if name not in have:
            actions.append(Action(CREATE, name, None, state))
        elif dict(have[name]) != dict(state):
            actions.append(Action(MODIFY, name, have[name], state))
    return actions


def diff(actions: List[Action]) -> Dict[str, Dict[str, Any]]:
    """The actions as a module's ``diff`` result: changed resources only, by name."""
    return {
        "before": {action.name: dict(action.before) for action in actions if action.before is not None},
        "after": {action.name: dict(action.after) for action in actions if action.after is not None},
    }
