# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether whoever called the module still waits for its answer.

A module goes on when the run that started it was killed, and what it does then comes after what the next run did.
"""

from __future__ import annotations

import select

_STDOUT = 1


class CallerGoneError(OSError):
    """Nobody waits for an answer any more."""


def refuse_if_gone() -> None:
    """Go no further if the connection that the answer would be sent through was closed.

    Raises:
        CallerGoneError: it was.
    """
    poller = select.poll()
    poller.register(_STDOUT, 0)  # Errors and hang-ups are told unasked.
    if any(event & (select.POLLERR | select.POLLHUP) for _descriptor, event in poller.poll(0)):
        raise CallerGoneError("the run that asked for this is gone")
