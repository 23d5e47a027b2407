# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run

# Reads all of its standard input, says it back, and ends as it is told.
_ECHO = (
    "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('no such disk\\n'); sys.exit(int(sys.argv[1]))"
)


def failure(*argv: str, timeout: float = 10.0) -> CommandError:
    with pytest.raises(CommandError) as raised:
        run(argv, timeout=timeout)
    return raised.value


def test_a_program_that_is_not_there_is_named() -> None:
    error = failure("no-such-program", "create", "-q")
    assert (error.rc, str(error)) == (127, "no-such-program create failed (rc=127): no-such-program is not installed")


def test_a_command_that_fails_says_why() -> None:
    error = failure(sys.executable, "-c", _ECHO, "3")
    assert (error.rc, error.stderr) == (3, "no such disk")
    assert str(error) == f"{sys.executable} failed (rc=3): no such disk"
    # Some programs complain on standard output.
    assert str(failure("sh", "-c", "echo busy; exit 1")) == "sh failed (rc=1): busy"


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    late = tmp_path / "late"
    error = failure(sys.executable, "-c", f"import time; time.sleep(1); open({str(late)!r}, 'w')", timeout=0.2)
    assert (error.rc, error.stderr) == (124, "no answer within 0.2 seconds")
    assert time.monotonic() - start < 0.9
    time.sleep(1)
    assert not late.exists()


def test_standard_input_is_what_is_given_or_nothing() -> None:
    assert run([sys.executable, "-c", _ECHO, "0"], stdin="zwölf\n") == "zwölf\n"
    assert run([sys.executable, "-c", _ECHO, "0"]) == ""


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    words = ["$HOME", "a b", f"; touch {tmp_path}/x", "*", "`id`"]
    assert run(["printf", "%s|", *words]) == "".join(f"{word}|" for word in words)
    assert list(tmp_path.iterdir()) == []


def test_programs_of_the_system_are_found_and_speak_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    locale, path = run(["sh", "-c", 'echo "$LC_ALL $PATH"']).split()
    assert locale == "C.UTF-8"
    assert path.split(":") == ["/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
