# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes from this host: a port of their own on the bridge, frames in and out of it, and the port removed again."""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import time
from contextlib import contextmanager
from typing import Iterator, List, Optional, Sequence, Set, Tuple

from ansible_collections.cloudrepo.slices.plugins.module_utils import _iproute, _ovs, _sysctl
from ansible_collections.cloudrepo.slices.plugins.module_utils._orphans import PROBE_KEY
from ansible_collections.cloudrepo.slices.plugins.module_utils._probe import Answer, Question, frame, parse
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import run
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import DEAF

# A guest may be busy, and a first frame may be lost while switches learn.
_ROUNDS = 3
_ROUND_SECONDS = 0.8
_BURST = 64
_BURST_SECONDS = 0.002

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET = 263
_AUXDATA = 8
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_AUX = struct.Struct("IIIHHHH")
_HAS_TAG = 1 << 4
_RECEIVE_BUFFER = 4 * 2**20


def ask(bridge: str, asked: Sequence[Question]) -> List[Answer]:
    """Send probes and return who answered."""
    # Locally administered, and another one each time: two hosts that probe at once are no moving MAC address.
    mac = b"\x02\xc1\x0d" + secrets.token_bytes(3)
    vlans = sorted({vlan for vlan, _address in asked})
    with _port(bridge, vlans) as name, _socket(name) as link:
        return _converse(link, asked, mac)


def _socket(name: str) -> socket.socket:
    """A socket for whole frames, which says beside each what tag the kernel took out of it."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    link.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    link.bind((name, 0))
    link.setblocking(False)
    return link


@contextmanager
def _port(bridge: str, vlans: Sequence[int]) -> Iterator[str]:
    """A port that carries these VLANs tagged, to which the host itself is deaf; it is gone afterwards in any case."""
    name = "probe_%s" % secrets.token_hex(3)
    try:
        run(_ovs.transaction(_ovs.add_trunk(bridge, name, vlans, {PROBE_KEY: "%d" % time.time()})))
        _sysctl.write(name, DEAF)
        run(_iproute.batch(None), stdin=_iproute.set_up(name) + "\n")
        yield name
    finally:
        run(_ovs.transaction([_ovs.del_port(name)]))


def _converse(link: socket.socket, asked: Sequence[Question], mac: bytes) -> List[Answer]:
    answers: Set[Answer] = set()
    waiting = list(asked)
    for _round in range(_ROUNDS):
        for start in range(0, len(waiting), _BURST):
            for vlan, address in waiting[start : start + _BURST]:
                _send(link, frame(vlan, address, mac))
            _receive(link, mac, answers, _BURST_SECONDS)
        _receive(link, mac, answers, _ROUND_SECONDS)
        heard = {(answer.vlan, answer.address) for answer in answers}
        waiting = [question for question in waiting if question not in heard]
    return sorted(answers)


def _send(link: socket.socket, data: bytes) -> None:
    while True:
        try:
            link.send(data)
            return
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                raise
            time.sleep(_BURST_SECONDS)


def _receive(link: socket.socket, mac: bytes, answers: Set[Answer], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not select.select([link], [], [], remaining)[0]:
            return
        data, extra, _flags, _sender = link.recvmsg(2048, socket.CMSG_SPACE(_AUX.size))
        answer = parse(data, _tag(extra), mac)
        if answer:
            answers.add(answer)


def _tag(extra: Sequence[Tuple[int, int, bytes]]) -> Optional[int]:
    """The VLAN tag that the kernel took out of a frame, and says beside it."""
    for level, kind, content in extra:
        if (level, kind) == (_SOL_PACKET, _AUXDATA) and len(content) >= _AUX.size:
            fields = _AUX.unpack_from(content)
            return int(fields[5]) if fields[0] & _HAS_TAG else None
    return None
