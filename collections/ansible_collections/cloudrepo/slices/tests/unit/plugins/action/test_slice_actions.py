# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure parts of the actions that read specs, collect hosts and report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.cloudrepo.slices.plugins.action import slice_registry
from ansible_collections.cloudrepo.slices.plugins.action.slice_host import own_passwords
from ansible_collections.cloudrepo.slices.plugins.action.slice_plan import host_facts, lacking_images, planned
from ansible_collections.cloudrepo.slices.plugins.action.slice_rebuild import host_stamps
from ansible_collections.cloudrepo.slices.plugins.action.slice_registry import ask_registry
from ansible_collections.cloudrepo.slices.plugins.action.slice_report import with_passwords, with_processes
from ansible_collections.cloudrepo.slices.plugins.action.slice_spec import check_switches, read_spec
from ansible_collections.cloudrepo.slices.plugins.action.slice_withdraw import Holders, holders, refuse_incomplete
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._asked import (
    AskedError,
    refuse_forgotten,
    registry_answer,
)
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._inventory import check_groups
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._rebuild import RebuildError
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._report import render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._schema import SpecError

from ..plugin_utils.clusters import WEB, make_plan


def read(folder: Path | None = None, **args: Any) -> dict[str, Any]:
    return read_spec({"slice": None, "slice_spec": None, **args}, folder)


def test_a_spec_is_read_from_its_file_and_gets_its_name(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("owner: alice\n", encoding="utf-8")
    assert read(tmp_path, slice="web") == {"name": "web", "owner": "alice"}


def test_an_inline_spec_is_a_mapping_or_yaml_text() -> None:
    assert read(slice_spec={"name": "web"}) == read(slice_spec="name: web") == {"name": "web"}
    assert read(slice_spec="{}", slice="web") == {"name": "web"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "which slice"),
        ({"slice": "../etc/passwd"}, "must be 1 to 32"),
        ({"slice": "red"}, "slice red: there is no spec .*red.yml .there are: web"),
        ({"slice_spec": "owner: 2024-13-45"}, "slice_spec is not YAML: month must be in"),
        ({"slice_spec": "[" * 3000}, "slice_spec is nested too deeply"),
        ({"slice_spec": "name: a\nvms: [x]\nvms: [y]"}, 'slice_spec is not YAML: the key "vms" stands twice.*line 1'),
        ({"slice_spec": "owner: x"}, "the name is missing"),
        ({"slice_spec": {"name": "red"}, "slice": "blue"}, 'name "red" differs from -e slice "blue"'),
    ],
)
def test_what_is_no_spec_is_said_in_one_line(args: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("{}", encoding="utf-8")
    with pytest.raises(SpecError, match=message) as caught:
        read(tmp_path, **args)
    assert "\n" not in str(caught.value)


def test_an_inventory_needs_workers_and_network_nodes() -> None:
    check_groups({"workers": ["w"], "network_node": ["w"]})
    check_groups({"workers": ["w"], "network_node": ["n", "m"]})
    with pytest.raises(SpecError, match="no host in the group workers"):
        check_groups({"workers": [], "network_node": ["n"]})
    with pytest.raises(SpecError, match="no host in the group network_node"):
        check_groups({"workers": ["w"], "network_node": []})


def test_every_play_reaches_the_registry_s_host() -> None:
    groups = {"workers": ["w"], "network_node": ["n"], "others": ["bastion"]}
    for host in ("", "w", "n", "localhost"):
        check_groups(groups, host)
    with pytest.raises(SpecError, match="slices_registry_host is bastion, and must be"):
        check_groups(groups, "bastion")


# Of a host that lacks nothing and carries nothing.
BARE = {"missing": [], "wrong": [], "stamps": "[]"}


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (None, "is not part of this run"),
        ({"unreachable": True, "msg": "x"}, "is unreachable"),
        ({"failed": True, "msg": "no sudo"}, "can't be used: no sudo"),
        ({"host": {**BARE, "missing": ["qemu-img is not installed"]}}, "is not prepared: qemu-img is not installed"),
        ({"host": {**BARE, "wrong": ["slices_vnc_listen is x"]}}, "set for it: slices_vnc_listen is x"),
        ({"host": {**BARE, "cores": 2}}, ""),
    ],
)
def test_why_a_host_takes_no_vms(info: dict[str, Any] | None, problem: str) -> None:
    hostvars = {"w": {"ansible_host": "10.0.0.1", **({"slices_host_info": info} if info else {})}}
    facts = host_facts("w", {"hostvars": hostvars})
    assert facts["address"] == "10.0.0.1"
    assert problem in facts["problem"] and bool(problem) == bool(facts["problem"])


def test_which_worker_lacks_which_images() -> None:
    def share(*images: str) -> dict[str, Any]:
        return {"overlays": [{"image": image} for image in images]}

    hosts = {"w1": share("b.img", "a.img", "b.img"), "w2": share("a.img"), "w3": share("a.img"), "node": share()}
    workers = [{"name": "w1", "images": {"c.img": 1}}, {"name": "w2", "images": {"a.img": 1}}, {"name": "w3"}]
    assert lacking_images(hosts, workers) == {"w1": ["a.img", "b.img"], "w3": ["a.img"]}


