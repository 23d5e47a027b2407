# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure everything in the lab, and write the results: JSON, tables and a picture. ``bin/bench`` runs it."""

from __future__ import annotations

import argparse
import json
import subprocess
from datetime import date
from pathlib import Path

from . import lab, measure
from .report import goal_table, markdown, svg, with_figures
from .rings import Record

DOCS = lab.ROOT / "collections/ansible_collections/cloudrepo/slices/docs/benchmarks"
README = lab.ROOT / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs, up to 12 VMs; the results stay in .cache/bench")
    parser.add_argument("--load", type=float, required=True, help="of the machine before the lab came up")
    options = parser.parse_args()
    quick = options.quick
    # Others at work show in every figure.
    known = {"quick": quick, "load": options.load, "date": date.today().isoformat(), "commit": _commit()}
    results = measured_quickly() if quick else measured()
    results |= {**known, "machine": measure.machine()}
    write(results, lab.CACHE if quick else DOCS)
    if not quick:
        README.write_text(with_figures(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(f"\n{markdown(results)}\n{goal_table(results)}")


def measured() -> Record:
    return _measured(counts=(3, 12, 30, 100), runs=5, loop_counts=(12, 30), loop_runs=5)


def measured_quickly() -> Record:
    return _measured(counts=(3, 12), runs=2, loop_counts=(12,), loop_runs=1)


def _measured(counts: tuple[int, ...], runs: int, loop_counts: tuple[int, ...], loop_runs: int) -> Record:
    results: Record = {"planner": measure.planner(runs)}
    measure.prepare(counts)
    try:
        results["times"] = measure.rings(counts, runs, loop_counts, loop_runs)
        results["memory"] = measure.controller_memory(max(counts), runs)
        results["images"] = measure.images(runs)
    finally:
        measure.clean(counts)
    return results


def write(results: Record, folder: Path) -> None:
    """The data, and what is made from it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(f"{markdown(results)}\n{goal_table(results)}", encoding="utf-8")
    (folder / "deploy.svg").write_text(svg(results), encoding="utf-8")


def _commit() -> str:
    describe = ["git", "-C", str(lab.ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(describe, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
