# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the controller's ``_call`` arrives on a host, with options that are checked, and needs nothing of Ansible's."""

from __future__ import annotations

import importlib
import json
import os
import sys
import syslog

from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import answered


def main(order: bytes) -> None:
    """Do what is ordered and print the answer, as one line of JSON."""
    wanted = json.loads(order)
    if wanted["log"]:
        syslog.openlog("ansible-%s" % sys.argv[1])
        syslog.syslog(wanted["log"])
    room = importlib.import_module("%s.%s" % (__package__, wanted["module"]))
    params = {**wanted["params"], **{option: _expanded(path) for option, path in wanted["paths"].items()}}
    answer = answered(getattr(room, wanted["function"]), params, wanted["check_mode"], wanted["diff"])
    sys.stdout.write("%s\n" % json.dumps(answer))
    sys.stdout.flush()
    raise SystemExit(1 if answer.get("failed") else 0)


def _expanded(path: str) -> str:
    """A path as Ansible's type of this name has it: by this host's variables, and its user's home."""
    return os.path.expanduser(os.path.expandvars(path))