def test_each_vm_gets_the_process_of_its_own_slice() -> None:
    record = make_plan(WEB)["slice"]
    found = [{"slice": "other", "name": "web", "pid": 7, "status": "running"}, {"slice": "web", "name": "db", "pid": 8}]
    (shown,) = with_processes([record], found)
    assert [vm["pid"] for vm in shown["vms"]] == [None, 8]
    # A module that works on one slice does not name it.
    (shown,) = with_processes([record], [{"name": "web", "pid": 9}])
    assert [vm["pid"] for vm in shown["vms"]] == [9, None]


def test_passwords_are_in_what_is_printed_and_not_in_what_is_returned() -> None:
    records = with_processes([make_plan(WEB)["slice"]], [])
    shown = with_passwords(records, {"web": {"web": "kD3wZpT9"}, "other": {"db": "a7RtmQxE"}})
    assert [vm["vnc_password"] for vm in shown[0]["vms"]] == ["kD3wZpT9", None]
    assert "(VNC: 5901, Password: kD3wZpT9, Worker" in render(shown) and "(VNC: 5902, Worker" in render(shown)
    assert "vnc_password" not in str(records) and with_passwords(records, {}) == records


def test_a_vm_that_does_not_run_is_seen_in_the_text() -> None:
    record = {**make_plan(WEB)["slice"], "status": "running"}
    found = [{"slice": "web", "name": "web", "status": "running"}, {"slice": "web", "name": "db", "status": "stopped"}]
    text = render(with_processes([record], found))
    assert text.count("GB)\n") == 1 and "Disk: 2.2GB) [stopped]\n" in text


def test_a_failed_slice_says_why() -> None:
    record = {**make_plan(WEB)["slice"], "status": "failed", "reason": "worker1: disk full"}
    assert "\n  Reason: worker1: disk full\n" in render([record])
    assert render([]) == "No slices."
    assert render([record, record]).count("=" * 70) == 3


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (None, "host worker3 is not part of this run"),
        ({"unreachable": True, "msg": "no route"}, "host worker3 is unreachable"),
        ({"failed": True, "msg": "no ovs"}, "host worker3 can't be read: no ovs"),
    ],
)
def test_nothing_is_rebuilt_without_a_host_that_may_carry_something(info: Any, problem: str) -> None:
    with pytest.raises(RebuildError, match=problem):
        host_stamps("worker3", {"hostvars": {"worker3": {"slices_stamps": info}}})


def test_a_registry_write_that_was_killed_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # As ansible-core 2.19 returns it.
    killed = {
        "failed": True,
        "changed": False,
        "module_stdout": "",
        "module_stderr": "Killed\n",
        "rc": 137,
        "msg": "no JSON",
    }
    asked: list[Any] = []
    action: Any = SimpleNamespace(_templar=SimpleNamespace(template=lambda text: text))

    def ask(*answers: dict[str, Any]) -> dict[str, Any]:
        left = list(answers)
        monkeypatch.setattr(
            slice_registry, "call", lambda _action, _name, args, _vars: asked.append(args) or left.pop(0)
        )
        return ask_registry(action, {"state": "status"}, {})

    assert ask(killed, {"changed": True}) == {"changed": True}
    assert len(asked) == 2 and asked[0] == asked[1]
    assert ask(killed, killed) == killed


def test_a_switch_is_on_or_off() -> None:
    check_switches({"slices_keep_failed": "yes", "slices_allow_restart": False, "slices_nic_offload": 1})
    with pytest.raises(SpecError, match=r"^slices_keep_failed must be true or false, not 'ja'$"):
        check_switches({"slices_keep_failed": "ja"})


def test_a_refusal_counts_only_from_what_the_registry_has_now() -> None:
    """Another run reserved and began to build while the hosts were asked: the registry read first is behind them."""
    now = {"next_id": 1010}

    def plan_from(registry: dict[str, Any]) -> dict[str, Any]:
        if registry["next_id"] < 1005:
            raise AnsibleActionFail("the registry is behind its hosts")
        return registry

    assert planned(plan_from, {"next_id": 1000}, lambda: now) == now
    assert planned(plan_from, {"next_id": 1007}, lambda: now) == {"next_id": 1007}
    with pytest.raises(AnsibleActionFail, match="behind"):
        planned(plan_from, {"next_id": 1000}, lambda: {"next_id": 1001})
    with pytest.raises(AnsibleActionFail, match="behind"):
        planned(plan_from, None, lambda: {"next_id": 1001})


ANSWERS: dict[str, dict[str, Any]] = {
    "worker1": {"host": {}},
    "worker2": {"unreachable": True, "msg": "No route\n to host"},
    "network1": {"host": {}},
}


