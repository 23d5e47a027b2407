# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _vms
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import locked
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._qmp import connect
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, reconcile
from ansible_collections.cloudrepo.slices.plugins.module_utils._vms import Host, Process

CONFIG: dict[str, Any] = {
    "record": None,
    "id": 1001,
    "cores": 1,
    "memory_mb": 64,
    "vnc_port": 5901,
    "vnc_listen": "127.0.0.1",
    "vnc_password": False,
    "accelerator": "tcg",
    "nic_offload": True,
    "user": "slices-qemu",
    "interfaces": [],
}

# Ignores what ends a process politely, as a QEMU that hangs would.
_HANGS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"

# Answers one client after the other as QEMU 7.2 does; one whose answer is empty never does.
_ANSWERS = """
import socket, sys
from contextlib import suppress
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(0)
print("up", flush=True)
while True:
    client = server.accept()[0]
    with suppress(OSError), client, client.makefile("rb") as lines:
        if sys.argv[2]:
            client.sendall(b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\\n')
        for line in lines:
            if sys.argv[2]:
                answer = '{"return": {}}' if b"qmp_capabilities" in line else sys.argv[2]
                client.sendall(answer.encode() + b"\\n")
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(str(tmp_path / "images"), str(tmp_path / "run"), "case")
    for name in ("web", "db"):
        Path(host.paths(name).folder).mkdir(parents=True)
    (tmp_path / "images" / "case").mkdir(parents=True)
    return host


class Hanging:
    """A process with the command line of a VM's QEMU that says nothing, and has the VM's disk open."""

    def __init__(self, host: Host, name: str, *script: str) -> None:
        command = [sys.executable, "-c", *(script or [_HANGS]), "-pidfile", host.paths(name).pidfile]
        with Path(host.paths(name).disk).open("w+b") as disk:
            self._process = subprocess.Popen(command, stdin=disk, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.pid = self._process.pid

    def write_pidfile(self, path: str) -> None:
        Path(path).write_text(f"{self.pid}\n")

    def exit_status(self) -> int | None:
        for _attempt in range(100):
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        return self._process.returncode

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def web(host: Host) -> Iterator[Hanging]:
    process = Hanging(host, "web")
    yield process
    process.end()


def test_a_stale_pidfile_and_a_reused_pid_find_nothing(host: Host, web: Hanging) -> None:
    paths = host.paths("db")
    assert _vms.find(paths) is None
    for content in ("", "no number", "999999999\n", f"{os.getpid()}\n", f"{web.pid}\n", "-1\n"):
        Path(paths.pidfile).write_text(content)
        assert _vms.find(paths) is None
    Path(paths.pidfile).unlink()
    Path(paths.pidfile).symlink_to(host.paths("web").pidfile)
    web.write_pidfile(host.paths("web").pidfile)
    assert _vms.find(paths) is None


def test_a_process_whose_qmp_is_silent_is_not_taken_for_running(host: Host, web: Hanging) -> None:
    web.write_pidfile(host.paths("web").pidfile)
    assert _vms.find(host.paths("web")) == Process(web.pid, "unresponsive")


def test_a_stranger_at_our_socket_is_not_ours(host: Host) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(host.paths("web").qmp)
        server.listen()
        assert _vms.find(host.paths("web")) is None


@contextmanager
def listening(host: Host, **answers: str) -> Iterator[dict[str, Hanging]]:
    """A process for each VM, which answers with this text."""
    with ExitStack() as stack:
        found = {}
        for name, text in answers.items():
            Path(host.paths(name).folder).mkdir(parents=True, exist_ok=True)
            found[name] = Hanging(host, name, _ANSWERS, host.paths(name).qmp, text)
            stack.callback(found[name].end)
        yield found


RUNNING = '{"return": {"status": "running", "singlestep": false, "running": true}}'


def test_who_is_silent_keeps_nobody_from_the_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vms, "_QMP_SECONDS", 2.5)
    silent = [f"vm{number}" for number in range(8)]
    odd = {"number": '{"return": 1}', "wrong": '{"error": null}', "deep": "[" * 100000}
    with listening(host, **dict.fromkeys(silent, ""), **odd, x=RUNNING) as processes, ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        scan = pool.submit(_vms.find_all, {name: host.paths(name) for name in [*processes, "nobody"]})
        time.sleep(1.5)
        # Somebody else, whom QEMU serves only when we have gone.
        with connect(host.paths("x").qmp, 1) as qmp:
            qmp.negotiate()
        assert not scan.done()
        status = {**dict.fromkeys([*silent, *odd], "unresponsive"), "x": "running"}
        found = {name: Process(processes[name].pid, status[name]) for name in processes}
        assert scan.result() == {**found, "nobody": None}
        # Each of them alone would take that long.
        assert time.monotonic() - begun < 2 * 2.5


def test_who_has_others_before_us_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {name: host.paths(name) for name in ("busy", "x")}
    with listening(host, busy=RUNNING, x=RUNNING) as processes:
        # One is served, and one takes the place in the queue.
        first = connect(paths["busy"].qmp, 5)
        first.negotiate()
        second = connect(paths["busy"].qmp, 5)
        with first, second, ThreadPoolExecutor() as pool:
            found = pool.submit(_vms.find_all, paths)
            time.sleep(0.2)
            assert not found.done()
            first.close()
            second.close()
            assert found.result() == {name: Process(processes[name].pid, "running") for name in paths}
        monkeypatch.setattr(_vms, "_QMP_SECONDS", 0.2)
        first = connect(paths["busy"].qmp, 5)
        first.negotiate()
        with first, connect(paths["busy"].qmp, 5):
            assert _vms.find(paths["busy"]) == Process(None, "unresponsive")
            processes["busy"].write_pidfile(paths["busy"].pidfile)
            assert _vms.find(paths["busy"]) == Process(processes["busy"].pid, "unresponsive")


def test_one_that_hangs_is_killed_and_nobody_else(host: Host, web: Hanging) -> None:
    # The pidfile of db was overwritten with web's process: db is off, and stopping it must not touch web.
    web.write_pidfile(host.paths("db").pidfile)
    assert _vms.stop(host, {"db": web.pid}, grace=0) == {}
    time.sleep(0.1)
    assert web._process.poll() is None

    web.write_pidfile(host.paths("web").pidfile)
    # Nobody else reaps it, and a process that was not reaped has ended all the same.
    assert _vms.stop(host, {"web": web.pid}, grace=0) == {}
    assert web.exit_status() == -9


def test_the_scan_finds_manifests_and_folders(host: Host) -> None:
    (Path(host.base_dir) / "case" / "web.json").write_text(json.dumps({"slice": "case", "name": "web", **CONFIG}))
    for stray in ("Not-a-name.json", ".web.json.0123456789abcdef.part", "web_img.qcow2"):
        (Path(host.base_dir) / "case" / stray).touch()
    assert _vms.scan(host) == {
        "db": _vms.Vm({"status": "stopped"}, None),  # Its manifest was lost.
        "web": _vms.Vm({"status": "stopped", **CONFIG}, None),
    }
    assert _vms.slices(host.base_dir, host.run_dir) == ["case"]
    assert _vms.scan(Host(host.base_dir, host.run_dir, "none")) == {}


def test_the_scan_finds_taps_that_a_process_has_lost(host: Host, web: Hanging) -> None:
    # This process holds no TAP at all.
    web.write_pidfile(host.paths("web").pidfile)
    manifest = {**CONFIG, "interfaces": [{"name": "eth0", "tap": "tap_1001_eth0", "mac": "", "connected": True}]}
    (Path(host.base_dir) / "case" / "web.json").write_text(json.dumps({"slice": "case", "name": "web", **manifest}))
    assert _vms.scan(host)["web"].state == {"status": "unresponsive", **manifest, "lost_taps": ["tap_1001_eth0"]}
    Path(host.paths("web").pidfile).unlink()
    assert _vms.scan(host)["web"].state == {"status": "stopped", **manifest}


@pytest.mark.parametrize("link", ["/dev/net/tun", "/net/tun", "/dev/net/tun (deleted)", "(unreachable)/net/tun"])
def test_a_tap_is_known_wherever_a_process_found_its_device(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another root or mount namespace, and after /dev was made anew, the kernel names it otherwise."""
    monkeypatch.setattr(_vms.os, "listdir", lambda folder: ["7"])
    monkeypatch.setattr(_vms.os, "readlink", lambda path: link)
    monkeypatch.setattr(_vms, "open", lambda path, **_how: io.StringIO("pos:\t0\niff:\ttap_1\n"), raising=False)
    assert _vms._lost_taps(1, [{"tap": "tap_1"}, {"tap": "tap_2"}]) == ["tap_2"]


