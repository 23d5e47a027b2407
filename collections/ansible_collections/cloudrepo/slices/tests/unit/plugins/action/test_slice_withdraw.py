# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The slice that is to be deleted is not in the registry, but on hosts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.cloudrepo.slices.plugins.action import slice_withdraw

WORKERS = [f"worker{number}" for number in range(1, 9)]


def test_what_the_registry_has_forgotten_is_named_in_the_order_of_the_play(monkeypatch: pytest.MonkeyPatch) -> None:
    now: dict[str, Any] = {"registry": {"slices": [], "next_id": 1000}}
    monkeypatch.setattr(slice_withdraw, "ask_registry", lambda *_asked: now)
    said: dict[str, dict[str, Any]] = {
        name: {"host": {"stamps": json.dumps([{"name": f"VM web/{name}", "id": 1002, "slice": "web"}])}}
        for name in WORKERS
    }
    said["network1"] = {"registry": json.dumps({"slices": []}), "workers": {}}
    task = SimpleNamespace(
        args={"slice": "web", "registry_path": "/r", "registry_host": "network1"},
        async_val=0,
        check_mode=False,
        diff=False,
        action="slice_withdraw",
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
    named = ", ".join(rf"VM web/{name} \(ID 1002\) on {name}" for name in WORKERS[:5])
    with pytest.raises(AnsibleActionFail, match=f"there is {named} and more"):
        slice_withdraw.ActionModule(task, connection, None, None, None, None).run(
            None,
            {
                "groups": {"workers": WORKERS, "network_node": ["network1"]},
                "hostvars": {host: {"slices_host_info": answer} for host, answer in said.items()},
                "ansible_play_hosts_all": [*WORKERS, "network1"],
            },
        )
