# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes of links by ARP: whom to ask on which VLAN, the frames, and what the answers mean. Pure.

A probe has no sender address (RFC 5227), so that no guest remembers who asked.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

_BROADCAST = b"\xff" * 6
_NOBODY = b"\0" * 6
_VLAN, _ARP = 0x8100, 0x0806
_REQUEST, _REPLY = 1, 2
_ETHERNET = struct.Struct("!6s6sH")
_TAG = struct.Struct("!HH")
_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = 0x0800
_SHORTEST = 60
_VID = 0x0FFF

# VLAN and address.
Question = Tuple[int, str]


class Answer(NamedTuple):
    """An answer to a probe: on which VLAN, for which address, and from which MAC address."""

    vlan: int
    address: str
    mac: str


def questions(networks: Sequence[Mapping[str, Any]], addresses: Sequence[Mapping[str, Any]], only: Optional[str]) -> (
    List[Question]
):  # fmt: skip
    """Who is asked for: on each VLAN its own guests, and all those that should not be there."""
    asked = []
    for network in networks:
        asked += [(network["vlan"], guest["address"]) for guest in _guests(network, only)]
        asked += [(network["vlan"], address["address"]) for address in _strangers(network, addresses, only)]
    return list(dict.fromkeys(asked))


def _guests(network: Mapping[str, Any], only: Optional[str]) -> Sequence[Mapping[str, Any]]:
    return network["guests"] if only in (None, network["slice"]) else []


def _strangers(
    network: Mapping[str, Any], addresses: Sequence[Mapping[str, Any]], only: Optional[str]
) -> List[Mapping[str, Any]]:
    own = {guest["address"] for guest in network["guests"]}
    concerned = only in (None, network["slice"])
    return [item for item in addresses if item["address"] not in own and (concerned or item["slice"] == only)]


def frame(vlan: int, address: str, mac: bytes) -> bytes:
    """The probe for an address on a VLAN."""
    packet = _PACKET.pack(
        1, _IPV4, 6, 4, _REQUEST, mac, socket.inet_aton("0.0.0.0"), _NOBODY, socket.inet_aton(address)
    )
    header = _ETHERNET.pack(_BROADCAST, mac, _VLAN) + _TAG.pack(vlan, _ARP)
    return (header + packet).ljust(_SHORTEST, b"\0")


def parse(data: bytes, vlan: Optional[int], mac: bytes) -> Optional[Answer]:
    """The answer in a frame, if it is one for us.

    Args:
        data: the frame.
        vlan: its tag, if the kernel has taken that out.
        mac: ours.
    """
    if len(data) < _ETHERNET.size + _TAG.size + _PACKET.size - 4:
        return None
    target, _source, kind = _ETHERNET.unpack_from(data)
    start = _ETHERNET.size
    if kind == _VLAN:
        tag, kind = _TAG.unpack_from(data, start)
        vlan, start = tag & _VID, start + _TAG.size
    if target != mac or kind != _ARP or vlan is None or len(data) < start + _PACKET.size:
        return None
    fields = _PACKET.unpack_from(data, start)
    if fields[4] != _REPLY:
        return None
    return Answer(vlan & _VID, socket.inet_ntoa(fields[6]), ":".join("%02x" % byte for byte in fields[5]))


def judge(
    networks: Sequence[Mapping[str, Any]],
    addresses: Sequence[Mapping[str, Any]],
    only: Optional[str],
    answers: Iterable[Answer],
) -> List[Dict[str, Any]]:
    """What the answers mean: one result for each guest of a network, and one for everybody else there."""
    found: Dict[Question, Set[str]] = {}
    for answer in answers:
        found.setdefault((answer.vlan, answer.address), set()).add(answer.mac)
    owners = {item["mac"]: item["name"] for item in addresses}
    results: List[Dict[str, Any]] = []
    for network in networks:
        guests = _guests(network, only)
        results += [_declared(network, guest, found) for guest in guests]
        if not network["guests"] and network["silence"]:
            results.append(_result(network, "", network["silence"], skipped=network["silence"]))
        strangers = _strangers(network, addresses, only)
        if strangers:
            results.append(_undeclared(network, strangers, found, owners))
    return results


def _declared(network: Mapping[str, Any], guest: Mapping[str, Any], found: Mapping[Question, Set[str]]) -> (
    Dict[str, Any]
):  # fmt: skip
    macs = found.get((network["vlan"], guest["address"]), set())
    # A guest answers for its addresses on all its cards, so one of another card of the same link may be among them.
    surplus = macs - set(network["members"])
    who = "%s (%s)" % (guest["name"], guest["address"])
    if not macs:
        return _result(network, who, "does not answer", failed=True)
    if guest["mac"] not in macs or surplus:
        said = ", ".join(sorted(surplus or macs))
        return _result(network, who, "is answered for by %s, should be by %s" % (said, guest["mac"]), failed=True)
    return _result(network, who, "answers")


def _undeclared(
    network: Mapping[str, Any],
    strangers: Sequence[Mapping[str, Any]],
    found: Mapping[Question, Set[str]],
    owners: Mapping[str, str],
) -> Dict[str, Any]:
    # That a guest of this VLAN answers for an address that it has on another one is its own stack's way, and no leak.
    members = set(network["members"])
    leaks = []
    for stranger in strangers:
        for mac in sorted(found.get((network["vlan"], stranger["address"]), set()) - members):
            leaks.append("%s (%s) is reached, at %s" % (stranger["name"], stranger["address"], owners.get(mac, mac)))
    message = "; ".join(leaks) or "nobody else answers"
    return _result(network, "others", message, failed=bool(leaks))


def _result(
    network: Mapping[str, Any], who: str, message: str, failed: bool = False, skipped: str = ""
) -> Dict[str, Any]:
    name = "%s, VLAN %d%s" % (network["name"], network["vlan"], ": %s" % who if who else "")
    return {"slice": network["slice"], "name": name, "message": message, "failed": failed, "skipped": skipped}
