# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command inside the lab without SSH to its hosts.

lab_run.py HOST COMMAND...                 as root in a host (worker1..3, network1, internet)
lab_run.py HOST/NAMESPACE COMMAND...       in a network namespace of a host, with the machine's own files
lab_run.py HOST/NAMESPACE ssh:ADDRESS COMMAND...   as root in the guest at that address, with the lab's key
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

LAB = Path(os.environ.get("LAB_DIR", "/var/lib/cloudrepo-lab"))
KEY = Path(os.environ.get("LAB_CACHE_DIR", "/var/cache/cloudrepo-lab"), "id_ed25519")
OPTIONS = """
    BatchMode=yes ConnectTimeout=10 GlobalKnownHostsFile=/dev/null IdentitiesOnly=yes IdentityAgent=none LogLevel=ERROR
    StrictHostKeyChecking=no UserKnownHostsFile=/dev/null
""".split()
GUEST_SSH = ["ssh", "-F", "none", "-l", "root", "-i", str(KEY), *("-o" + option for option in OPTIONS)]


def command(place: str, rest: list[str]) -> list[str]:
    host, slash, namespace = place.partition("/")
    try:
        pid = json.loads((LAB / "state.json").read_text())["hosts"][host]["pid"]
    except FileNotFoundError:
        sys.exit("the lab is down")
    except KeyError:
        sys.exit(f"the lab has no host {host!r}")
    if not slash:
        return ["nsenter", "--target", str(pid), "--all", *rest]
    enter = ["nsenter", f"--net=/proc/{pid}/root/run/netns/{namespace}"]
    if rest[0].startswith("ssh:"):
        return [*enter, *GUEST_SSH, rest[0].removeprefix("ssh:"), "--", *rest[1:]]
    return [*enter, *rest]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    argv = command(sys.argv[1], sys.argv[2:])
    os.execvp(argv[0], argv)
