# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module that makes something what it should be does around it: errors, warnings and the answer."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.cloudrepo.slices.plugins.module_utils._items import ItemError
from ansible_collections.cloudrepo.slices.plugins.module_utils._names import NAME_RULE, is_name
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError

Result = Dict[str, Any]
# From a module's options and whether it is in check mode to its result, which has ``msg`` if a part of it failed.
Ensure = Callable[[Mapping[str, Any], bool], Result]

ERRORS = (CommandError, ItemError, OSError, ValueError)


def check_slice(name: str) -> None:
    """Refuse a slice's name that is none, before it becomes part of a path.

    Raises:
        ValueError: it is not.
    """
    if not is_name(name):
        raise ValueError('slice "%s": the name must be %s' % (name, NAME_RULE))


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
    """Do it and answer. What is ``pending`` is a warning, too."""
    try:
        result = ensure(module.params, module.check_mode)
    except ERRORS as error:
        module.fail_json(msg=str(error))
    for text in result.get("pending", []):
        module.warn(text)
    if not module._diff:
        result.pop("diff", None)  # Of many resources it is long, and nobody looks at it.
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)
