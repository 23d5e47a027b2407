# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read YAML that a user wrote. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from ._schema import SpecError


class _Loader(yaml.SafeLoader):
    """Plain YAML in which no key may stand twice: the first one would be lost in silence, and with it a VM."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _value in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f'the key "{key}" stands twice', node.start_mark)
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str, label: str) -> object:
    """The value of a YAML text.

    Raises:
        SpecError: it is no YAML; one line that names the source and where in it.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise SpecError(f"{label} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        # A date that does not exist is a ValueError.
        raise SpecError(f"{label} is not YAML: {' '.join(str(error).split())}") from None
