# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

ASK = """
import sys
from ansible_collections.cloudrepo.slices.plugins.module_utils._caller import refuse_if_gone
sys.stdin.readline()
try:
    refuse_if_gone()
except OSError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_closed_connection_is_noticed(kind: str, gone: bool) -> None:
    if kind == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = (end.detach() for end in socket.socketpair())
    with subprocess.Popen(
        [sys.executable, "-c", ASK],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as process:
        os.close(theirs)
        if gone:
            os.close(ours)
        assert ("is gone" in process.communicate("\n")[1]) is gone
    if not gone:
        os.close(ours)
