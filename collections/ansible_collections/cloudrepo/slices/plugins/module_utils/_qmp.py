# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of QMP, the protocol of a running QEMU, over its unix socket."""

from __future__ import annotations

import json
import socket
import struct
import time
from types import TracebackType
from typing import Any, Dict, Optional, Type

_RETRY_SECONDS = 0.02
_MOST_BYTES = 1024 * 1024  # What QEMU says is shorter by far.
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class QmpError(Exception):
    """QEMU refused a command, or did not answer as it should."""


class Qmp:
    """One conversation. QEMU talks to one client at a time, so it is kept short.

    Args:
        connection: a socket that is connected to QEMU.
        timeout: seconds after which an answer is given up.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._socket = connection
        self._timeout = timeout
        self._unread = b""

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def peer_pid(self) -> int:
        """The process at the other end. The kernel says so, not the peer."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(credentials)[0])

    def negotiate(self) -> None:
        """Wait for QEMU's greeting and enter its command mode."""
        self._await_greeting()
        self.execute("qmp_capabilities")

    def open_with(self, command: str, **arguments: Any) -> Any:
        """negotiate() and execute() in one round trip."""
        self.ask(command, **arguments)
        return self.hear(command)

    def ask(self, command: str, **arguments: Any) -> None:
        """Begin with a command and don't wait: what arrives before QEMU's greeting it reads afterwards."""
        self._send("qmp_capabilities")
        self._send(command, **arguments)

    def hear(self, command: str, deadline: Optional[float] = None) -> Any:
        """The result of what was asked. Without ``deadline`` each of QEMU's three answers has a time of its own."""
        self._await_greeting(deadline)
        self._await_answer("qmp_capabilities", deadline)
        return self._await_answer(command, deadline)

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result. Events that arrive in between are skipped."""
        self._send(command, **arguments)
        return self._await_answer(command)

    def _send(self, command: str, **arguments: Any) -> None:
        request = {"execute": command, "arguments": arguments}
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError("QMP %s: %s" % (command, error)) from error

    def _await_greeting(self, deadline: Optional[float] = None) -> None:
        greeting = self._read(deadline or self._deadline())
        if "QMP" not in greeting:
            raise QmpError("QMP: this is not QEMU's greeting: %.200r" % greeting)

    def _await_answer(self, command: str, deadline: Optional[float] = None) -> Any:
        deadline = deadline or self._deadline()
        while True:
            answer = self._read(deadline)
            if "error" in answer:
                error = answer["error"]
                raise QmpError("QMP %s: %.200s" % (command, error.get("desc") if isinstance(error, dict) else error))
            if "return" in answer:
                return answer["return"]

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def status(self) -> str:
        """What the machine does: C(running), C(paused), ..."""
        return str(self.execute("query-status")["status"])

    def _read(self, deadline: float) -> Dict[str, Any]:
        while b"\n" not in self._unread:
            if len(self._unread) > _MOST_BYTES:
                raise QmpError("QMP: the answer has no end")
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise QmpError("QMP: no answer within %g seconds" % self._timeout)
            self._socket.settimeout(remaining)
            try:
                received = self._socket.recv(65536)
            except socket.timeout as error:
                raise QmpError("QMP: no answer within %g seconds" % self._timeout) from error
            except OSError as error:
                raise QmpError("QMP: %s" % error) from error
            if not received:
                raise QmpError("QMP: the connection was closed")
            self._unread += received
        line, self._unread = self._unread.split(b"\n", 1)
        try:
            message = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise QmpError("QMP: this is not JSON: %.200r" % line) from error
        if not isinstance(message, dict):
            raise QmpError("QMP: this is no message: %.200r" % line)
        return message


def connect(path: str, timeout: float) -> Qmp:
    """A connection to the QEMU that listens at ``path``; nothing has been said yet.

    Raises:
        socket.timeout: others were before us all the time.
        OSError: nothing listens there.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return connect_now(path, timeout)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise socket.timeout("too many others wait for QMP at %s" % path) from error
            time.sleep(_RETRY_SECONDS)


def connect_now(path: str, timeout: float) -> Qmp:
    """connect() that does not wait for others.

    Raises:
        BlockingIOError: the queue of clients is full. The kernel does not wait for a place in it.
        OSError: nothing listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return Qmp(connection, timeout)
