# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that runs a command on a managed host."""

from __future__ import annotations

import os
import subprocess
from typing import List, Optional, Sequence


class CommandError(Exception):
    """A command that could not be started or ended with a status other than zero.

    Attributes:
        argv: the argument list.
        rc: the exit status; 127 if the program is not installed, 124 if it ran out of time.
        stderr: what it printed on standard error, stripped.
    """

    def __init__(self, argv: Sequence[str], rc: int, stderr: str) -> None:
        self.argv: List[str] = list(argv)
        self.rc = rc
        self.stderr = stderr.strip()
        # Multi-word tools are told apart by their subcommand: "qemu-img create", "ip netns".
        name = " ".join(word for word in self.argv[:2] if not word.startswith("-"))
        super().__init__("%s failed (rc=%d): %s" % (name, rc, self.stderr))


def run(
    argv: Sequence[str],
    stdin: Optional[str] = None,
    timeout: float = 120.0,
) -> str:
    """Run a command without a shell and return its standard output.

    Args:
        argv: program and arguments.
        stdin: text for its standard input; nothing by default.
        timeout: seconds after which it is killed.

    Raises:
        CommandError: it is missing, failed, or took longer than ``timeout``.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
            encoding="utf-8",
            errors="replace",
            env=dict(os.environ, LC_ALL="C.UTF-8", PATH=_path()),
        )
    except FileNotFoundError as error:
        raise CommandError(argv, 127, "%s is not installed" % argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, 124, "no answer within %g seconds" % timeout) from error
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def _path() -> str:
    """PATH with the sbin folders, which an unprivileged login often lacks."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
