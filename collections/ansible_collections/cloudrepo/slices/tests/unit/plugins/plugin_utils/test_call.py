# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules called in our own way: the real code is sent through a shell of this machine, as a connection would."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from ansible import constants
from ansible.errors import AnsibleValueOmittedError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible_collections.cloudrepo.slices.plugins.action import (
    qcow_overlay,
    slice_host,
    slice_host_info,
    slice_registry,
)
from ansible_collections.cloudrepo.slices.plugins.plugin_utils import _call

from ..records import web


class Action:
    """An action whose host is this machine, with what it has in common with Ansible's own."""

    def __init__(self, folder: Path, pipelining: bool = True, **task: Any) -> None:
        defaults = {"delegate_to": None, "async_val": 0, "no_log": True, "check_mode": False, "diff": False}
        self._task = SimpleNamespace(**{**defaults, **task})
        self._templar = SimpleNamespace(template=lambda text: text)
        self._connection = SimpleNamespace()
        self.pipelining = pipelining
        self.folder = folder
        self.sent: list[bytes] = []
        self.ordinary: list[str] = []
        self._discovered_interpreter_key: str | None = None
        self._discovered_interpreter: str | None = None

    def _is_pipelining_enabled(self, style: str) -> bool:
        return self.pipelining

    def _compute_environment_string(self) -> str:
        return "HOME=/somewhere"

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        self.sent.append(in_data)
        done = subprocess.run(
            ["/bin/sh", "-c", command], input=in_data, capture_output=True, check=False, cwd=self.folder
        )
        return {"stdout": done.stdout.decode(), "stderr": done.stderr.decode(), "rc": done.returncode}

    def _execute_module(self, module_name: str, **_rest: Any) -> dict[str, Any]:
        self.ordinary.append(module_name)
        return {"changed": False}


CALLED = (slice_host, slice_host_info, slice_registry, qcow_overlay)
MODULES = {action.MODULE.name: action.MODULE for action in CALLED}
NAMED = {"ansible_python_interpreter": sys.executable}


@pytest.fixture(autouse=True)
def _run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))


@pytest.fixture
def action(tmp_path: Path) -> Any:
    return Action(tmp_path)


def ask(action: Any, name: str, **args: Any) -> dict[str, Any]:
    return _call.call(action, MODULES[name], args, dict(NAMED))


def test_a_host_tells_what_it_has(action: Any) -> None:
    told = ask(action, "slice_host_info", roles=["worker"], base_dir="/nowhere")
    assert told["host"]["cores"] >= 1 and told["host"]["images"] == {} and not told.get("failed")
    assert told["invocation"]["module_args"]["base_dir"] == "/nowhere"


def test_the_registry_is_written_and_what_is_refused_says_why(action: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "registry" / "slices.sqlite")
    reservation = {"record": web(), "status": "deploying", "revision": 0, "next_id": 1003, "last_worker": "worker2"}
    assert ask(action, "slice_registry", path=path, state="reserved", **reservation)["changed"]
    (record,) = ask(action, "slice_registry", path=path)["registry"]["slices"]
    assert (record["name"], record["status"]) == ("web", "deploying")
    refused = ask(action, "slice_registry", path=path, state="status", slice="red", status="running")
    assert refused["failed"] and "red" in refused["msg"]


def test_check_mode_and_diff_reach_the_host(tmp_path: Path) -> None:
    path = tmp_path / "slices.sqlite"
    reservation = {"record": web(), "status": "deploying", "revision": 0, "next_id": 1003, "last_worker": "worker2"}
    action = Action(tmp_path, check_mode=True, diff=True)
    answer = ask(action, "slice_registry", path=str(path), state="reserved", **reservation)
    assert answer["changed"] and answer["diff"]["after"] and not path.exists()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("slice_host_info", {}, "missing required arguments: roles"),
        ("slice_host_info", {"roles": ["guest"]}, "value of roles must be one or more of: worker, network"),
        ("slice_host_info", {"roles": [], "zz": 1}, "unsupported parameters: zz"),
        ("slice_registry", {"state": "absent"}, "state is absent but all of the following are missing: slice"),
        (
            "slice_host",
            {"slice": "web", "slice_id": 1, "roles": [], "share": {"vms": [{"id": 7}]}},
            "share: missing required arguments: name found in vms",
        ),
    ],
)
def test_wrong_options_never_leave_the_controller(action: Any, name: str, args: dict[str, Any], message: str) -> None:
    answer = ask(action, name, **args)
    assert answer["failed"] and message in answer["msg"]
    assert action.sent == []


