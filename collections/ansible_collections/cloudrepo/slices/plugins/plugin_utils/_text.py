# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text that may have come from anywhere, on its way to a terminal. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line in which whatever would control a terminal, or hide, is written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shortened(text: str, most: int) -> str:
    """The text, cut off where it is longer than ``most`` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."
