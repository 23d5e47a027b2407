# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read what our builders wrote as the tools would, knowing nothing of the builders: strict, and unforgiving."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Sequence

IFNAME = r"[a-z][a-z0-9_]{0,14}"
NAME = r"[a-z0-9][a-z0-9-]{0,31}"
IP = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
CIDR = IP + r"/[0-9]{1,2}"
MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
VLAN = r"[0-9]{1,4}"


def assert_printable(*texts: str) -> None:
    for text in texts:
        assert text.isprintable(), ascii(text)


def assert_inside(folder: str, *paths: str) -> None:
    """A path that is the same however it is read, and in the folder."""
    for path in paths:
        assert os.path.normpath(path) == path and path.startswith(folder.rstrip("/") + "/"), ascii(path)
        assert_printable(path)


def assert_lines(lines: Iterable[str], *patterns: str) -> None:
    """Each line is wholly what one of the patterns says."""
    known = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    for line in lines:
        assert known.fullmatch(line), ascii(line)


# --- QEMU ---------------------------------------------------------------------------------------------------------

# Every option that a VM may be started with, and the keys of its value; a word without a key is "".
QEMU_KEYS: dict[str, list[set[str]]] = {
    "-name": [{"guest"}],
    "-sandbox": [{"", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"}],
    "-machine": [{""}],
    "-accel": [{""}, {"", "tb-size"}],
    "-cpu": [{""}],
    "-smp": [{""}],
    "-m": [{""}],
    "-boot": [{"strict"}],
    "-pidfile": [],
    "-chardev": [
        {"", "id", "path", "server", "wait"},
        {"", "id", "path", "server", "wait", "logfile", "logappend"},
    ],
    "-mon": [{"chardev", "mode"}],
    "-serial": [{""}],
    "-vnc": [{""}, {"", "password"}],
    "-device": [
        {"", "addr"},
        {"", "drive", "addr", "bootindex"},
        {"", "rng", "addr"},
        {"", "netdev", "id", "mac", "romfile", "addr"},
    ],
    "-blockdev": [{"driver", "node-name", "discard", "file.driver", "file.filename", "file.discard"}],
    "-object": [{"", "id"}],
    "-netdev": [{"", "id", "ifname", "script", "downscript"}, {"", "id", "ifname", "script", "downscript", "vnet_hdr"}],
}
QEMU_FLAGS = {"-nodefaults", "-no-user-config", "-S", "-daemonize"}


def split_option(text: str) -> dict[str, str]:
    """The value of an option as QEMU splits it: at commas, of which two in a row are one that is meant."""
    words, word, at = [], "", 0
    while at < len(text):
        if text[at] != ",":
            word += text[at]
        elif text[at + 1 : at + 2] == ",":
            word += ","
            at += 1
        else:
            words.append(word)
            word = ""
        at += 1
    values: dict[str, str] = {}
    for each in [*words, word]:
        key, equals, value = each.partition("=")
        key, value = (key, value) if equals else ("", each)
        assert key not in values, f"{key} twice in {text!a}"
        values[key] = value
    return values


def read_qemu(argv: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The options of a QEMU: those that it may have, each with the keys that it has and no others."""
    assert_printable(*argv)
    assert re.fullmatch(r"qemu-system-[a-z0-9_]+", argv[0])
    options = []
    rest = iter(argv[1:])
    for option in rest:
        if option in QEMU_FLAGS:
            continue
        assert option in QEMU_KEYS, ascii(option)
        value = next(rest)
        if option == "-pidfile":
            options.append((option, {"": value}))
            continue
        values = split_option(value)
        assert set(values) in QEMU_KEYS[option], f"{option} {value!a}"
        options.append((option, values))
    return options


# --- iproute2, Open vSwitch, nftables -----------------------------------------------------------------------------

IP_LINES = (
    rf"tuntap add dev {IFNAME} mode tap user [a-z-]+",
    rf'link set dev {IFNAME} alias "cloudrepo(?: (?:slice|vm|interface|slice-id|owner)=[a-z0-9][a-z0-9-]*)*"(?: up)?',
    rf"link set dev {IFNAME} address 02(?::[0-9a-f]{{2}}){{5}}",
    rf"link set dev (?:{IFNAME}|lo) up",
    rf"link set dev {IFNAME} netns slice-[0-9]+",
    rf"address (?:replace|delete) {CIDR} dev {IFNAME}",
    rf"route replace default via {IP} dev {IFNAME}",
)
OVS_WORDS = (
    r"--|--if-exists|add-port|del-port|set|remove|Port|Interface|Bridge|external_ids|type=internal|br-int",
    IFNAME,
    rf"tag={VLAN}",
    rf'mac="{MAC}"',
    # A value in the database's notation, in which every other sign would end it or be escaped.
    r'external_ids:"cloudrepo-[a-z-]+"="[A-Za-z0-9_.@+:-]*"',
)
_MATCH = "|".join(
    [
        "arp|udp|ip|priority=[0-9]+",
        rf"(?:dl_src|dl_dst|arp_sha)={MAC}",
        rf"(?:nw_src|nw_dst|arp_spa|arp_tpa)={IP}(?:/[0-9]+)?",
        r"tp_(?:src|dst)=[0-9]+|vlan_tci=0x1000/0x1000|nw_frag=yes",
    ]
)
_ACTIONS = r"(?:(?:mod_dl_dst:02(?::[0-9a-f]{2}){5},)?NORMAL|drop)"
FLOW_LINES = (rf'add in_port="{IFNAME}",cookie=0x[0-9a-f]+(?:,(?:{_MATCH}))+ actions={_ACTIONS}',)
_NFT_VALUE = rf"(?:{IP}(?:/[0-9]+)?|{MAC})"
_NFT_ELEMENT = rf'{_NFT_VALUE}(?: \. {_NFT_VALUE})?(?: comment "{NAME}")?'
NFT_LINES = (
    r"(?:delete )?table inet cloudrepo_slices(?: \{)?",
    r" *\}",
    r"  (?:set|chain) [a-z_]+ \{",
    r"    type [a-z0-9_. ]+(?:; policy accept;)?",
    r"    flags interval",
    rf"    elements = \{{ {_NFT_ELEMENT}(?:, {_NFT_ELEMENT})* \}}",
    rf"    (?:[a-z0-9_ .@=!,/-]|\{{ tcp, udp \}}|{CIDR}|[io]ifname \"{IFNAME}\")+"
    r' comment "[A-Za-z ,\']+ #[0-9a-f]{8}"',
)

# --- dnsmasq ------------------------------------------------------------------------------------------------------

DNSMASQ_LINES = {
    "dnsmasq.conf": (
        r"#.*",
        r"user=dnsmasq|no-resolv|no-poll|no-hosts|no-ping|bind-dynamic|except-interface=lo|localise-queries",
        r"domain-needed|bogus-priv|dhcp-authoritative|dhcp-ignore-names|dhcp-lease-max=[0-9]+",
        r"(?:dhcp-leasefile|dhcp-hostsfile|dhcp-optsfile|addn-hosts)=/state/[a-z]+",
        rf"domain={NAME}\.internal|local=/{NAME}\.internal/|server={IP}|interface={IFNAME}",
        rf"dhcp-range=set:vlan{VLAN},{IP},static,{IP},[0-9]+",
        rf"dhcp-mac=set:route,{MAC}",
    ),
    "hosts": (r"#.*", rf"{MAC},{IP},{NAME}"),
    "options": (
        r"#.*",
        rf"option:domain-search,{NAME}\.internal|option:router",
        rf"tag:vlan{VLAN},option:dns-server,{IP}",
        rf"tag:vlan{VLAN},tag:route,option:router,{IP}",
    ),
    "names": (r"#.*", rf"{IP} {NAME}\.{NAME}\.internal {NAME}"),
}