def test_who_has_something_of_a_slice_and_did_not_say_what() -> None:
    having = ["worker1", "worker2", "worker3", "worker1", "network1"]
    found = holders(having, ANSWERS, ANSWERS, [])
    assert found == Holders(["worker1", "network1"], ["worker2"], ["worker3"], ["worker2", "worker3"])
    # Those that are lost for good keep nobody from anything, and are still named.
    found = holders(having, ANSWERS, ANSWERS, ["worker2", "worker3", "worker9"])
    assert found == Holders(["worker1", "network1"], [], [], ["worker2", "worker3"])
    refuse_incomplete("web", found, ANSWERS)


def test_a_slice_of_which_a_host_says_nothing_is_not_deleted() -> None:
    with pytest.raises(AskedError, match=r"web has parts on worker3, not in this run \(removed.*--limit"):
        refuse_incomplete("web", holders(["worker2", "worker3"], ANSWERS, ANSWERS, []), ANSWERS)
    with pytest.raises(AskedError, match=r"web has parts on worker2.*nothing is deleted.*worker2: No route to host$"):
        refuse_incomplete("web", holders(["worker1", "worker2"], ANSWERS, ANSWERS, []), ANSWERS)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "is not part of this run (--limit?)"),
        ({"network1": {}}, "is not part of this run (--limit?)"),
        ({"network1": {"slices_host_info": {"unreachable": True, "msg": "no\n \x1b[1mroute"}}}, "no \\x1b[1mroute"),
    ],
)
def test_who_does_not_know_the_registry_says_why(said: dict[str, Any], why: str) -> None:
    with pytest.raises(AskedError) as caught:
        registry_answer(said, "network1")
    assert str(caught.value) == f"registry on network1: {why}"


def test_what_the_registry_has_forgotten_is_named() -> None:
    def stamp(name: str, number: int, of: str) -> dict[str, Any]:
        return {"name": name, "id": number, "slice": of}

    def refuse(sought: str | None, *stamps: dict[str, Any]) -> None:
        answers = {"worker1": {"host": {"stamps": stamps}}, "worker2": {"unreachable": True}}
        refuse_forgotten({"next_id": 1005, "slices": [{"name": "db"}]}, sought, answers)

    older, newer = stamp("VM web/a", 1002, "web"), stamp("VM web/b", 1005, "web")
    refuse(None, older, stamp("bridge br-int", 0, ""))
    refuse("db", older, stamp("VM db/a", 1001, "db"))  # Somebody has just made it.
    refuse("red", older)
    with pytest.raises(
        AskedError, match=r"^The registry does not know any slice, but there is VM web/b \(ID 1005\) on w"
    ):
        refuse(None, older, newer)
    with pytest.raises(
        AskedError, match=r"know slice web, but there is VM web/a \(ID 1002\) on worker1: run the playbook"
    ):
        refuse("web", older)
    with pytest.raises(
        AskedError, match=r"(VM web/b \(ID 1005\) on worker1, ){4}VM web/b \(ID 1005\) on worker1 and more: "
    ):
        refuse("web", *[newer] * 6)


SECRETS = {"web": "secret", "db": "hidden"}


@pytest.mark.parametrize("secrets", [SECRETS, '{"web": "secret", "db": "hidden"}', "web=secret, db=hidden"])
@pytest.mark.parametrize(
    "share", [{"vms": [{"name": "db"}, {"name": "app"}]}, '{"vms": [{"name": "db"}]}', "{'vms': [{'name': 'db'}]}"]
)
def test_a_host_gets_the_passwords_of_its_own_vms(secrets: Any, share: Any) -> None:
    """Whatever Ansible takes for a dict: a VM whose password got lost would be open to all."""
    assert own_passwords(secrets, share) == {"db": "hidden"}


@pytest.mark.parametrize("share", [None, {}, {"vms": []}, {"vms": None}])
def test_a_host_without_vms_gets_no_password(share: Any) -> None:
    assert own_passwords(SECRETS, share) == {}


@pytest.mark.parametrize("share", ["{", "[]", [1], {"vms": [{}]}, {"vms": [1]}])
def test_what_is_no_share_is_not_sent_any_password(share: Any) -> None:
    with pytest.raises(AnsibleActionFail, match=r"^slice_host: share or vnc_passwords is no dict") as caught:
        own_passwords(SECRETS, share)
    assert "secret" not in str(caught.value)
    with pytest.raises(AnsibleActionFail):
        own_passwords("no dict", {"vms": [{"name": "db"}]})


@pytest.mark.parametrize("first", ["slice_spec", "slice_host_info"])
def test_what_every_fork_of_a_run_needs_is_loaded_before_it_forks(first: str) -> None:
    """In a Python of its own, as in this one the tests have loaded it."""
    loads = f"import sys, ansible_collections.cloudrepo.slices.plugins.action.{first}"
    asks = "print(sorted(name for name in sys.modules if name.startswith('ansible.plugins.filter.')))"
    run = [sys.executable, "-c", f"{loads}; {asks}"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(run, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "ansible.plugins.filter.core" in said
