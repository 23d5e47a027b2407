# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module as Ansible runs it: its options checked, and its answer given through Ansible's own library."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.cloudrepo.slices.plugins.module_utils._answer import Ensure, answered


def validated(spec: Mapping[str, Any], params: Mapping[str, Any], what: str) -> Dict[str, Any]:
    """Options that are part of another one, with the types and defaults of their spec.

    Raises:
        ValueError: they do not fit it; ``what`` is how the message calls them.
    """
    validator: Any = ArgumentSpecValidator
    result = validator(spec).validate(dict(params))
    if result.error_messages:
        raise ValueError("%s: %s" % (what, "; ".join(result.error_messages)))
    return dict(result.validated_parameters)


def run(module: AnsibleModule, ensure: Ensure) -> None:
    """Do it and answer."""
    result = answered(ensure, module.params, module.check_mode, module._diff)
    for text in result.pop("warnings", []):
        module.warn(text)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)