def test_the_scan_finds_a_disk_that_was_deleted_under_a_process(host: Host, web: Hanging) -> None:
    web.write_pidfile(host.paths("web").pidfile)
    assert _vms.scan(host)["web"].state == {"status": "unresponsive"}
    disk = Path(host.paths("web").disk)
    disk.unlink()
    assert _vms.scan(host)["web"].state == {"status": "unresponsive", "lost_disk": True}
    # A new one of that name is not the one it has. The old one keeps its inode's number as long as somebody has it.
    disk.touch()
    assert _vms.scan(host)["web"].state == {"status": "unresponsive", "lost_disk": True}


def test_one_that_ended_after_its_start_is_told_with_its_last_words(host: Host) -> None:
    log = Path(host.paths("web").qemu_log)
    log.write_text("x" * 5000 + "out of luck\n")
    have = {"web": _vms.Vm({"status": "stopped"}, None), "db": _vms.Vm({"status": "running"}, 4711)}
    errors = _vms.check_started(host, ["web", "db"], have)
    assert list(errors) == ["web"]
    assert errors["web"].startswith("QEMU ended right after its start: xxx") and errors["web"].endswith("out of luck")
    assert len(errors["web"]) < 2100
    # QEMU's user owns the folder: what it puts in the log's place is not read.
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert "root:" not in _vms.check_started(host, ["web"], have)["web"]


