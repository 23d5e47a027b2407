# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have a host carry its share of a slice, in the quickest way that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.validation import check_type_dict
from ansible.plugins.action import ActionBase
from ansible_collections.cloudrepo.slices.plugins.module_utils import _ensure_host
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._call import Module, call

MODULE = Module("slice_host", _ensure_host, suboptions={"share": _ensure_host.SHARE})


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if args.get("vnc_passwords"):
            args["vnc_passwords"] = own_passwords(args["vnc_passwords"], args.get("share"))
        return call(self, MODULE, args, task_vars or {})


def own_passwords(passwords: Any, share: Any) -> dict[str, str]:
    """The passwords of a share's own VMs: a host is not sent those of others. Both are whatever is taken for a dict.

    Raises:
        AnsibleActionFail: either is not. That it is the module's to refuse is no reason to send it secrets.
    """
    try:
        known: Mapping[str, str] = check_type_dict(passwords)
        names = [vm["name"] for vm in check_type_dict(share or {}).get("vms") or []]
        return {name: known[name] for name in names if name in known}
    except (TypeError, KeyError, AttributeError):
        raise AnsibleActionFail("slice_host: share or vnc_passwords is no dict that a plan could have") from None
