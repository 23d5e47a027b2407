# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What waits for what while disks, ports and VMs of a host are made side by side."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_host
from ansible_collections.cloudrepo.slices.plugins.module_utils._ensure_host import Step
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError

DONE = {"changed": True}
Ensure = Callable[..., dict[str, Any]]


def create(_params: Any, _check_mode: bool) -> dict[str, Any]:
    return DONE


def made(
    monkeypatch: pytest.MonkeyPatch, ports: Ensure, vms: Ensure, disks: Ensure = create, check_mode: bool = False
) -> dict[str, Any]:
    """What comes of three steps that do this."""
    modules = {"disks": disks, "ports": ports, "VMs": vms}
    todo = [Step(what, SimpleNamespace(ARGUMENTS={}, ensure=ensure), {}) for what, ensure in modules.items()]
    monkeypatch.setattr(_ensure_host, "steps", lambda _params: todo)
    return _ensure_host.ensure({}, check_mode)


def test_qemus_start_before_the_ports_are_done_and_guests_begin_after(monkeypatch: pytest.MonkeyPatch) -> None:
    started, order = Event(), []

    def ports(_params: Any, _check_mode: bool, prepared: Callable[[], None]) -> dict[str, Any]:
        prepared()
        assert started.wait(10)
        order.append("connected")
        return DONE

    def vms(_params: Any, _check_mode: bool, connected: Callable[[], None]) -> dict[str, Any]:
        order.append("started")
        started.set()
        connected()
        order.append("begun")
        return {**DONE, "vms": [{"name": "web"}]}

    result = made(monkeypatch, ports, vms)
    assert order == ["started", "connected", "begun"]
    assert "msg" not in result and result["vms"] == [{"name": "web"}]


@pytest.mark.parametrize("late", [True, False])
def test_no_guest_begins_without_its_ports(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they fail before QEMUs start or later, what went wrong with them is what is said."""
    started, begun = Event(), Event()

    def ports(_params: Any, _check_mode: bool, prepared: Callable[[], None]) -> dict[str, Any]:
        if late:
            prepared()
            assert started.wait(10)
        raise ItemError("ports[0]: no")

    def vms(_params: Any, _check_mode: bool, connected: Callable[[], None]) -> dict[str, Any]:
        started.set()
        connected()
        begun.set()
        return DONE

    result = made(monkeypatch, ports, vms)
    assert result["msg"] == "ports[0]: no"
    assert (started.is_set(), begun.is_set()) == (late, False)


def test_no_qemu_starts_and_no_port_changes_without_the_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Event()

    def disks(_params: Any, _check_mode: bool) -> dict[str, Any]:
        raise ItemError("overlays[0]: no")

    def ports(_params: Any, _check_mode: bool, prepared: Callable[[], None]) -> dict[str, Any]:
        prepared()
        changed.set()
        return DONE

    result = made(monkeypatch, ports, lambda *_never: pytest.fail("started"), disks)
    assert result["msg"] == "overlays[0]: no"
    assert not changed.is_set()


def test_what_is_only_predicted_is_so_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, lambda _params, _check_mode: DONE, lambda _params, _check_mode: DONE, check_mode=True)
