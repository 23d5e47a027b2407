# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _nft

from .nat_hosts import FIXTURES, recorded

RECORDED = (FIXTURES / "host.json").read_text(encoding="utf-8")

SMALL = _nft.Table(
    name="small",
    sets={"guests": "ipv4_addr . ether_addr", "blocked": "ipv4_addr . ipv4_addr interval"},
    chains={"forward": _nft.Chain("filter", "forward", 0, [_nft.Rule('iifname "a" drop', "nothing")])},
)
ELEMENTS = {"guests": {"10.0.0.1 . 52:54:00:03:e9:00": "web", "10.0.0.2 . 52:54:00:03:ea:00": ""}}


def test_recorded_elements_carry_their_slice() -> None:
    assert recorded("host.json").elements == {
        "guests": {"10.60.7.10 . 52:54:00:03:e9:00": "web", "10.60.7.20 . 52:54:00:04:e9:00": "other"},
        "servers": {"10.60.7.253": "other", "10.60.7.254": "web"},
        "blocked": {
            "10.60.7.10 . 10.0.10.0/24": "web",
            "10.60.7.10 . 198.51.100.0/24": "web",
            "10.60.7.20 . 10.0.10.0/24": "other",
        },
    }
    assert recorded("namespace.json").elements == {"guests": {"52:54:00:03:e9:00": ""}}


def without_last_rule(items: list[dict[str, Any]]) -> None:
    items.remove([item for item in items if "rule" in item][-1])


def with_foreign_rule(items: list[dict[str, Any]]) -> None:
    items.append({"rule": {"chain": "forward", "expr": [{"accept": None}]}})


def with_changed_rule(items: list[dict[str, Any]]) -> None:
    next(item for item in items if "rule" in item)["rule"]["comment"] = "answers to the host #00000000"


def with_other_hook(items: list[dict[str, Any]]) -> None:
    next(item for item in items if "chain" in item)["chain"]["prio"] = 10


def with_other_set(items: list[dict[str, Any]]) -> None:
    next(item for item in items if "set" in item)["set"]["type"] = "ipv4_addr"


@pytest.mark.parametrize(
    "tamper", [without_last_rule, with_foreign_rule, with_changed_rule, with_other_hook, with_other_set]
)
def test_what_somebody_changed_is_seen(tamper: Callable[[list[dict[str, Any]]], None]) -> None:
    content = json.loads(RECORDED)
    tamper(content["nftables"])

    assert _nft.parse(json.dumps(content)).shape != _nft.parse(RECORDED).shape


def test_rules_in_another_order_are_another_table() -> None:
    content = json.loads(RECORDED)
    rules = [item for item in content["nftables"] if "rule" in item]
    content["nftables"] = [item for item in content["nftables"] if "rule" not in item] + rules[::-1]

    assert _nft.parse(json.dumps(content)).shape != _nft.parse(RECORDED).shape


def test_a_rule_is_known_by_its_text() -> None:
    assert _nft.Rule('iifname "a" drop', "x").comment() != _nft.Rule('iifname "b" drop', "x").comment()


def test_a_table_is_replaced_in_one_transaction() -> None:
    comment = SMALL.chains["forward"].rules[0].comment()
    assert _nft.replace_table(SMALL, ELEMENTS) == (
        "table inet small {\n"
        "}\n"
        "delete table inet small\n"
        "table inet small {\n"
        "  set guests {\n"
        "    type ipv4_addr . ether_addr\n"
        '    elements = { 10.0.0.1 . 52:54:00:03:e9:00 comment "web", 10.0.0.2 . 52:54:00:03:ea:00 }\n'
        "  }\n"
        "  set blocked {\n"
        "    type ipv4_addr . ipv4_addr\n"
        "    flags interval\n"
        "  }\n"
        "  chain forward {\n"
        "    type filter hook forward priority 0; policy accept;\n"
        f'    iifname "a" drop comment "{comment}"\n'
        "  }\n"
        "}\n"
    )


def test_elements_are_changed_without_the_rest() -> None:
    after = {"guests": {"10.0.0.1 . 52:54:00:03:e9:00": "web"}, "blocked": {}}
    assert _nft.change_elements("small", {"guests": {"10.0.0.9 . 52:54:00:03:ff:00": "web"}}, after) == (
        'delete element inet small guests { 10.0.0.9 . 52:54:00:03:ff:00 comment "web" }\n'
        'add element inet small guests { 10.0.0.1 . 52:54:00:03:e9:00 comment "web" }\n'
    )
