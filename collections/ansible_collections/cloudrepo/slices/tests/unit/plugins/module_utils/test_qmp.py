# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._qmp import Qmp, QmpError, connect

# What QEMU 7.2 said, by what it was told. The event came before the answer.
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, '
    b'"package": "Debian 1:7.2+dfsg-7+deb12u18+b3"}, "capabilities": ["oob"]}}\r\n'
)
ANSWERS = {
    "qmp_capabilities": b'{"return": {}}\r\n',
    "query-status": b'{"return": {"status": "running", "singlestep": false, "running": true}}\r\n',
    "set_link": b'{"error": {"class": "DeviceNotFound", "desc": "Device \'nope\' not found"}}\r\n',
    "system_powerdown": (
        b'{"timestamp": {"seconds": 1795221959, "microseconds": 173788}, "event": "POWERDOWN"}\r\n{"return": {}}\r\n'
    ),
}


class Peer:
    """Plays QEMU's part on one end of a socket pair, in pieces of seven bytes; then it closes."""

    def __init__(self, greeting: bytes = GREETING) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.heard: list[dict[str, object]] = []
        self._thread = threading.Thread(target=self._play, args=(greeting,))
        self._thread.start()

    def _play(self, greeting: bytes) -> None:
        with self._theirs, self._theirs.makefile("rb") as lines:
            self._say(greeting)
            for line in lines:
                request = json.loads(line)
                self.heard.append(request)
                if request["execute"] not in ANSWERS:
                    return
                self._say(ANSWERS[request["execute"]])

    def _say(self, text: bytes) -> None:
        for start in range(0, len(text), 7):
            self._theirs.sendall(text[start : start + 7])

    def end(self) -> None:
        self.ours.close()
        self._thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.end()


def test_a_conversation_with_events_in_between(peer: Peer) -> None:
    with Qmp(peer.ours, 5) as qmp:
        qmp.negotiate()
        assert qmp.status() == "running"
        assert qmp.execute("system_powerdown") == {}
        assert qmp.status() == "running"
        with pytest.raises(QmpError, match="QMP set_link: Device 'nope' not found"):
            qmp.execute("set_link", name="nope", up=False)
    assert peer.heard[-1] == {"execute": "set_link", "arguments": {"name": "nope", "up": False}}


def test_a_command_in_the_first_round_trip(peer: Peer) -> None:
    with Qmp(peer.ours, 5) as qmp:
        assert qmp.open_with("query-status")["status"] == "running"
        assert qmp.status() == "running"
    assert [request["execute"] for request in peer.heard] == ["qmp_capabilities", "query-status", "query-status"]


def test_a_connection_that_is_closed_instead_of_an_answer(peer: Peer) -> None:
    with Qmp(peer.ours, 5) as qmp:
        qmp.negotiate()
        with pytest.raises(QmpError, match="closed"):
            qmp.execute("quit")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b'{"event": "X"}\r\n', b"[1]\r\n"])
def test_something_else_at_the_other_end(greeting: bytes) -> None:
    peer = Peer(greeting)
    with Qmp(peer.ours, 5) as qmp, pytest.raises(QmpError, match="this is no"):
        qmp.negotiate()
    peer.end()


def test_silence_and_endless_talk_are_given_up() -> None:
    for greeting in (b"", b'{"QMP": {}'):
        peer = Peer(greeting)
        start = time.monotonic()
        with Qmp(peer.ours, 0.1) as qmp, pytest.raises(QmpError, match=r"no answer within 0\.1 seconds"):
            qmp.negotiate()
        assert time.monotonic() - start < 2
        peer.end()


def test_a_line_without_end_is_not_kept() -> None:
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with suppress(OSError), theirs:
            while True:
                theirs.sendall(b" " * 65536)

    talking = threading.Thread(target=talk)
    talking.start()
    with Qmp(ours, 60) as qmp, pytest.raises(QmpError, match="has no end"):
        qmp.negotiate()
    talking.join()


def test_the_kernel_tells_who_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        with pytest.raises(ConnectionRefusedError):
            connect(path, 1)
        server.listen()
        with connect(path, 1) as qmp:
            assert qmp.peer_pid() == os.getpid()


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        first = connect(path, 1)
        with pytest.raises(TimeoutError, match="too many others"):
            connect(path, 0.1)
        timer = threading.Timer(0.1, server.accept)
        timer.start()
        with first, connect(path, 5) as second:
            assert second.peer_pid() == os.getpid()
        timer.join()
