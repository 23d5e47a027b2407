# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check a mapping that a user wrote against a role's argument specification.

Ansible's own validator does not say which list element an error is in, and knows no nearest key; a user of a
spec with thirty VMs needs both. The schema stays the one that ``ansible-doc -t role`` prints.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils._names import is_name
from ._text import printable, shortened

# What anybody writes a number for has fewer digits; more of them would not even print.
_MOST_DIGITS = 18
_ERROR_MAX = 1000


class SpecError(ValueError):
    """Something a user wrote is wrong; the message is one line and names the item.

    It may quote what was written, so whatever would control a terminal is escaped here, and its length is bounded.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(message), _ERROR_MAX))


def element_label(where: str, index: int, value: object) -> str:
    """How errors name an element of a list: ``vms[1] "db"``."""
    name = value.get("name") if isinstance(value, Mapping) else None
    # Only a name that may stand on a terminal; whatever else it is, the error says so itself.
    return f'{where}[{index}] "{name}"' if is_name(name) else f"{where}[{index}]"


def check_options(value: object, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``value`` with every option of the schema present: converted, defaulted, or None.

    Args:
        value: what the user wrote.
        options: the ``options`` of an argument specification.
        where: the label of ``value`` in errors, e.g. ``links[0]``.

    Raises:
        SpecError: an unknown key, a missing or wrong value.
    """
    if not isinstance(value, Mapping):
        raise SpecError(f"{where}: must be a mapping with the keys {', '.join(options)}, not {_shown(value)}")
    for key in value:
        if key not in options:
            raise SpecError(f"{where}: unknown key {_shown(key)}{_suggestion(str(key), list(options))}")
    checked: dict[str, Any] = {}
    for key, option in options.items():
        given = value.get(key)
        if given is None:
            if option.get("required"):
                raise SpecError(f'{where}: "{key}" is missing')
            given = option.get("default")
        checked[key] = None if given is None else _check_value(given, option, key, where)
    return checked


def _check_value(value: object, option: Mapping[str, Any], key: str, where: str) -> Any:
    kind = option.get("type", "str")
    label = f"{where}: {key}"
    if kind == "list":
        return _check_list(value, option, key, where)
    if kind == "dict" and "options" in option:
        return check_options(value, option["options"], key if where == "slice" else label)
    converted = _SCALARS[kind](value, label)
    if "choices" in option and converted not in option["choices"]:
        choices = option["choices"]
        raise SpecError(f"{label} must be one of {', '.join(choices)}, not {_shown(value)}")
    return converted


def _check_list(value: object, option: Mapping[str, Any], key: str, where: str) -> list[Any]:
    label = key if where == "slice" else f"{where}: {key}"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SpecError(f"{label} must be a list, not {_shown(value)}")
    if option.get("elements") == "dict":
        return [
            check_options(element, option["options"], element_label(label, index, element))
            for index, element in enumerate(value)
        ]
    convert = _SCALARS[option.get("elements", "str")]
    return [convert(element, f"{label}[{index}]") for index, element in enumerate(value)]


def _text(value: object, label: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{label} must be text, not {_shown(value)} (put it in quotes)")
    return str(value)


def _integer(value: object, label: str) -> int:
    # A survey or `-e key=value` sends numbers as text; a boolean is an int to Python and to no user.
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS
    is_digits = isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()
    if not is_number and not (is_digits and len(str(value)) <= _MOST_DIGITS):
        raise SpecError(f"{label} must be a whole number, not {_shown(value)}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _number(value: object, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise SpecError(f"{label} must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SpecError(f"{label} must be a number, not {_shown(value)}")
    return int(number) if number.is_integer() else number


def _truth(value: object, label: str) -> bool:
    try:
        return bool(boolean(value))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError):
        raise SpecError(f"{label} must be true or false, not {_shown(value)}") from None


def _mapping(value: object, label: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{label} must be a mapping, not {_shown(value)}")
    return dict(value)


_SCALARS: dict[str, Callable[[object, str], Any]] = {
    "str": _text,
    "path": _text,
    "dict": _mapping,
    "int": _integer,
    "float": _number,
    "bool": _truth,
}


def _suggestion(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else f" (known are {', '.join(known)})"


def _shown(value: object) -> str:
    """A short one-line form of a value for an error."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"a number of more than {_MOST_DIGITS} digits"
    return shortened(repr(str(value)) if isinstance(value, str) else str(value), 60)
