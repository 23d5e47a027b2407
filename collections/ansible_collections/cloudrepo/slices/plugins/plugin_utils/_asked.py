# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of a run said when they were asked what they have, and the registry's host what that has. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._text import printable

# In which variable ``slice_host_info`` is registered.
ANSWERS = "slices_host_info"
_MOST_NAMED = 5


class AskedError(Exception):
    """What the hosts said leaves something unknown, or is a contradiction. The message is one line."""


def answer(hostvars: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """What a host said; empty if it was not asked. Of what it says as JSON text, only the registry still is some."""
    return answer_in(hostvars[host]) if host in hostvars else {}


def answer_in(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same from the host's variables, which Ansible puts together whenever they are asked for."""
    said = dict(variables.get(ANSWERS) or {})
    if "vms" in said:
        said["vms"] = json.loads(said["vms"])
    if "host" in said:
        said["host"] = {**said["host"], "stamps": json.loads(said["host"]["stamps"])}
    return said


def registry_answer(hostvars: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """What the host that the registry is reached from said, with ``registry`` and ``workers``.

    Raises:
        AskedError: it said nothing of a registry.
    """
    said = answer(hostvars, host)
    if "registry" not in said:
        why = said.get("msg", "is not part of this run (--limit?)")
        raise AskedError(printable(f"registry on {host}: {' '.join(str(why).split())}"))
    return said


def refuse_forgotten(registry: Mapping[str, Any], sought: str | None, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Expect no host to carry what the registry has forgotten.

    That is what has a number which the registry has not given out yet, or belongs to a slice that it does not know.

    Args:
        registry: what it has now; a slice may have been made while the hosts were asked.
        sought: the slice in question. None for any.
        answers: by host.

    Raises:
        AskedError: something is carried, and was it lost?
    """
    found = [
        f"{stamp['name']} (ID {stamp['id']}) on {host}"
        for host, said in answers.items()
        for stamp in _forgotten(registry, sought, said.get("host", {}).get("stamps", ()))
    ]
    if found:
        raise AskedError(
            printable(
                f"The registry does not know {f'slice {sought}' if sought else 'any slice'}, but there is "
                f"{', '.join(found[:_MOST_NAMED])}{' and more' if len(found) > _MOST_NAMED else ''}: "
                "run the playbook rebuild_registry if the registry was lost, or else audit_slices"
            )
        )


def _forgotten(
    registry: Mapping[str, Any], sought: str | None, stamps: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    unknown = {sought} - {record["name"] for record in registry["slices"]}
    for stamp in stamps:
        if stamp["id"] >= registry["next_id"] or (stamp["slice"] and stamp["slice"] in unknown):
            yield stamp
