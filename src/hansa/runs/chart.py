"""Metrics over rounds as an SVG picture: one panel for each metric, one line for each run.

The picture is text and small; it needs no library, and opens in every browser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from hansa.core.round import RoundRecord

WIDTH, HEIGHT = 360, 210
"""Of one panel, in pixels."""

COLUMNS = 2
MOST_NAMED = 10
"""Runs that have a colour and a name; the others are grey."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#7b3294",
           "#4d4d4d", "#a6bd00")  # fmt: skip
"""Told apart also by people who do not see red and green apart (Okabe and Ito, 2008, and more)."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 30, 30
_HEAD, _LEGEND = 34, 16

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One run.

    Attributes:
      name: what it is called.
      values: by metric, (rounds that the measured model was trained for, value).
    """

    name: str
    values: Mapping[str, Points]


def lines_of(name: str, records: Sequence[RoundRecord]) -> list[Line]:
    """The line of one run; values that are missing or not finite are gaps."""
    values: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for metric, value in record.metrics.items():
            points = values.setdefault(metric, [])
            if value is not None and math.isfinite(value) and not record.void:
                points.append((float(record.round), value))
    return [Line(name, values)]


def picture(
    lines: Sequence[Line], title: str, better: Mapping[str, str], metrics: Sequence[str] = ()
) -> str:
    """The SVG text.

    Args:
      lines: runs, the most important first.
      title: above all panels.
      better: `higher` or `lower` by metric.
      metrics: which panels; all that any line has if left out.
    """
    names = list(metrics) or list(dict.fromkeys(m for line in lines for m in line.values))
    columns = min(COLUMNS, max(len(names), 1))
    rows = -(-len(names) // columns)
    legend = min(len(lines), MOST_NAMED) if len(lines) > 1 else 0
    width = max(columns * WIDTH, 480)
    height = _HEAD + rows * HEIGHT + legend * _LEGEND + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    if not names:
        parts.append('<text x="10" y="44" fill="#555">no metrics leave the clients</text>')
    for number, name in enumerate(names):
        at = (number % columns * WIDTH, _HEAD + number // columns * HEIGHT)
        parts += _panel(
            at, name, better.get(name, ""), [line.values.get(name, ()) for line in lines]
        )
    for number in range(legend):
        y = _HEAD + rows * HEIGHT + number * _LEGEND + 8
        parts += [
            f'<rect x="10" y="{y - 5}" width="18" height="3" fill="{_colour(number)}"/>',
            f'<text x="34" y="{y}">{escape(lines[number].name)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _panel(at: tuple[int, int], name: str, better: str, lines: Sequence[Points]) -> list[str]:
    x0, y0 = at[0] + _LEFT, at[1] + _TOP
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    xs = [x for line in lines for x, _ in line]
    ys = [y for line in lines for _, y in line]
    told = f"{name} ({better} is better)" if better else name
    parts = [f'<text x="{x0}" y="{y0 - 8}" font-weight="bold">{escape(told)}</text>']
    if not xs:
        return [*parts, f'<text x="{x0}" y="{y0 + 20}" fill="#555">not measured</text>']
    right, (low, top) = max(max(xs), 1.0), _range(ys)

    def place(x: float, y: float) -> str:
        return f"{x0 + wide * x / right:.1f},{y0 + high * (top - y) / (top - low):.1f}"

    for tick in ticks(low, top):
        y = y0 + high * (top - tick) / (top - low)
        parts += [
            f'<line x1="{x0}" x2="{x0 + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e0e0e0"/>',
            f'<text x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>',
        ]
    for tick in ticks(0.0, right):
        x = x0 + wide * tick / right
        parts.append(
            f'<text x="{x:.1f}" y="{y0 + high + 14}" text-anchor="middle" fill="#555">{tick:g}'
            "</text>"
        )
    parts.append(
        f'<text x="{x0 + wide}" y="{y0 + high + 26}" text-anchor="end" fill="#555">rounds</text>'
    )
    for number, points in reversed(list(enumerate(lines))):  # the most important on top
        if points:
            parts.append(
                f'<polyline fill="none" stroke="{_colour(number)}" stroke-width="1.8" points="'
                + " ".join(place(x, y) for x, y in points)
                + '"/>'
            )
            last = place(*points[-1]).split(",")
            parts.append(
                f'<circle cx="{last[0]}" cy="{last[1]}" r="2.5" fill="{_colour(number)}"/>'
            )
    return parts


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two bounds: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds with a margin; never equal."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _colour(number: int) -> str:
    return COLOURS[number] if number < MOST_NAMED else "#cccccc"