def test_a_broken_manifest_is_named(host: Host) -> None:
    (Path(host.base_dir) / "case" / "web.json").write_text('{"id": 1}')
    with pytest.raises(ItemError, match=r'vm "web": .*/web.json is not the manifest of a VM'):
        _vms.scan(host)


def test_nothing_starts_without_its_disk_and_its_taps(host: Host) -> None:
    known = {"web": 'vms[0] "web"'}
    configs = {"web": {**CONFIG, "interfaces": [{"name": "eth0", "tap": "lo", "connected": True}]}}
    with pytest.raises(ItemError, match=r'vms\[0\] "web": there is no disk .*/web_img.qcow2'):
        _vms.check_startable(host, ["web"], configs, known)
    Path(host.paths("web").disk).touch()
    _vms.check_startable(host, ["web"], configs, known)
    configs["web"]["interfaces"][0]["tap"] = "tap_1001_eth0"
    with pytest.raises(ItemError, match=r'vms\[0\] "web": there is no TAP "tap_1001_eth0"'):
        _vms.check_startable(host, ["web"], configs, known)


def test_removing_leaves_the_disk_and_the_other_vm(host: Host) -> None:
    for name in ("web", "db"):
        for path in (host.paths(name).disk, host.paths(name).manifest, host.paths(name).console_log):
            Path(path).touch()
    before = {name: vm.state for name, vm in {"web": _vms.Vm({"status": "stopped"}, None)}.items()}
    actions = reconcile({}, before, purge=True)
    assert _vms.apply(host, actions, {}, 0, _no_starter, _nothing) == {}
    assert not os.path.exists(host.paths("web").folder)
    assert sorted(os.listdir(os.path.join(host.base_dir, "case"))) == [
        "db.console.log",
        "db.json",
        "db_img.qcow2",
        "web_img.qcow2",
    ]


def test_removing_the_last_vm_leaves_no_folder(host: Host) -> None:
    folder = os.path.join(host.base_dir, "case")

    def remove(name: str) -> dict[str, str]:
        Path(host.paths(name).manifest).touch()
        return _vms.apply(host, [Action("delete", name, {"status": "stopped"}, None)], {}, 0, _no_starter, _nothing)

    with ThreadPoolExecutor(1) as pool:
        with locked(folder):
            removal = pool.submit(remove, "web")
            # Somebody makes a disk there just now.
            with pytest.raises(futures.TimeoutError):
                removal.result(timeout=0.2)
            Path(host.paths("db").disk).touch()
        assert removal.result() == {}
    assert os.listdir(folder) == ["db_img.qcow2"]
    Path(host.paths("db").disk).unlink()
    assert remove("db") == {}
    assert os.listdir(host.base_dir) == []


def test_nothing_ends_while_the_ports_may_still_fail(host: Host) -> None:
    Path(host.paths("web").manifest).touch()

    def failed() -> None:
        raise ItemError("its ports could not be made")

    with pytest.raises(ItemError, match="could not be made"):
        _vms.apply(host, [Action("delete", "web", {"status": "stopped"}, None)], {}, 0, _no_starter, failed)
    assert os.path.exists(host.paths("web").manifest)


def _nothing() -> None:
    pass


def _no_starter() -> _vms.Starter:
    raise AssertionError("nothing is to be started")


@pytest.mark.parametrize(
    ("before", "after", "starts"),
    [
        (None, {"status": "running", **CONFIG}, True),
        ({"status": "stopped", **CONFIG}, {"status": "running", **CONFIG}, True),
        ({"status": "running", **CONFIG}, {"status": "running", **CONFIG, "cores": 2}, True),
        ({"status": "paused", **CONFIG}, {"status": "running", **CONFIG}, False),
        ({"status": "running", **CONFIG}, {"status": "stopped", **CONFIG}, False),
        ({"status": "running", **CONFIG}, None, False),
    ],
)
def test_what_starts_a_process(before: dict[str, Any] | None, after: dict[str, Any] | None, starts: bool) -> None:
    assert _vms.must_start(Action("modify", "web", before, after)) is starts


def test_becoming_a_user_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ItemError, match='there is no user "no-such-user" on this host'):
        _vms.user_argv("no-such-user")
