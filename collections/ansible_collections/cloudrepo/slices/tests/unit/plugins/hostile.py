# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile worlds: a good spec, flavors and settings in which any fields of the schema were made hostile or odd."""

from __future__ import annotations

import copy
import datetime
import random
from collections.abc import Iterator, Mapping
from typing import Any

# Each one is written alone, and into the middle or to the end of what was there.
TEXTS: dict[str, list[str]] = {
    "shell": [
        ";reboot", "$(reboot)", "`reboot`", "|reboot", "&& reboot", "> /etc/passwd", "'; reboot #", '"$HOME"', "*", "~",
        "~root", "!!", "$IFS", "-rf", "--help", "-e", "{a,b}", "\\", " ", "",
    ],
    "template": ["{{ lookup('pipe', 'reboot') }}", "{% raw %}", "{# #}", "%(name)s", "%s%n", "!unsafe x"],
    "qemu": [
        ",", ",,", "=", ",readonly=on", ",id=x,script=/tmp/x", "a=b", ",,,file=/etc/shadow",
        "file.filename=/etc/shadow",
        "json:{}", "nbd://x", "fd:3",
    ],
    "ovs": ['"', "'", "\\\"", "[]", "{}", "[\"a\"]", "{a=b}", ":", " -- del-br br-int", "@x", "\"],\"x\":[", "--"],
    "dnsmasq": [
        "\n", "\r", "\r\n", "\0", "#", "\ndhcp-script=/tmp/x", "\nserver=6.6.6.6", "a\nb", "\t", "/", "\x0b", "\x85",
        "\u2028", "\u2029",
    ],
    "nft": ['" drop', "; flush ruleset", "{ }", "0.0.0.0/0", "@guests", "1.1.1.1 . 2.2.2.2"],
    "path": ["../", "../../etc/passwd", "/etc/passwd", "/", ".", "..", "./a", "a/b", "..\\a", "%2e%2e%2f", "/dev/null"],
    "terminal": ["\x1b[31m", "\x1b]0;x\x07", "\x9b31m", "\x08\x08", "\x7f", "\x00"],
    "unicode": [
        "\u202eabc", "\u200b", "\u2066", "\ufeff", "\u0661", "\uff11", "\uff0c", "\uff1d", "\u0430", "a\u0301",
        "\u0131",
        "\u0130", "\ufb01", "\u212a", "\ud800", "\U0001f600", "\U000e0041", "\u3164", "e\u0300" * 40, "\u00df",
    ],
    "long": ["a" * 33, "a" * 64, "a" * 256, "x" * 5000, "1" * 5000, "a," * 3000, "\n" * 300],
    "yaml": ["!!python/object/apply:os.system [reboot]", "&a", "*a", "<<", "? x", "null", "~", "yes", "0x10", "1e3"],
}  # fmt: skip
STRANGE: list[Any] = [
    0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 16**5000, 0.0, -0.5, 1.5, 1e308, 1e-308, float("nan"),
    float("inf"), float("-inf"), True, False, [], {}, [[]], [None], [{}], {"a": 1}, {1: 2},
    {None: None}, [1, "a", {}], b"bytes",
    datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), (1, 2), {"name": "a"}, ["a", "b"], [["a", "b"]], set(),
    {"name": "\n", "flavor": "\x1b[0m"}, "NaN", "inf", "-1", "+1", " 1", "1 ", "1_0", "1.5", "1,5", "9" * 20,
]  # fmt: skip
# Odd, and good somewhere, by the type of the field: with these alone many a world stays valid.
ODD: dict[str, list[Any]] = {
    "int": ["1", "3", "07", 2, 5, 23, 30, None],
    "float": [1, "0.5", "1e1", 2.0, 1.25, "3", None],
    "bool": ["yes", "off", "True", "n", 0, 1, True, False, None, "0"],
    "str": [
        None, "a", "b", "d", "a" * 32, "7", "x--y", "0a", "eth1", "eth2", "worker1", "worker3", "10.9.0.0/24",
        "10.8.0.0/16", "cirros", "own", "a:eth2", "c:eth1", "alice@example.org", "al.ice+x_y-z@b",
        "ring", "star", "mesh", "bus",
        "x.img",
    ],
    "path": ["/srv/v m", "/srv/a,b=c", "/srv/\u00e4", "/x/../y", "//srv///vms/", "/srv/'\"$(x)", "/srv/[a]{b}"],
    "list": [None],
    "dict": [None],
}  # fmt: skip

