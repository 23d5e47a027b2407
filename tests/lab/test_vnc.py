# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets to see a screen: logins with the real protocol, and where its password is not."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

ROOT = Path(__file__).resolve().parents[2]
SPEC = {"name": "vnc", "vms": [{"name": "a", "flavor": "cirros", "worker": "worker1"}]}
OPEN = {"slices_vnc_listen": "{{ ansible_host }}", "slices_vnc_passwords": True}
NO_AUTHENTICATION, VNC_AUTHENTICATION = 1, 2


class Screen:
    """A login to a screen, RFB 3.8, as far as QEMU's answer to the password."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=30)
        self._file = self._socket.makefile("rb")
        assert self._file.read(12) == b"RFB 003.008\n"
        self._socket.sendall(b"RFB 003.008\n")
        self.security_types = list(self._file.read(self._file.read(1)[0]))

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        self._socket.close()

    def login(self, password: str) -> bool:
        self._socket.sendall(bytes([VNC_AUTHENTICATION]))
        challenge = self._file.read(16)
        # DES, with the bits of each byte of its key the other way round.
        key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode().ljust(8, b"\0"))
        encryptor = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()
        self._socket.sendall(encryptor.update(challenge))
        return self._file.read(4) == bytes(4)


@pytest.fixture
def delete(run_playbook: Any) -> Iterator[None]:
    yield
    deleted = run_playbook("delete_slice", slice="vnc")
    assert deleted.rc == 0, deleted.output


def shown(run_playbook: Any, **extra: Any) -> dict[str, Any]:
    """The VM as show_slices prints it."""
    output = run_playbook("show_slices", "-vvv", slice="vnc", output="json", **extra).output
    [record] = json.loads(output[output.index("\n{\n") : output.index("\n}\n") + 3])["slices"]
    vm = dict(record["vms"][0])
    if "vnc_password" in vm:
        assert output.count(vm["vnc_password"]) == 1  # Where it is shown, and nowhere else.
    return vm


def test_a_screen_without_a_password_is_open_to_nobody_else(run_playbook: Any, run_module: Any) -> None:
    refused = run_playbook("deploy_slice", slice_spec=SPEC, slices_vnc_listen="{{ ansible_host }}")
    assert refused.rc != 0 and refused.total("changed") == 0
    assert "worker1 can't do what is set for it: slices_vnc_listen is 10.0.10.1" in refused.output, refused.output
    # And without the role, before anything is touched.
    vm = {"name": "a", "id": 1001, "cores": 1, "memory_mb": 64, "vnc_port": 5999}
    result = run_module("worker1", "qemu_vm", {"slice": "vnc", "vms": [vm], "vnc_listen": "0.0.0.0"})
    assert result["failed"] and 'vms[0] "a": its screen would be open to others on 0.0.0.0' in result["msg"]
    folder = run_module("worker1", "ansible.builtin.stat", {"path": "/run/cloudrepo/vms/vnc"})
    assert not folder["stat"]["exists"]


@pytest.mark.usefixtures("delete")
def test_a_password_opens_the_screen_and_is_told_to_nobody(
    run_playbook: Any, run_module: Any, inventory: Path, tmp_path: Path
) -> None:
    def deploy(**extra: Any) -> Any:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        runner = ansible_runner.run(
            private_data_dir=str(folder),
            project_dir=str(ROOT / "playbooks"),
            playbook="deploy_slice.yml",
            inventory=str(inventory),
            extravars={"slice_spec": SPEC, **OPEN, **extra},
            cmdline="-vvv --diff",
            envvars={"ANSIBLE_CONFIG": str(ROOT / "playbooks" / "ansible.cfg")},
            quiet=True,
        )
        assert runner.rc == 0, runner.stdout.read()
        return runner, b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    _first, kept = deploy()
    again, kept_again = deploy()
    assert again.stats["changed"] == {}
    vm = shown(run_playbook, slices_show_passwords=True)
    password = vm["vnc_password"]
    assert len(password) == 8 and "vnc_password" not in shown(run_playbook)

    with Screen("10.0.10.1", vm["vnc_port"]) as screen:
        assert screen.security_types == [VNC_AUTHENTICATION]
        assert screen.login(password)
    with Screen("10.0.10.1", vm["vnc_port"]) as screen:
        assert not screen.login(password.swapcase())

    # Everything that ansible-runner keeps of both runs, all that runs on the worker, and all that is kept there of it.
    assert b"PLAY RECAP" in kept and password.encode() not in kept + kept_again
    search = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; cat /run/cloudrepo/vms/vnc/*/qemu.* "
    search += "/var/lib/cloudrepo/vm_images/vnc/*.json; journalctl --no-pager 2>/dev/null; true"
    found = run_module("worker1", "ansible.builtin.command", {"argv": ["sh", "-c", search]})["stdout"]
    assert '"vnc_password": true' in found and password not in found

    # What waits for a restart is said although the task is not logged.
    waiting, _kept = deploy(slices_nic_offload=True)
    assert "nic_offload False -> True needs a restart" in waiting.stdout.read()
