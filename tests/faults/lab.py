# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's hosts from outside: run something in them, look at them, break them and put them right again."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.cloudrepo.slices.plugins.module_utils import _registry

ROOT = Path(__file__).resolve().parents[2]
LAB_DIR = Path(os.environ.get("LAB_DIR", "/var/lib/cloudrepo-lab"))
WORKERS = ("worker1", "worker2", "worker3")
NODE = "network1"
HOSTS = (*WORKERS, NODE)
PATIENCE = 8.0
HOOK = "/opt/cloudrepo-faults"
HOOK_STATE = "/run/cloudrepo-faults"
REGISTRY = "/var/lib/cloudrepo/registry/slices.sqlite"
BASE_DIR = "/var/lib/cloudrepo/vm_images"

Record = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What slices have on the hosts: lines by host, and PIDs by host and process."""

    lines: dict[str, Counter[str]]
    pids: dict[str, dict[str, int]]


def pid_of(host: str) -> int:
    """The init of a host."""
    return int(json.loads((LAB_DIR / "state.json").read_text())["hosts"][host]["pid"])


def root_of(host: str) -> Path:
    """A host's files, as seen from the machine."""
    return Path(f"/proc/{pid_of(host)}/root")


def inside(host: str, *argv: str) -> list[str]:
    return ["nsenter", "--target", str(pid_of(host)), "--all", *argv]


def run_in(host: str, *argv: str, stdin: str = "", check: bool = True, timeout: float = 60) -> str:
    done = subprocess.run(inside(host, *argv), input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise OSError(f"{host}: {' '.join(argv)} failed (rc={done.returncode}): {done.stderr.strip()}")
    return done.stdout


def write_in(host: str, path: str, text: str, mode: int = 0o644) -> None:
    run_in(host, "mkdir", "-p", os.path.dirname(path))
    run_in(host, "tee", path, stdin=text)
    run_in(host, "chmod", f"{mode:o}", path)


def install_hook(host: str) -> None:
    for path in sorted((ROOT / "tests/faults/on_host").iterdir()):
        if path.is_file():
            write_in(host, f"{HOOK}/{path.name}", path.read_text(), path.stat().st_mode & 0o777)


def give_order(host: str, **order: Any) -> None:
    """What the modules' Python on a host does from now on; without anything, it is as always."""
    run_in(host, "rm", "-rf", HOOK_STATE)
    if order:
        run_in(host, "mkdir", "-p", HOOK_STATE)
        # Renamed: a module that starts right now must not read half of it.
        write_in(host, f"{HOOK_STATE}/order.new", json.dumps(order))
        run_in(host, "mv", f"{HOOK_STATE}/order.new", f"{HOOK_STATE}/order.json")


def go_on(host: str) -> None:
    """A module that was told to pause goes on."""
    write_in(host, f"{HOOK_STATE}/go-on", "")


def counted_actions(host: str) -> list[tuple[str, int, int, str]]:
    """Module, call, number and description of every action that was counted on a host."""
    path = root_of(host) / HOOK_STATE.lstrip("/") / "actions"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(m, int(c), int(n), what) for m, c, n, what in (line.split(" ", 3) for line in lines)]


def hit(host: str) -> str | None:
    """The action before which the hook struck."""
    path = root_of(host) / HOOK_STATE.lstrip("/") / "hit"
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def look(hosts: tuple[str, ...] = HOSTS) -> Snapshot:
    with ThreadPoolExecutor() as pool:
        printed = pool.map(lambda host: run_in(host, "/usr/bin/python3", f"{HOOK}/snapshot.py"), hosts)
        found = dict(zip(hosts, map(json.loads, printed), strict=True))
    return Snapshot(
        {host: Counter(one["lines"]) for host, one in found.items()},
        {host: one["pids"] for host, one in found.items()},
    )


_DUMP = """
import base64, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=rw", uri=True, timeout=30)
connection.execute("SELECT COUNT(*) FROM sqlite_master")
print(base64.b64encode(connection.serialize()).decode())
"""


