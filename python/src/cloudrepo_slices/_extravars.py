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

    Raises:
        TypeError: something in them is no data, such as an object of a class.
        ValueError: something in them is no number, or no text.
    """
    rendered = {name: _yaml(value, trusted=True) for name, value in variables.items()}
    return _mapping(rendered | {name: _yaml(value, trusted=False) for name, value in data.items()})


def _yaml(value: Any, trusted: bool) -> str:
    match value:
        case os.PathLike():
            return _scalar(os.fspath(value), trusted)
        case str():
            return _scalar(value, trusted)
        case Mapping():
            return _mapping({str(key): _yaml(item, trusted) for key, item in value.items()})
        case Sequence() if not isinstance(value, bytes | bytearray):
            return "[%s]" % ", ".join(_yaml(item, trusted) for item in value)
    return json.dumps(value, allow_nan=False)


def _mapping(rendered: Mapping[str, str]) -> str:
    """With explicit keys, as a key without a question mark has a greatest length."""
    return "{%s}" % ", ".join(f"? {_quoted(key)} : {value}" for key, value in rendered.items())


def _scalar(text: str, trusted: bool) -> str:
    """Whatever could be a template is tagged. Nothing else is: Ansible makes a number of a tagged ``"1"``."""
    return ("!unsafe " if not trusted and set("{#") & set(text) else "") + _quoted(text)


def _quoted(text: str) -> str:
    """A double-quoted scalar. JSON's own would be read differently outside the basic plane."""
    text.encode()  # Lone surrogates are no text.
    return '"%s"' % "".join(sign if _is_plain(sign) else f"\\U{ord(sign):08x}" for sign in text)


def _is_plain(sign: str) -> bool:
    return sign.isascii() and sign.isprintable() and sign not in '"\\'
