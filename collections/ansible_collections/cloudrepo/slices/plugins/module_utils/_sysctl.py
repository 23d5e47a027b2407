# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel settings of network devices, also of those in a named network namespace, without a process for each."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import IO, Dict, Iterable, Iterator, Mapping, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils._iproute import NETNS_DIR

# Of a kernel that has no IPv6 at all.
_WITHOUT_IPV6 = {"ipv6.disable_ipv6": 1}
_CLONE_NEWNET = 0x40000000


@contextmanager
def network_namespace(name: Optional[str]) -> Iterator[None]:
    """Let this thread work in a named network namespace; None is the one it is in."""
    if name is None:
        yield
        return
    with open("/proc/thread-self/ns/net", "rb") as home, open(os.path.join(NETNS_DIR, name), "rb") as target:
        _enter(target)
        try:
            yield
        finally:
            _enter(home)


def read(device: str, settings: Iterable[str]) -> Dict[str, int]:
    """Settings of a device such as ``ipv4.forwarding``, by name."""
    values = {}
    for setting in settings:
        if setting in _WITHOUT_IPV6 and not _has_ipv6():
            values[setting] = _WITHOUT_IPV6[setting]
            continue
        with open(_path(device, setting), encoding="ascii") as file:
            values[setting] = int(file.read())
    return values


def write(device: str, values: Mapping[str, int]) -> None:
    """Change settings of a device."""
    for setting, value in values.items():
        if setting in _WITHOUT_IPV6 and not _has_ipv6():
            continue
        with open(_path(device, setting), "w", encoding="ascii") as file:
            file.write("%d\n" % value)


def _path(device: str, setting: str) -> str:
    family, name = setting.split(".")
    return os.path.join("/proc/sys/net", family, "conf", device, name)


def _has_ipv6() -> bool:
    return os.path.exists("/proc/sys/net/ipv6/conf")


def _enter(namespace: IO[bytes]) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), namespace.name)
