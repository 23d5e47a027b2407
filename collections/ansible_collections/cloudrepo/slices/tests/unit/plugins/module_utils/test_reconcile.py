# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import (
    CREATE,
    DELETE,
    MODIFY,
    Action,
    diff,
    reconcile,
)

HAVE: dict[str, dict[str, Any]] = {"old": {"size": 1}, "same": {"size": 2}, "grows": {"size": 3, "owner": "qemu"}}
WANT: dict[str, dict[str, Any]] = {
    "new": {"size": 4},
    "grows": {"size": 5, "owner": "qemu"},
    "same": {"size": 2},
}
DELETED = Action(DELETE, "old", {"size": 1}, None)
CREATED = Action(CREATE, "new", None, {"size": 4})
GROWN = Action(MODIFY, "grows", HAVE["grows"], WANT["grows"])


def test_only_what_differs_is_acted_on_and_deletions_come_first() -> None:
    assert reconcile(WANT, HAVE, purge=True) == [DELETED, CREATED, GROWN]
    assert reconcile(WANT, WANT, purge=True) == []


def test_nothing_is_deleted_without_purge() -> None:
    assert reconcile(WANT, HAVE, purge=False) == [CREATED, GROWN]
    assert reconcile({}, HAVE, purge=False) == []


def test_carrying_the_actions_out_leaves_nothing_to_do() -> None:
    after = dict(HAVE)
    for action in reconcile(WANT, HAVE, purge=True):
        if action.after is None:
            del after[action.name]
        else:
            after[action.name] = dict(action.after)
    assert reconcile(WANT, after, purge=True) == []


def test_a_field_that_only_one_side_has_is_a_change() -> None:
    [lost] = reconcile({"vm": {"cores": 1}}, {"vm": {"cores": 1, "lost_taps": ["tap"]}}, purge=False)
    assert lost.changed_keys() == ["lost_taps"]
    assert GROWN.changed_keys() == ["size"]
    assert CREATED.changed_keys() == DELETED.changed_keys() == ["size"]


def test_the_diff_has_each_resource_on_the_side_where_it_exists() -> None:
    assert diff([DELETED, CREATED, GROWN]) == {
        "before": {"old": {"size": 1}, "grows": {"size": 3, "owner": "qemu"}},
        "after": {"new": {"size": 4}, "grows": {"size": 5, "owner": "qemu"}},
    }
    assert diff([]) == {"before": {}, "after": {}}
