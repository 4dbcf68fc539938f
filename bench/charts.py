"""Charts as SVG: bars and lines, readable on white and on black. Made of strings, the same each time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 720
LABELS = 190
"""Width of the labels at the left."""
ROW = 22
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 14px; }
.small { font-size: 11px; fill: #57606a; }
.bar { fill: #8c959f; } .ours { fill: #0969da; }
.line { fill: none; stroke-width: 1.6; }
.grid { stroke: #d0d7de; stroke-width: 1; } .range { stroke: #24292f; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; } .bar { fill: #656c76; } .ours { fill: #4493f8; }
  .grid { stroke: #30363d; } .range { stroke: #e6edf3; }
}
</style>"""
COLOURS = ("#0969da", "#8c959f", "#1a7f37", "#bf8700", "#cf222e", "#8250df", "#0598bc", "#bc4c00")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what it stands for, how long it is, and from where to where rounds lay. `ours` has the colour."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = False


def number(value: float) -> str:
    """Three digits that matter, and no more."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 2)}f}"


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars, from zero. The thin line is the range of the rounds."""
    height = 44 + ROW * len(rows)
    most = max((max(row.value, row.high) for row in rows), default=1.0) or 1.0
    room = WIDTH - LABELS - 80
    out = [_opening(height, title), f'<text class="title" x="0" y="16">{escape(title)}, {escape(unit)}</text>']
    for at, row in enumerate(rows):
        y = 32 + ROW * at
        length, low, high = (max(0.0, value) / most * room for value in (row.value, row.low, row.high))
        kind = "bar ours" if row.ours else "bar"
        out += [
            f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(row.label)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="15"/>',
            f'<line class="range" x1="{LABELS + low:.1f}" x2="{LABELS + high:.1f}" y1="{y + 7.5}" y2="{y + 7.5}"/>',
            f'<text x="{LABELS + max(length, high) + 6:.1f}" y="{y + 12}">{number(row.value)}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])


def lines(title: str, unit: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over numbers, both axes logarithmic.

    Args:
        across: what the numbers are.
        series: points by name, in order of the number; those that are not above zero are left out.
    """
    series = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()}
    points = [point for each in series.values() for point in each]
    height, top, bottom, left, right = 360, 30, 320, 60, WIDTH - 150
    xs, ys = sorted({x for x, _ in points}) or [1.0], [y for _, y in points] or [1.0]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)) + 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        across_ = math.log(x / xs[0]) / (math.log(xs[-1] / xs[0]) or 1.0)
        up = math.log(y / low) / (math.log(high / low) or 1.0)
        return left + across_ * (right - left), bottom - up * (bottom - top)

    out = [_opening(height, title), f'<text class="title" x="0" y="16">{escape(title)}, {escape(unit)}</text>']
    step = low
    while step <= high * 1.001:
        y = place(xs[0], step)[1]
        out += [
            f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="small" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{number(step)}</text>',
        ]
        step *= 10
    for x in xs:
        out.append(
            f'<text class="small" x="{place(x, low)[0]:.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>'
        )
    out.append(
        f'<text class="small" x="{(left + right) // 2}" y="{bottom + 33}" text-anchor="middle">{escape(across)}</text>'
    )
    ends: list[tuple[float, str, str]] = []
    for (name, each), colour in zip(series.items(), COLOURS * 9, strict=False):
        if not each:
            continue
        places = [place(x, y) for x, y in each]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        ends.append((places[-1][1], name, colour))
    at = 0.0
    for y, name, colour in sorted(ends):  # names beside the lines' ends, none over another
        at = max(y, at + 14)
        out.append(f'<text x="{right + 10}" y="{at + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _opening(height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">\n{STYLE}'
    )
