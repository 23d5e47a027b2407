# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The package as its callers have it, without hosts: a wrong spec is refused before any is asked."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from cloudrepo_slices import Event, SliceCancelled, SliceError, deploy, design, show
from cloudrepo_slices.progress import ProgressBar
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"
INVENTORY = ROOT / "inventories" / "lab" / "hosts.yml"
HERE: dict[str, Any] = {"inventory": INVENTORY, "project_dir": ROOT}
_CALLER = """
import sys
from cloudrepo_slices import deploy
spec = {"name": "web", "vms": [{"name": "a", "flavor": "cirros"}]}
deploy(spec, inventory=sys.argv[1], project_dir=sys.argv[2])
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs put what they need for a while."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)
    return folder


def test_an_error_is_one_line_with_the_task_and_nothing_is_left(temporary: Path) -> None:
    with pytest.raises(SliceError) as caught:
        deploy({"name": "web", "vms": [{"name": "Web", "flavor": "cirros"}]}, **HERE)
    assert str(caught.value).startswith("vms[0]: name 'Web' must be") and "\n" not in str(caught.value)
    failed = caught.value.result.failed
    assert failed and (failed.step, failed.host) == ("Read and check the spec", "localhost")
    assert not caught.value.result.changed
    assert "TASK [cloudrepo.slices.slice : Read and check the spec]" in caught.value.output
    assert list(temporary.iterdir()) == []


def test_what_a_spec_says_is_never_run(tmp_path: Path) -> None:
    template = "{{ lookup('pipe', 'touch %s') }}" % (tmp_path / "run")
    for spec in (template, {"name": template}, {"name": "web", "vms": [{"name": "a", "flavor": template}]}):
        with pytest.raises(SliceError, match="lookup"):
            design(spec, **HERE)
    assert not (tmp_path / "run").exists()


def test_calls_at_the_same_time_know_nothing_of_each_other() -> None:
    def refused(name: str) -> str:
        with pytest.raises(SliceError) as caught:
            deploy({"name": name}, **HERE)
        return str(caught.value)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(refused, ["A", "B"])
    assert "'A'" in first and "'B'" in second


def test_from_an_installed_collection(tmp_path: Path) -> None:
    subprocess.run(
        ["ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path / "installed", COLLECTION],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    folder: dict[str, Any] = {"inventory": INVENTORY, "project_dir": tmp_path}
    with pytest.raises(SliceError, match=r"there is no spec .*ghost"):
        deploy("ghost", environment={"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "installed")}, **folder)
    with pytest.raises(SliceError, match=r"cloudrepo\.slices\.deploy_slice could not be found"):
        deploy("ghost", environment={"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}, **folder)


def test_what_is_no_inventory_or_no_option_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="there is no inventory nowhere"):
        show(inventory="nowhere")
    with pytest.raises(TypeError, match="verbosity"):
        show(verbosity=3)  # type: ignore[call-arg]


def test_an_event_handler_that_fails_ends_the_run(temporary: Path) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError(event.step)

    with pytest.raises(ZeroDivisionError, match="Read and check the spec"):
        deploy({"name": "A"}, on_event=broken, **HERE)
    assert list(temporary.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if "cloudrepo" in thread.name] == []


def test_a_run_that_is_cancelled_ends_at_once(temporary: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SliceCancelled, match="the run was cancelled"):
        deploy({"name": "A"}, cancel=lambda: True, **HERE)
    assert time.monotonic() - began < 10
    assert list(temporary.iterdir()) == []


def test_a_run_that_was_done_before_it_was_cancelled_has_its_result(temporary: Path, tmp_path: Path) -> None:
    """Its playbook is this test's own, as the collection's would need hosts."""
    playbook = tmp_path / "ansible_collections" / "cloudrepo" / "slices" / "playbooks" / "show_slices.yml"
    playbook.parent.mkdir(parents=True)
    tell = {"name": "Tell", "ansible.builtin.set_stats": {"data": {"slices": []}}}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [tell]}]))
    events: list[Event] = []
    deadline = time.monotonic() + 60

    def too_late() -> bool:
        while not list(temporary.glob("*/artifacts/*/rc")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return True

    environment = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
    here: dict[str, Any] = {"inventory": INVENTORY, "project_dir": tmp_path, "environment": environment}
    assert show(cancel=too_late, on_event=events.append, **here).slices == ()
    assert [(event.step, event.status) for event in events] == [("Tell", "started"), ("Tell", "ok")]


def test_ctrl_c_ends_all_that_the_run_has_started(tmp_path: Path) -> None:
    """The hosts are this one, and their Python never answers."""
    stuck = tmp_path / "stuck"
    stuck.write_text(f"#!/bin/sh\n: >{tmp_path}/at-it.$$\nexec sleep 987\n")
    stuck.chmod(0o755)
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": str(stuck)}
    groups = {"workers": {"hosts": {"one": local}}, "network_node": {"hosts": {"two": local}}}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps(groups))
    # A shell that starts something in the background has it ignore Ctrl-C, and the tests may be such a thing.
    argv = ["env", "--default-signal", sys.executable, "-c", _CALLER, str(inventory), str(ROOT)]
    caller = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("at-it.*"))) < 2:
        assert caller.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    caller.send_signal(signal.SIGINT)
    _output, errors = caller.communicate(timeout=15)
    assert errors.endswith("KeyboardInterrupt\n")
    living = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [command for command in living if b"sleep\x00987" in command or str(inventory).encode() in command] == []


def test_host_keys_are_checked_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    """ansible-runner has them not checked, unless it is told."""
    (tmp_path / "ansible.cfg").write_text(
        (ROOT / "ansible.cfg").read_text().replace("= collections", f"= {ROOT}/collections")
    )
    told = {"slice_spec": {"name": "A"}, "slices_keep_failed": "{{ lookup('config', 'HOST_KEY_CHECKING') }}, as told"}
    for environment, checked in (({}, "True"), ({"ANSIBLE_HOST_KEY_CHECKING": "False"}, "False")):
        with pytest.raises(SliceError, match=f"slices_keep_failed must be true or false, not '{checked}, as told'"):
            deploy("web", inventory=INVENTORY, project_dir=tmp_path, extra_vars=told, environment=environment)


def test_the_progress_bar_has_a_line_for_each_step_that_somebody_did() -> None:
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, width=100)) as bar:
        for event in (
            Event("Plan", 1),
            Event("Plan", 1, "localhost", "ok", 0.1),
            Event("Send", 2),
            Event("Send", 2, "worker1", "skipped"),
            Event("Start", 3),
            Event("Start", 3, "worker1", "changed", 0.1),
            Event("Start", 3, "worker2", "failed", 0.1, "no [red] disk"),
        ):
            bar(event)
    shown = screen.getvalue()
    assert "worker2: no [red] disk" in shown
    assert "Plan" in shown and "1 host " in shown and "2 hosts" in shown and "Send" not in shown


def test_a_wheel_needs_nothing_but_ansible_runner(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT / "python"], check=True)
    [wheel] = tmp_path.glob("cloudrepo_slices-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        needs = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist")
        assert "cloudrepo_slices/py.typed" in archive.namelist()
    assert needs == ["ansible-runner>=2.4", "rich>=13; extra == 'progress'"]
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "installed", wheel], check=True)
    code = "import sys; sys.modules['rich'] = None; import cloudrepo_slices; print(cloudrepo_slices.__file__)"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.startswith(str(tmp_path / "installed"))
