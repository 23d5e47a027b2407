# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is handed to Ansible is what Ansible reads, and nothing of a spec is evaluated."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import is_trusted_as_template
from cloudrepo_slices._extravars import render
from hypothesis import given
from hypothesis import strategies as st

TEXT = (
    st.text()
    | st.sampled_from(["1", "null", "yes", "<<", "!unsafe x", "{{ a }}", "#jinja2:"])
    | st.text("k", min_size=1025)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def read(text: str) -> Any:
    """As `ansible-playbook -e @file` reads it."""
    with NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        return DataLoader().load_from_file(  # type: ignore[no-untyped-call]
            file.name, trusted_as_template=True
        )


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in items for text in strings(item)]


@given(st.dictionaries(TEXT, VALUES, max_size=3), st.dictionaries(TEXT, VALUES, max_size=3))
def test_ansible_reads_what_was_written(variables: dict[str, Any], data: dict[str, Any]) -> None:
    assert read(render(variables, data)) == {**variables, **data}


@pytest.mark.parametrize(
    "template",
    [
        "{{ lookup('pipe', 'true') }}",
        "{% if 1 %}",
        "{# #}",
        "#jinja2:variable_start_string:'[[',variable_end_string:']]'\n[[ 1 ]]",
    ],
)
def test_only_variables_are_templates(template: str) -> None:
    loaded = read(render({"user": {"a": [template]}}, {"slice_spec": {"vms": [{"name": template}]}}))
    assert list(map(is_trusted_as_template, strings(loaded["user"]))) == [True]
    assert list(map(is_trusted_as_template, strings(loaded["slice_spec"]))) == [False]


def test_paths_tuples_and_what_is_no_data() -> None:
    assert read(render({"a": Path("/x/y"), "b": (1, 2.5)}, {})) == {"a": "/x/y", "b": [1, 2.5]}
    for wrong in (object(), float("nan"), b"bytes", "\ud800"):
        with pytest.raises((TypeError, ValueError)):
            render({}, {"a": wrong})
