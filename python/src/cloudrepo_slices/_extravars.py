# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extra variables as Ansible reads them from a file. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any


def render(variables: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A YAML mapping of both; ``data`` wins.

    Templates in ``variables`` are evaluated, as with ``ansible-playbook -e``. A spec may come from a stranger, and a
    template could run commands: the strings of ``data`` are what they are.
    """
    rendered = {name: _yaml(value, "") for name, value in variables.items()}
    rendered |= {name: _yaml(value, "!unsafe ") for name, value in data.items()}
    return "{%s}\n" % ", ".join(f"{_quoted(name)}: {text}" for name, text in rendered.items())


def _yaml(value: Any, tag: str) -> str:
    match value:
        case os.PathLike():
            return tag + _quoted(os.fspath(value))
        case str():
            return tag + _quoted(value)
        case Mapping():
            return "{%s}" % ", ".join(f"{_quoted(str(key))}: {_yaml(item, tag)}" for key, item in value.items())
        case Sequence() if not isinstance(value, bytes | bytearray):
            return "[%s]" % ", ".join(_yaml(item, tag) for item in value)
    return json.dumps(value, allow_nan=False)


def _quoted(text: str) -> str:
    """A double-quoted scalar. JSON's own would be read differently outside the basic plane."""
    return '"%s"' % "".join(sign if _is_plain(sign) else f"\\U{ord(sign):08x}" for sign in text)


def _is_plain(sign: str) -> bool:
    return sign.isascii() and sign.isprintable() and sign not in '"\\'
