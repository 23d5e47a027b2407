# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of faults and outcomes, as Markdown."""

from __future__ import annotations

import datetime
import subprocess
from typing import Any

from .lab import ROOT
from .world import DELETE, DEPLOY

Row = dict[str, Any]
HEAD = ("fault", "scenario", "cases", "delete leaves nothing", "deploy again as before", "did not strike")


def commit() -> str:
    argv = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def render(rows: list[Row], number: int) -> str:
    rows = list({row["id"]: row for row in rows}.values())
    failed = [row for row in rows if row["problems"]]
    seconds = sum(row["seconds"] for row in rows)
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    lines = [
        "# Faults and their outcomes",
        "",
        f"{datetime.date.today()}, on {commits}: {len(rows)} of {number} cases in {seconds:.0f} s,"
        f" {len(rows) - len(failed)} hold, {len(failed)} do not. Made by `./bin/test --faults`.",
        "",
        "Every case ends with delete or with deploy. A cell has the cases that hold of those where the fault struck.",
        "In all of them the other slice on the same hosts kept its processes, its record and every reply to its pings;",
        "while the network node is rebooted, that is its ping on one link.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
    ]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["scenario"]), []).append(row)
    for (kind, scenario), group in sorted(groups.items()):
        cells = [kind, scenario, str(len(group)), held(group, DELETE), held(group, DEPLOY)]
        idle = sum(not row["struck"] for row in group)
        lines.append("| " + " | ".join([*cells, str(idle or "")]) + " |")
    if failed:
        lines += ["", "## What does not hold", ""]
        for row in failed:
            lines.append(f"- `{row['id']}`, then {row['aftermath']}: " + text(row["problems"]))
    return "\n".join(lines) + "\n"


def held(group: list[Row], aftermath: str) -> str:
    those = [row for row in group if row["aftermath"] == aftermath and row["struck"]]
    return f"{sum(not row['problems'] for row in those)}/{len(those)}" if those else ""


def text(problems: list[str]) -> str:
    short = " ".join(problems[0].split())[:300].replace("|", "\\|").replace("<", "&lt;")
    return short + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
