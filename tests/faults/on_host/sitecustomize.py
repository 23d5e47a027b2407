"""Counts what a module of ours does to its host, and strikes before the action that the harness has chosen.

An action is whatever changes the world: a process, a file, a connection, an SQL statement, and at last the result on
standard output. The order lies in ORDER; without one, nothing is different. Repetitions of one action, as of something
that polls, count once.
"""

from __future__ import annotations

import glob
import io
import json
import os
import re
import signal
import sys
import threading
import time
from typing import Any

FOLDER = "/run/cloudrepo-faults"
ORDER = FOLDER + "/order.json"
CALLS = FOLDER + "/calls"
ACTIONS = FOLDER + "/actions"
HIT = FOLDER + "/hit"
GO_ON = FOLDER + "/go-on"
_MODULE = re.compile(r"/cloudrepo/slices/plugins/modules/(?!__init__)(\w+)\.py$")
# Or what the collection's own way of calling starts with, whose first argument is the module's name.
_CALLED = "/cloudrepo/slices/plugins/module_utils/_called.py"
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset(
    "subprocess.Popen os.rename os.remove os.mkdir os.rmdir os.link os.symlink os.chmod os.chown os.truncate "
    "os.setxattr os.utime shutil.rmtree socket.connect socket.bind sqlite3.connect".split()
)
# Of a command the arguments, of a connection where to: the rest differs from time to time.
_SECOND = frozenset(("subprocess.Popen", "socket.connect", "socket.bind"))


class Counter:
    """The actions of the module that runs in this process."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.module = ""
        self.call = 0
        self.count = 0
        self.over = False
        self.busy = threading.local()
        self.lock = threading.Lock()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if getattr(self.busy, "now", False):
            return
        if event == "exec":
            file = getattr(args[0], "co_filename", "")
            found = _MODULE.search(file)
            if found and not self.module:
                self.quietly(self.begin, found.group(1))
            elif file.endswith(_CALLED) and not self.module:
                self.quietly(self.begin, sys.argv[1].rpartition(".")[2])
        elif not self.module:
            pass
        elif event == "open" and isinstance(args[0], (str, bytes)) and os.fsdecode(args[0]).startswith("/"):
            if (args[2] or 0) & _WRITE and not os.fsdecode(args[0]).startswith("/dev/"):
                self.quietly(self.act, "write %s" % os.fsdecode(args[0]))
        elif event in _CHANGES:
            self.quietly(self.act, "%s %r" % (event, args[1:2] if event in _SECOND else args))

    def quietly(self, function: Any, argument: str) -> None:
        """What we do ourselves is no action."""
        if getattr(self.busy, "now", False):
            return
        self.busy.now = True
        try:
            function(argument)
        finally:
            self.busy.now = False

    def begin(self, module: str) -> None:
        self.module = module
        with open(CALLS, "a+", encoding="utf-8") as calls:
            calls.write(module + "\n")
            calls.seek(0)
            self.call = calls.read().split().count(module)
        if self.order["do"] == "truncate" and self.is_meant():
            self.truncate()
        if module == "slice_registry":
            self.trace_sql()
        out = sys.stdout

        class Out:
            def write(this, text: str) -> int:
                self.quietly(self.act, "result")
                return out.write(text)

            def __getattr__(this, name: str) -> Any:
                return getattr(out, name)

        sys.stdout = Out()

    def truncate(self) -> None:
        """Half of what was sent is not there: of files, or else of what follows the order on standard input."""
        for path in glob.glob(self.order["files"]):
            os.truncate(path, os.path.getsize(path) // 2)
            self.hit(path)
        if not self.order["files"]:
            order, sent = sys.stdin.buffer.readline(), sys.stdin.buffer.read()
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(order + sent[: len(sent) // 2])))
            self.hit("%d bytes" % len(sent))

    def trace_sql(self) -> None:
        import sqlite3  # Only where it is used anyway.

        connect = sqlite3.connect

        def traced(*args: Any, **options: Any) -> Any:
            connection = connect(*args, **options)
            if args[0] != ":memory:":
                connection.set_trace_callback(lambda statement: self.quietly(self.sql, statement))
            return connection

        sqlite3.connect = traced

    def sql(self, statement: str) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):
            self.act("SQL " + statement.split("(")[0])

    def is_meant(self) -> bool:
        return self.module == self.order.get("module") and self.call == self.order.get("call")

    def is_time(self, action: str) -> bool:
        """Whether to strike before this one: it has the number of the order, or is the first with its text."""
        if "text" not in self.order:
            return self.count == self.order.get("action")
        return self.order["text"] in action and not os.path.exists(HIT)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not os.path.exists(GO_ON):
            time.sleep(0.02)

    def hit(self, action: str) -> None:
        with open(HIT, "w", encoding="utf-8") as file:
            file.write(action)

    def act(self, action: str) -> None:
        with self.lock:
            action = action[:300].replace("\n", " ")
            if action == getattr(self.busy, "last", "") or self.over:
                return
            self.busy.last = action
            # What is Ansible's own to clean up comes after the result.
            self.over = action == "result"
            self.count += 1
            if self.order["do"] == "count":
                with open(ACTIONS, "a", encoding="utf-8") as log:
                    log.write("%s %d %d %s\n" % (self.module, self.call, self.count, action))
            elif self.is_meant() and self.is_time(action):
                self.hit(action)
                if self.order["do"] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif self.order["do"] == "pause":
                    self.wait(self.order["seconds"])


# What the module starts must not load this file.
os.environ.pop("PYTHONPATH", None)
if os.path.exists(ORDER):
    with open(ORDER, encoding="utf-8") as _file:
        sys.addaudithook(Counter(json.load(_file)).hook)
