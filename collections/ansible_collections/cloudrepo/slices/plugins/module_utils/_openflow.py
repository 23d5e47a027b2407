# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Port security: the OpenFlow flows of a port, what ovs-ofctl prints of them, and how they are changed. Pure.

Ours are the flows whose cookie has our mark; its lower half is the slice's ID. Everything else stays with the flow of
lowest priority, which switches as usual.
"""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

TIMEOUT = 60
MAX_SLICE_ID = (1 << 32) - 1
_MARK = 0xC10D5EC0
_OURS = "cookie=0x%x/0xffffffff00000000" % (_MARK << 32)

# From what nobody may send to what is left.
_NEVER, _ALLOWED, _NEIGHBOURS, _OUTSIDE, _REST = 50, 40, 30, 20, 10
_PASS, _DROP = "NORMAL", "drop"
# Counters, and what ovs-ofctl has no need to be told.
_STATISTICS = frozenset("duration table n_packets n_bytes idle_age hard_age".split())

# Priority, match and action.
Rule = Tuple[int, str, str]


class Peer(NamedTuple):
    """With whom a guest may talk."""

    address: str
    mac: str


class Security(NamedTuple):
    """Who a guest is and with whom it talks.

    Attributes:
        mac: its MAC address.
        address: its address, with the prefix length of the subnet.
        peers: those in the subnet with whom it may talk; None: with anybody, there and elsewhere.
        router_mac: the MAC address to which it may send what is not for the subnet.
        dhcp_mac: the MAC address of its DHCP server.
    """

    mac: str
    address: IPv4Interface
    peers: Optional[Sequence[Peer]]
    router_mac: Optional[str]
    dhcp_mac: Optional[str]


class Flow(NamedTuple):
    """A flow of ours: the slice's ID in its cookie, the number of its port, and all of it but the port."""

    slice_id: int
    port: int
    text: str


def flows(slice_id: int, security: Optional[Security]) -> List[str]:
    """What a guest's port accepts, as ``Flow.text``, sorted: without security, any frame that has no tag."""
    # An access port of Open vSwitch itself lets VLAN 0 pass, with what a second tag says.
    rules = [(_NEVER, "vlan_tci=0x1000/0x1000", _DROP)] + (_accepted(security) if security else [])
    return sorted(
        _text(_MARK << 32 | slice_id, ["priority=%d" % rank, *_words(match)], what) for rank, match, what in rules
    )


def _accepted(security: Security) -> List[Rule]:
    mac, own = security.mac, str(security.address.ip)
    arp = "arp,dl_src=%s,arp_sha=%s" % (mac, mac)
    dhcp = "udp,dl_src=%s,nw_dst=255.255.255.255,tp_src=68,tp_dst=67" % mac
    ip = "ip,dl_src=%s,nw_src=%s" % (mac, own)
    rules: List[Rule] = [(_REST, "", _DROP)]
    if security.peers is None:
        return [
            *rules,
            # Without an address yet: is it free, and which is mine?
            (_ALLOWED, "%s,arp_spa=0.0.0.0,arp_tpa=%s" % (arp, own), _PASS),
            (_ALLOWED, "%s,nw_src=0.0.0.0" % dhcp, _PASS),
            (_ALLOWED, "%s,arp_spa=%s" % (arp, own), _PASS),
            (_ALLOWED, ip, _PASS),
            # Nobody but the slice's own server answers DHCP, not with ports that Open vSwitch can't see either.
            (_NEVER, "udp,tp_src=67", _DROP),
            (_NEVER, "udp,nw_frag=yes", _DROP),
        ]
    # Whatever passes goes to one MAC: what is sent to all would reach every guest of every slice.
    for peer in security.peers:
        rules.append((_ALLOWED, "%s,arp_spa=%s,arp_tpa=%s" % (arp, own, peer.address), _pass_to(peer.mac)))
        rules.append((_ALLOWED, "%s,nw_dst=%s" % (ip, peer.address), _pass_to(peer.mac)))
    if security.dhcp_mac:
        # The second is for a lease that nobody renewed, which is asked for by broadcast.
        rules += [
            (_ALLOWED, "%s,nw_src=%s" % (dhcp, source), _pass_to(security.dhcp_mac)) for source in ("0.0.0.0", own)
        ]
    if security.router_mac:
        rules.append((_NEIGHBOURS, "ip,nw_dst=%s" % security.address.network, _DROP))
        # By its MAC: a guest that routes would take it for another network behind it.
        rules.append((_OUTSIDE, "%s,dl_dst=%s" % (ip, security.router_mac), _PASS))
    return rules


def _pass_to(mac: str) -> str:
    return "mod_dl_dst:%s,%s" % (mac, _PASS)


def dump(bridge: str) -> List[str]:
    """The argument list that prints what ``parse_dump`` reads."""
    return ["ovs-ofctl", "--timeout=%d" % TIMEOUT, "dump-flows", bridge, _OURS]


def parse_dump(output: str) -> List[Flow]:
    """The flows of ours that ``dump`` printed."""
    found = []
    for line in output.splitlines():
        match, separator, actions = line.strip().partition(" actions=")
        if separator:
            found.append(_parse(match, actions))
    return found


def change(bridge: str) -> List[str]:
    """The argument list that does all the lines of its standard input or none."""
    return ["ovs-ofctl", "--timeout=%d" % TIMEOUT, "--bundle", "add-flows", bridge, "-"]


def delete(port: int) -> str:
    """The line that deletes whatever there is of ours on the port with this number."""
    return "delete %s,in_port=%d" % (_OURS, port)


def delete_slice(bridge: str, slice_id: int) -> List[str]:
    """The argument list that deletes every flow of a slice."""
    return ["ovs-ofctl", "--timeout=%d" % TIMEOUT, "del-flows", bridge, "cookie=0x%x/-1" % (_MARK << 32 | slice_id)]


def add(name: str, text: str) -> str:
    """The line that adds a flow to the port with this name: a port that is new has a number, but which?"""
    return 'add in_port="%s",%s' % (name, text)


def _parse(match: str, actions: str) -> Flow:
    words = _words(match)
    fields: Dict[str, str] = dict(word.split("=", 1) for word in words if "=" in word)
    cookie = int(fields["cookie"], 16)
    left = [word for word in words if word.partition("=")[0] not in _STATISTICS | {"cookie", "in_port"}]
    return Flow(cookie & MAX_SLICE_ID, int(fields.get("in_port", 0)), _text(cookie, left, actions))


def _words(match: str) -> List[str]:
    return [word.strip() for word in match.split(",") if word.strip()]


def _text(cookie: int, words: List[str], actions: str) -> str:
    """A flow with its words in an order of our own."""
    return "cookie=0x%x,%s actions=%s" % (cookie, ",".join(sorted(words, key=_rank)), actions)


def _rank(word: str) -> Tuple[bool, bool, str]:
    """Priority, protocol, then fields by name."""
    return not word.startswith("priority="), "=" in word, word
