# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that users choose, checked before anything is touched."""

from __future__ import annotations

import re

NAME_MAX = 32
NAME_RULE = "1 to %d lower-case letters, digits and hyphens, starting and ending with a letter or digit" % NAME_MAX
OWNER_RULE = "1 to 150 ASCII letters, digits or any of _ . @ + -"
PATH_RULE = "an absolute path without control characters"
IFNAME_MAX = 15

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_OWNER = re.compile(r"[A-Za-z0-9_.@+-]{1,150}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_IFNAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")


def is_name(value: object) -> bool:
    """Whether ``value`` may name a slice, a VM or a link: a DNS label of at most 32 characters."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_file_name(value: object) -> bool:
    """Whether ``value`` is a plain file name: no folder, no leading dot, nothing a tool would interpret."""
    return isinstance(value, str) and _FILE.fullmatch(value) is not None


def is_owner(value: object) -> bool:
    """Whether ``value`` may own a slice: a login, an AWX user or an e-mail address. No two of them look the same."""
    return isinstance(value, str) and _OWNER.fullmatch(value) is not None


def is_path(value: object) -> bool:
    """Whether ``value`` names one file or folder, whoever reads it."""
    return isinstance(value, str) and value.startswith("/") and value.isprintable()


def is_interface_name(value: object) -> bool:
    """Whether ``value`` may name a network interface or an Open vSwitch port."""
    return isinstance(value, str) and _IFNAME.fullmatch(value) is not None