_GOOD_SETTINGS: dict[str, Any] = {
    "slices_internet_subnet": "10.60.7.0/24",
    "slices_internet_vlan": 400,
    "slices_reserved_vlans": [130, 131],
    "slices_quota": 40,
    "slices_quotas": {"alice": 50},
    "slices_overcommit": {"cores": 4.0, "memory": 2, "disk": 1.5},
    "slices_protected_networks": ["10.0.0.0/8", "192.0.2.0/24"],
    "slices_uplink_interface": "eth0",
    "slices_bridge": "br-int",
    "slices_base_dir": "/var/lib/cloudrepo/vm_images",
    "slices_flavors": [
        {"name": "own", "cores": 2, "memory_gb": 1.5, "disk_gb": 3, "image": "x.img"},
        {"name": "big-1.x", "cores": 4, "memory_gb": 2, "disk_gb": 8, "image": "focal-server-cloudimg-amd64.img"},
    ],
}
_GOOD_SPECS: list[dict[str, Any]] = [
    {
        "name": "web",
        "owner": "alice",
        "vlan_pool_size": 12,
        "vms": [
            {"name": "a", "flavor": "cirros", "interfaces": 3, "internet": True, "worker": "worker1"},
            {"name": "b", "flavor": "own", "interfaces": 2, "default_route": "eth1", "internet": False},
            {"name": "c", "flavor": "ubuntu", "internet": True, "default_route": "eth0"},
            {"name": "d", "flavor": "big-1.x"},
        ],
        "links": [
            {"endpoints": ["a:eth1", "b:eth1"], "name": "left", "subnet": "10.1.0.0/24", "dhcp": True, "gateway": True},
            {"endpoints": ["a", "b", "c", "d"], "name": "lan", "gateway": False},
            {"endpoints": ["c", "d"], "dhcp": False},
        ],
    },
    {"name": "shape", "topology": {"type": "ring", "vms": 5, "flavor": "cirros"}, "owner": "bob@example.org"},
    {
        "name": "mixed",
        "vms": [{"name": "a", "flavor": "own", "internet": "yes"}, {"name": "b", "flavor": "cirros"}],
        "links": [{"endpoints": ["a", "b"], "subnet": "172.20.0.0/28"}, {"endpoints": ["a", "vm1"]}],
        "topology": {"type": "bus", "vms": 3, "flavor": "ubuntu"},
    },
]

World = dict[str, Any]
Path = tuple[Any, ...]


def good_world(number: int) -> World:
    """A world in which everything is as it should be."""
    spec = _GOOD_SPECS[number % len(_GOOD_SPECS)]
    return copy.deepcopy({"slice_spec": spec, **_GOOD_SETTINGS})


def worlds(schema: Mapping[str, Any], count: int, seed: int) -> Iterator[World]:
    """``count`` worlds, the same ones for the same seed.

    Args:
        schema: the options of the role, whose every field is made hostile: those that are new as well.
        count: how many.
        seed: of the choices.
    """
    chance = random.Random(seed)
    for number in range(count):
        world = good_world(number)
        hostile = chance.random() < 0.5
        for _turn in range(chance.choice((1, 1, 2, 3))):
            found = list(_paths(schema, world))
            # The spec is what most users write; and what is hostile as a whole hides what is hostile deep in it.
            fields = [field for field in found if field[0][0] == "slice_spec" or chance.random() < 0.2]
            deep = [field for field in fields if field[1] not in ("list", "dict") or chance.random() < 0.1]
            path, kind = chance.choice(deep or fields)
            _change(world, path, kind, chance, hostile)
        yield world


def _paths(options: Mapping[str, Any], value: Any, at: Path = ()) -> Iterator[tuple[Path, str]]:
    """Where each field of the schema is or could be in a world, elements of lists among them, and of which type."""
    if not isinstance(value, dict):
        return
    for key, option in options.items():
        here = (*at, key)
        yield here, option.get("type", "str")
        inside = value.get(key)
        if isinstance(inside, list):
            for index, element in enumerate(inside):
                yield (*here, index), option.get("elements", "str")
                yield from _paths(option.get("options", {}), element, (*here, index))
        elif isinstance(inside, dict):
            yield from _paths(option.get("options", {name: {"type": "int"} for name in inside}), inside, here)


def _change(world: World, path: Path, kind: str, chance: random.Random, hostile: bool) -> None:
    parent: Any = world
    for step in path[:-1]:
        parent = parent[step]
    key = path[-1]
    before = parent[key] if isinstance(parent, list) else parent.get(key)
    after = copy.deepcopy(_hostile(before, chance) if hostile else chance.choice(ODD[kind]))
    if hostile and isinstance(parent, dict) and chance.random() < 0.05:
        parent[_hostile(key, chance, texts_only=True)] = parent.pop(key, 1)
    elif isinstance(before, str) and isinstance(after, str) and chance.random() < 0.5:
        _replace(world, before, after)
    else:
        parent[key] = after


def _hostile(before: Any, chance: random.Random, texts_only: bool = False) -> Any:
    if not texts_only and chance.random() < 0.25:
        return chance.choice(STRANGE)
    text = chance.choice(TEXTS[chance.choice(list(TEXTS))])
    if isinstance(before, (list, dict)):
        return chance.choice([text, [text], {text: text}])
    old = before if isinstance(before, str) else ""
    place = chance.randrange(len(old) + 1)
    return chance.choice([text, old + text, text + old, old[:place] + text + old[place:]])


def _replace(value: Any, before: str, after: str) -> None:
    """Call something otherwise wherever it is named, so that it is refused for its name only."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        inside = value[key]
        if isinstance(inside, (dict, list)):
            _replace(inside, before, after)
        elif isinstance(inside, str) and inside.partition(":")[0] == before:
            value[key] = after + inside[len(before) :]