def test_paths_are_the_host_s(action: Any) -> None:
    """The home is that of the user on the host, not of the one who runs Ansible."""
    answer = ask(action, "slice_registry", path="~/nothing/slices.sqlite", state="backup")
    assert answer["failed"] and "/somewhere/nothing/slices.sqlite" in answer["msg"]


def test_a_secret_is_in_no_answer(action: Any) -> None:
    answer = ask(action, "slice_registry", url="no-url-but-S3cret", state="read")
    assert answer["failed"] and "S3cret" not in str(answer)


def test_what_lies_in_the_working_folder_is_not_imported(action: Any, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    assert "host" in ask(action, "slice_host_info", roles=[])


def test_a_login_s_chatter_is_no_answer_and_no_answer_is_a_failure() -> None:
    said = {"stdout": 'Welcome!\n{"changed": false}\nlogout\n', "stderr": "", "rc": 0}
    assert _call._answer(said) == {"changed": False}
    lost = _call._answer({"stdout": "Welcome!\n", "stderr": "Killed\n", "rc": 137})
    assert lost["failed"] and (lost["module_stdout"], lost["rc"]) == ("Welcome!\n", 137)
    assert lost["msg"] == "The module gave no answer (rc=137): Killed"


def test_a_host_decides_nothing_but_its_own_answer() -> None:
    evil = {
        "add_host": {"host_name": "network1"},
        "_ansible_delegated_vars": {},
        "ansible_facts": {"ansible_user": "me"},
    }
    assert _call._answer({"stdout": json.dumps({"changed": False, **evil}), "stderr": "", "rc": 0}) == {
        "changed": False
    }


def test_a_host_with_another_python_takes_the_source(action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_call, "MAGIC_NUMBER", b"\0\0\r\n")
    assert "host" in ask(action, "slice_host_info", roles=[])


def test_a_python_without_memfd_will_do(action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_call, "_BOOT", f"import os\ndel os.memfd_create\n{_call._BOOT}")
    assert "host" in ask(action, "slice_host_info", roles=[])


@pytest.mark.parametrize("room", [module.file for module in MODULES.values()])
def test_what_is_sent_is_all_that_is_needed_and_nothing_of_ansible(room: str) -> None:
    with zipfile.ZipFile(io.BytesIO(_call.pack(room))) as archive:
        sources = {Path(name).stem: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
        compiled = [archive.read(name) for name in archive.namelist() if name.endswith(".pyc")]
    assert all(code.startswith(MAGIC_NUMBER) for code in compiled) and len(compiled) == len(sources) - 1
    for name, source in sources.items():
        assert not re.search(r"^\s*(from|import) ansible\.", source, re.MULTILINE), name
        assert set(re.findall(r"module_utils\.(_\w+) import", source)) <= set(sources)


def test_it_is_packed_once_for_all_hosts(action: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(action, "slice_host_info", roles=[])
    monkeypatch.setattr(_call, "pack", lambda room: pytest.fail("packed again"))
    assert "host" in ask(action, "slice_host_info", roles=[])
    assert [path.name for path in (tmp_path / "run").glob("*.zip")] == ["cloudrepo.slices._host_info.zip"]


def test_without_pipelining_or_in_the_background_or_without_a_python_it_is_a_module_as_any(tmp_path: Path) -> None:
    for action, variables in (
        (Action(tmp_path, pipelining=False), NAMED),
        (Action(tmp_path, async_val=60), NAMED),
        (Action(tmp_path), {"ansible_python_interpreter": "auto_silent"}),
    ):
        _call.call(action, slice_host.MODULE, {}, dict(variables))  # type: ignore[arg-type]
        assert action.ordinary == ["cloudrepo.slices.slice_host"] and not action.sent


def test_the_python_that_ansible_found_is_taken_the_delegated_host_s_too(tmp_path: Path) -> None:
    found = {"ansible_facts": {"discovered_interpreter_python": sys.executable}}
    auto = {"ansible_python_interpreter": "auto"}
    here = Action(tmp_path)
    _call.call(here, slice_host_info.MODULE, {"roles": []}, {**auto, **found})  # type: ignore[arg-type]
    there = Action(tmp_path, delegate_to="node")
    _call.call(there, slice_host_info.MODULE, {"roles": []}, {**auto, "ansible_delegated_vars": {"node": NAMED}})  # type: ignore[arg-type]
    assert len(here.sent) == len(there.sent) == 1


def test_what_an_earlier_call_found_out_is_told() -> None:
    """The action asked for something else first, the ordinary way, and does not hand on that answer."""
    action = Action(Path("/"))
    action._discovered_interpreter_key, action._discovered_interpreter = "discovered_interpreter_python", sys.executable
    answer = ask(action, "slice_host_info", roles=[])
    assert answer["ansible_facts"] == {"discovered_interpreter_python": sys.executable}


def test_a_python_may_be_padded_or_omitted(tmp_path: Path) -> None:
    padded = {"ansible_python_interpreter": f"{sys.executable} "}
    assert "host" in _call.call(Action(tmp_path), MODULES["slice_host_info"], {"roles": []}, padded)  # type: ignore[arg-type]

    def omit(_text: object) -> None:
        raise AnsibleValueOmittedError

    action = Action(tmp_path)
    action._templar = SimpleNamespace(template=omit)
    _call.call(action, MODULES["slice_host_info"], {"roles": []}, dict(NAMED))  # type: ignore[arg-type]
    assert action.ordinary == ["cloudrepo.slices.slice_host_info"]


@pytest.mark.parametrize(
    ("task", "variables", "logged"),
    [
        ({"no_log": False}, {}, "Invoked with roles"),
        ({"no_log": True}, {}, ""),
        ({"no_log": False}, {"ansible_no_target_syslog": True}, ""),
    ],
)
def test_the_host_s_log_is_told_as_ansible_is_configured(
    tmp_path: Path, task: dict[str, Any], variables: dict[str, Any], logged: str
) -> None:
    module = MODULES["slice_host_info"]
    params, _errors = _call.checked(module, {"roles": []})
    order = json.loads(_call._order(module, params, Action(tmp_path, **task), variables))  # type: ignore[arg-type]
    assert order["log"].startswith(logged.partition(" roles")[0]) and bool(order["log"]) == bool(logged)


@pytest.mark.parametrize(
    ("name", "pipelining", "can"),
    [("ansible.builtin.ssh", True, True), ("ansible.builtin.ssh", False, False), ("other.own.ssh", True, False)],
)
def test_only_over_ansible_s_own_ssh_more_can_follow(name: str, pipelining: bool, can: bool, tmp_path: Path) -> None:
    action = Action(tmp_path, pipelining=pipelining)
    action._connection = connection_loader.get("ssh", PlayContext())
    assert action._connection.ansible_name == "ansible.builtin.ssh"
    action._connection.ansible_name = name
    assert _call.can_send(action, dict(NAMED)) is can  # type: ignore[arg-type]


class Connection:
    """Ansible's SSH connection has a method of this name."""

    def _send_initial_data(self, pipe: Any, data: bytes, process: Any) -> None:
        raise AssertionError("for this command it is another")


@pytest.mark.parametrize(("command", "arrived"), [("cat", b"optionsimage"), ("exec 0<&-", b"")])
def test_what_follows_the_options_is_sent_to_a_command_that_reads_it(command: str, arrived: bytes) -> None:
    """And one that ends before is no error of its own: what it said is what counts."""

    def image(pipe: IO[bytes]) -> None:
        pipe.write(b"image")

    connection = Connection()
    with subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if not arrived:
            process.wait()
        with _call._followed_by(connection, image):
            connection._send_initial_data(process.stdin, b"options", process)
        assert process.stdin is not None
        assert process.stdin.closed
        assert process.stdout is not None
        assert process.stdout.read() == arrived
    with pytest.raises(AssertionError, match="another"):
        connection._send_initial_data(None, b"", None)