def registry() -> Record:
    """The whole registry: a copy made on its host, under its locks, and read by the product's own reader."""
    dumped = base64.b64decode(run_in(NODE, "/usr/bin/python3", "-c", _DUMP, REGISTRY))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "slices.sqlite")
        copy.write_bytes(dumped)
        with _registry.opened(str(copy), write=False) as connection:
            return _registry.read(connection)


_SKIP = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.execute("UPDATE meta SET next_id = max(next_id, ?)", [int(sys.argv[2])])
connection.commit()
"""


def skip_ids(first: int) -> None:
    """Give out IDs from this one on."""
    run_in(NODE, "/usr/bin/python3", "-c", _SKIP, REGISTRY, str(first))


def record_of(name: str) -> Record | None:
    return next((record for record in registry()["slices"] if record["name"] == name), None)


def kill_in(host: str, pids: list[int], number: int = signal.SIGKILL) -> None:
    """Signal processes of a host by their PIDs in there."""
    run_in(host, "kill", f"-{int(number)}", *map(str, pids), check=False)


def pids_in(host: str, program: str) -> list[int]:
    """PIDs, as the host sees them, of the processes of a program."""
    listed = run_in(host, "ps", "-e", "-o", "pid=,comm=")
    return [int(line.split()[0]) for line in listed.splitlines() if line.split()[1] == program]


def end_host(host: str) -> None:
    """Pull a host's plug: everything in it goes with its init."""
    pid = pid_of(host)
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/root/proc").exists():
        time.sleep(0.02)


def start_hosts() -> None:
    """Start the hosts that are off."""
    playbook("lab_up")


def plug(host: str, connected: bool) -> None:
    """Plug a host's management cable in or out."""
    state = "up" if connected else "down"
    subprocess.run(["ip", "link", "set", f"slm-{host}", state], check=True)


@dataclass
class Played:
    """How a playbook ended; `rc` is None if it had to be ended."""

    rc: int | None
    output: str
    seconds: float


@dataclass
class Play:
    """A playbook that is about to run, or runs. Faults add to `env` and `extra` before."""

    name: str
    extra: dict[str, Any]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    timeout: float = 300
    interrupted: bool = False

    def start(self) -> None:
        argv = ["ansible-playbook", f"playbooks/{self.name}.yml", "--extra-vars", json.dumps(self.extra)]
        environ = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **self.env}
        with self.log.open("wb") as log:
            # A session of its own: what a terminal sends to the play's group must not reach us.
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> Played:
        assert self.process
        began = time.monotonic()
        rc: int | None = None
        while rc is None and time.monotonic() - began < self.timeout:
            try:
                rc = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                # At times Ansible's own clean-up after the first Ctrl-C never ends: its user presses it again.
                if self._was_interrupted():
                    os.killpg(self.process.pid, signal.SIGINT)
        if rc is None:
            self.kill()
        return Played(rc, self.log.read_text(errors="replace"), time.monotonic() - began)

    def _was_interrupted(self) -> bool:
        by_hook = self.env.get("FAULTS_DO") == "SIGINT" and Path(self.env["FAULTS_HIT"]).exists()
        return self.interrupted or by_hook

    def signal(self, number: int) -> None:
        """SIGINT as a terminal sends it, to the whole group; any other to ansible-playbook alone."""
        assert self.process
        if number == signal.SIGINT:
            self.interrupted = True
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End what is left of the play: workers may outlive their master."""
        assert self.process
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def playbook(name: str, **extra: Any) -> Played:
    """Run a playbook that has to work."""
    with tempfile.NamedTemporaryFile() as log:
        play = Play(name, extra, Path(log.name))
        play.start()
        played = play.wait()
    if played.rc != 0:
        raise OSError(f"{name} failed (rc={played.rc}):\n{played.output[-3000:]}")
    return played
