# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls: each one is a run of one of the collection's playbooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from ._play import Options, play
from .results import AuditResult, Result, ShowResult, SliceResult, read_audit, read_slice


def deploy(spec_or_name: str | Mapping[str, Any], **options: Unpack[Options]) -> SliceResult:
    """Bring a slice to what its spec says.

    Args:
        spec_or_name: the spec, or the name of the slice whose spec is ``slices/NAME.yml`` beside the inventory.
        **options: see ``Options``.

    Raises:
        SliceError: it failed.
    """
    return _planned("deploy_slice", spec_or_name, options)


def design(spec_or_name: str | Mapping[str, Any], **options: Unpack[Options]) -> SliceResult:
    """Reserve the numbers of a slice, and start nothing. Takes and raises what ``deploy`` does."""
    return _planned("design_slice", spec_or_name, options)


def delete(name: str, **options: Unpack[Options]) -> Result:
    """Remove a slice. One that isn't there is no error: ``changed`` is False then.

    Raises:
        SliceError: it failed.
    """
    return play("delete_slice", {"slice": name}, options).check().result


def show(name: str | None = None, **options: Unpack[Options]) -> ShowResult:
    """All slices, or the one with this name.

    Raises:
        SliceError: it failed, or there is no such slice.
    """
    played = play("show_slices", _named(name), options).check()
    return ShowResult(**vars(played.result), slices=tuple(map(read_slice, played.data["slices"])))


def audit(
    name: str | None = None, *, probe: bool = False, remove_orphans: bool = False, **options: Unpack[Options]
) -> AuditResult:
    """In what hosts and registry differ, of all slices or of one. That something is off is no error.

    Args:
        name: the slice.
        probe: also prove by packets which links pass.
        remove_orphans: remove what belongs to no slice.
        **options: see ``Options``.

    Raises:
        SliceError: it could not be told.
    """
    played = play("audit_slices", {**_named(name), "probe": probe, "remove_orphans": remove_orphans}, options)
    if "audit" not in played.data:
        raise played.error()
    return read_audit(played.data["audit"], played.result)


def _planned(playbook: str, spec_or_name: str | Mapping[str, Any], options: Options) -> SliceResult:
    wanted = {"slice": spec_or_name} if isinstance(spec_or_name, str) else {"slice_spec": spec_or_name}
    played = play(playbook, wanted, options).check()
    return SliceResult(**vars(played.result), slice=read_slice(played.data["slices"][0]))


def _named(name: str | None) -> dict[str, str]:
    return {} if name is None else {"slice": name}
