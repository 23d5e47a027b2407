# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as tables in Markdown and as a picture in SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .figures import NOTHING, Figure, Goal, Times, figure, goals, median, ratio

_NAMES = {
    "empty": "a play of nothing",
    "deploy": "deploy",
    "redeploy": "deploy again, nothing to do",
    "show": "show",
    "add": "one VM and link more",
    "delete": "delete",
}
_KINDS = ("floor", "ours", "loops")

_BEGIN, _END = "<!-- bin/bench writes from here -->", "<!-- to here -->"

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 44, 50
# A colour for each kind, chosen to be told apart on white and on black.
_COLOURS = {"floor": "#8a8f98", "ours": "#2f81f7"}
_DASHES = {"deploy": "", "delete": "6 4"}


def markdown(results: Mapping[str, Any]) -> str:
    """What was measured, and on which machine."""
    times = results["times"]
    rows = [_row(times, what, count) for what in _NAMES for count in _counts(times, what)]
    head = ("", "N", "floor", "ours", "loops", "ours : floor", "loops : ours")
    lines = [_machine(results), "", f"Seconds, medians of {_runs(times)}, with the least and the most:", ""]
    lines += _table(head, rows)
    return "".join(f"{line}\n" for line in lines)


def goal_table(results: Mapping[str, Any]) -> str:
    """Which goals are met: as they were set, and times in plays of nothing besides, as this machine is another."""
    nothing = median(results["times"], "ours", "empty", 0)
    rows = []
    for goal in goals(results):
        in_plays = _judged(goal.in_plays(nothing)) if nothing and goal.unit == "s" else ["", "", ""]
        rows.append([goal.text, *_judged(goal), *in_plays])
    head = ("goal", "measured", "limit", "", f"in plays of nothing, {NOTHING} s for the limits", "limit", "")
    about = (
        f"The goals were set on a machine on which a play of nothing takes {NOTHING} s. Whether they are met is "
        "said for seconds, and besides, where a machine's speed matters, for plays of nothing."
    )
    return "".join(f"{line}\n" for line in [about, "", *_table(head, rows)])


def with_figures(readme: str, results: Mapping[str, Any]) -> str:
    """The README with the new table in the place of the old one."""
    before, begin, rest = readme.partition(_BEGIN)
    _old, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the README has no {_BEGIN} and {_END}")
    return f"{before}{begin}\n{markdown(results)}\n{end}{after}"


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    kind = "a quick run, " if results["quick"] else ""
    return (
        f"{results['date']}, {kind}commit {results['commit']}: {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"accelerator {machine['accelerator']}, load {results['load']:.1f} before it began; {versions}."
    )


def _runs(times: Times) -> str:
    most = {kind: max(len(runs) for counts in times[kind].values() for runs in counts.values()) for kind in times}
    loops = f" (loops {most['loops']})" if most.get("loops", most["ours"]) != most["ours"] else ""
    return f"{most['ours']} runs{loops}"


def _counts(times: Times, what: str) -> list[int]:
    return sorted({count for kind in _KINDS for count in times.get(kind, {}).get(what, {})})


def _row(times: Times, what: str, count: int) -> list[str]:
    cells = [_cell(times.get(kind, {}).get(what, {}).get(count)) for kind in _KINDS]
    ratios = [ratio(times, what, count, *pair) for pair in (("ours", "floor"), ("loops", "ours"))]
    return [_NAMES[what], str(count), *cells, *("" if value is None else f"{value:.1f}" for value in ratios)]


def _cell(seconds: Sequence[float] | None) -> str:
    if not seconds:
        return ""
    found = figure(seconds)
    return f"{found.median:.1f} ({found.least:.1f}-{found.most:.1f})"


def _judged(goal: Goal) -> list[str]:
    sign = "≥" if goal.at_least else "≤"
    met = "met" if goal.met else "**not met**"
    return [f"{goal.value:.2f} {goal.unit}", f"{sign} {goal.limit:g} {goal.unit}", met]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


# --- the picture --------------------------------------------------------------------------------------------------


class _Scale(NamedTuple):
    """Where numbers of VMs and seconds are in the picture."""

    most_vms: float
    most_seconds: float

    def x(self, vms: float) -> float:
        return _LEFT + vms / self.most_vms * (_WIDTH - _LEFT - _RIGHT)

    def y(self, seconds: float) -> float:
        return _HEIGHT - _BOTTOM - seconds / self.most_seconds * (_HEIGHT - _TOP - _BOTTOM)


def svg(results: Mapping[str, Any]) -> str:
    """N against seconds: medians as lines, from the least to the most as bars."""
    times = results["times"]
    lines = {
        (kind, what): {count: figure(runs) for count, runs in sorted(times[kind][what].items())}
        for kind in _COLOURS
        for what in _DASHES
        if times.get(kind, {}).get(what)
    }
    points = [point for line in lines.values() for point in line.items()]
    scale = _Scale(max(count for count, _ in points), _round_up(max(each.most for _, each in points)))
    counts = sorted({count for count, _ in points})
    parts = [*_axes(scale, counts)]
    ends = _apart([(scale.y(list(line.values())[-1].median), key) for key, line in lines.items()])
    for (kind, what), line in lines.items():
        parts += _curve(scale, line, _COLOURS[kind], _DASHES[what], f"{what}, {kind}", ends[kind, what])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _round_up(seconds: float) -> float:
    """A number of seconds for the top of the axis, of which a fifth is easily read."""
    step = next(step for step in (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 100, 200) if step * 5 >= seconds)
    return 5 * step


def _axes(scale: _Scale, counts: Sequence[int]) -> Iterator[str]:
    yield _text(_LEFT, 24, "Seconds for a ring of N VMs and N links over 3 workers", "start", "#24292f", bold=True)
    for fifth in range(6):
        seconds = scale.most_seconds * fifth / 5
        y = scale.y(seconds)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d8dee4"/>'
        yield _text(_LEFT - 8, y + 4, f"{seconds:g}", "end")
    for count in counts:
        yield _text(scale.x(count), _HEIGHT - _BOTTOM + 20, str(count), "middle")
    yield _text(scale.x(scale.most_vms / 2), _HEIGHT - 10, "N", "middle")
    yield _text(14, _TOP - 4, "s", "start")


def _curve(
    scale: _Scale, line: Mapping[int, Figure], colour: str, dash: str, name: str, label_y: float
) -> Iterator[str]:
    path = "L".join(f"{scale.x(count):.1f} {scale.y(each.median):.1f}" for count, each in line.items())
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
    for count, each in line.items():
        x = scale.x(count)
        yield f'<path d="M{x:.1f} {scale.y(each.least):.1f}V{scale.y(each.most):.1f}" stroke="{colour}"/>'
        yield f'<circle cx="{x:.1f}" cy="{scale.y(each.median):.1f}" r="3.5" fill="{colour}"/>'
    yield _text(_WIDTH - _RIGHT + 10, label_y + 4, f"{name}: {list(line.values())[-1].median:.1f}", "start", colour)


def _apart(ends: Iterable[tuple[float, tuple[str, str]]]) -> dict[tuple[str, str], float]:
    """Where the lines' names are written, from the top, so that none covers another."""
    places: dict[tuple[str, str], float] = {}
    last = float("-inf")
    for y, key in sorted(ends):
        last = places[key] = max(y, last + 16)
    return places


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#57606a", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{text}</text>'
