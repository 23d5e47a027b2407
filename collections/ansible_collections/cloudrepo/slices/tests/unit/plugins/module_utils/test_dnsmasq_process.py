# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _dnsmasq_process
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import MODIFY, Action

from .test_dnsmasq import RECORDED, service

CONF = "/var/lib/cloudrepo/dnsmasq/web/dnsmasq.conf"


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        (["dnsmasq", f"--conf-file={CONF}", "--pid-file=/run/x"], True),
        (["/usr/sbin/dnsmasq", f"--conf-file={CONF}"], True),
        # The number was given to somebody else since.
        (["less", f"--conf-file={CONF}"], False),
        (["dnsmasq", f"--conf-file={CONF}.bak"], False),
        (["dnsmasq", "--conf-file=/var/lib/cloudrepo/dnsmasq/web2/dnsmasq.conf"], False),
        # A zombie.
        ([], False),
    ],
)
def test_a_process_is_known_by_its_configuration(tmp_path: Path, argv: list[str], ours: bool) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "cmdline").write_text("".join(word + "\0" for word in argv))

    assert _dnsmasq_process.is_dnsmasq(77, CONF, str(tmp_path)) is ours


def test_a_process_that_is_gone_is_not_ours(tmp_path: Path) -> None:
    assert not _dnsmasq_process.is_dnsmasq(77, CONF, str(tmp_path))


@pytest.fixture
def where(tmp_path: Path) -> _dnsmasq_process.Place:
    return _dnsmasq_process.Place(str(tmp_path / "web"), str(tmp_path / "web.pid"), "slice-1000")


@pytest.mark.parametrize("content", ["", "rubbish\n", "0\n", "-1\n", f"{os.getpid()}\n"])
def test_a_pidfile_alone_proves_nothing(where: _dnsmasq_process.Place, content: str) -> None:
    Path(where.pidfile).write_text(content)

    assert _dnsmasq_process.running_pid(where) is None
    assert _dnsmasq_process.observed(where, None) == {"process": {"running": False, "namespace": ""}}


def test_nothing_is_there_at_first(where: _dnsmasq_process.Place) -> None:
    assert _dnsmasq_process.observed(where, service()) == {}


def test_files_are_compared_with_owner_mode_and_content(where: _dnsmasq_process.Place) -> None:
    want = _dnsmasq_process.wanted(where, service())
    os.makedirs(where.folder, mode=0o700)
    for name, state in want.items():
        if "content" in state:
            Path(where.path(name)).write_text(state["content"])
            os.chmod(where.path(name), 0o600)
    os.chmod(where.path("hosts"), 0o644)

    have = _dnsmasq_process.observed(where, service())

    assert {name: (state["mode"], state["content"]) for name, state in have.items() if "content" in state} == {
        name: ("0644" if name == "hosts" else "0600", state["content"])
        for name, state in want.items()
        if "content" in state
    }
    assert have["folder"]["mode"] == "0700" != want["folder"]["mode"]


def test_stale_leases_are_seen(where: _dnsmasq_process.Place) -> None:
    os.makedirs(where.folder)
    Path(where.path("leases")).write_text(RECORDED)

    assert _dnsmasq_process.observed(where, service())["leases"]["stale"] == RECORDED.splitlines()[:1]
    assert _dnsmasq_process.wanted(where, service())["leases"]["stale"] == []


@pytest.mark.parametrize(
    ("names", "restart"),
    [
        (["hosts", "options", "names", "folder"], False),
        (["dnsmasq.conf"], True),
        (["leases"], True),
        (["process"], True),
    ],
)
def test_what_takes_a_restart(names: list[str], restart: bool) -> None:
    assert _dnsmasq_process.needs_restart([Action(MODIFY, name, {}, {}) for name in names]) is restart
