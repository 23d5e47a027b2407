# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The package netaddr, which a controller may lack."""

from __future__ import annotations

from ._schema import SpecError

try:
    from netaddr import AddrFormatError, IPNetwork
except ImportError:
    AddrFormatError = IPNetwork = None  # type: ignore[assignment, misc]

__all__ = ["AddrFormatError", "IPNetwork", "require_netaddr"]


def require_netaddr() -> None:
    """Say what to install, instead of failing somewhere in the middle of a plan.

    Raises:
        SpecError: netaddr is missing.
    """
    if IPNetwork is None:
        raise SpecError("the Python package netaddr is missing on the controller (pip install netaddr)")
