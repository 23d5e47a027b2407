"""What a question of a survey has to be. AWX checks some of it, and lets the rest through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DEFAULTS: dict[str, type] = {"text": str, "textarea": str, "multiplechoice": str, "integer": int}
_NEEDED = {"question_name": str, "variable": str, "type": str, "required": bool}
_KEYS = {*_NEEDED, "question_description", "default", "min", "max", "choices"}
_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")


def problems(question: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a question; nothing, if it is sound."""
    found = [f"unknown key {key}" for key in sorted(question.keys() - _KEYS)]
    found += [f"{key} is missing or of a wrong type" for key in _NEEDED if type(question.get(key)) is not _NEEDED[key]]
    if question.get("type") not in _DEFAULTS:
        found.append("type is none that we use")
    if found:
        return found
    if not question["question_name"] or not _VARIABLE.fullmatch(question["variable"]):
        found.append("question_name or variable is no name")
    found += _limit_problems(question) + _choice_problems(question)
    return found or _default_problems(question)


def _limit_problems(question: Mapping[str, Any]) -> list[str]:
    limits = [question[key] for key in ("min", "max") if key in question]
    if question["type"] == "multiplechoice":
        return ["a choice has no limits"] * bool(limits)
    if any(type(limit) is not int for limit in limits):
        return ["a limit is no integer"]
    return ["the least is above the most"] * (limits != sorted(limits))


def _choice_problems(question: Mapping[str, Any]) -> list[str]:
    choices = question.get("choices")
    if question["type"] != "multiplechoice":
        return ["choices, but no choice"] * (choices is not None)
    # As one text, a default that is a part of it would do for AWX.
    sound = isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices)
    return [] if sound else ["choices are no list of texts"]


def _default_problems(question: Mapping[str, Any]) -> list[str]:
    if "default" not in question:
        return []
    default, kind = question["default"], question["type"]
    if question["required"]:
        return ["a required question's default is never used"]
    if type(default) is not _DEFAULTS[kind]:
        return ["the default is of a wrong type"]
    if kind == "multiplechoice":
        return ["the default is no choice"] * (default not in question["choices"])
    size = default if isinstance(default, int) else len(str(default))
    if size < question.get("min", size) or size > question.get("max", size):
        return ["the default is outside its limits"]
    return []
