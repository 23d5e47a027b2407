# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put together what the hosts' audits found, and tell it: as text or JSON, as JUnit XML, as statistics of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._audit import failure, is_unknown, merge, render
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._junit import junit
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._text import printable

display = Display()


class ActionModule(ActionBase):
    """Runs on the controller only."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "shares": {"type": "dict", "required": True},
                "shares_again": {"type": "dict", "required": True},
                "slice": {"type": "str"},
                "audited": {"type": "dict", "required": True},
                "probed": {"type": "dict", "default": {}},
                "removed": {"type": "dict", "default": {}},
                "remove": {"type": "bool", "default": False},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "junit": {"type": "path"},
            }
        )
        audit = merge(
            args["shares"],
            args["shares_again"],
            args["audited"],
            args["probed"],
            args["removed"],
            args["remove"],
            self._task.check_mode,
        )
        if is_unknown(audit, args["shares"], args["slice"]):
            return {"failed": True, "msg": printable(f"there is no slice {args['slice']}")}
        text = render(audit, self._task.check_mode)
        display.display(json.dumps({"audit": audit}, indent=2) if args["output"] == "json" else text)
        if args["junit"]:
            _write(Path(args["junit"]), junit(audit))
        return {
            "changed": False,
            "sound": audit["sound"],
            "failure": failure(audit["counts"]),
            # The form in which set_stats hands data to ansible-runner and AWX workflows.
            "ansible_stats": {"data": {"audit": audit}, "per_host": False, "aggregate": False},
        }


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AnsibleActionFail(f"junit: {error}") from error
