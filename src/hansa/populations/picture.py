"""A picture of a division: one bar for each client, as long as its examples, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from hansa.populations.spread import Counts, evenly, spread_of

MOST = 60
"""Bars in a picture; of more clients so many are shown, evenly from the largest to the smallest."""

COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee",
    "#aa3377", "#bbbbbb", "#994455", "#004488", "#ddaa33",
)  # fmt: skip
"""Paul Tol's bright and high-contrast schemes, told apart by colour-blind readers as well."""

_LEFT, _WIDTH, _BAR, _TOP = 150, 620, 12, 46


def picture(counts: Counts, clients: Sequence[str], classes: Sequence[int], title: str) -> str:
    """An SVG file, to be read without anything else.

    Args:
      counts: (clients, classes) examples.
      clients: their names.
      classes: their names.
      title: what is divided.
    """
    sizes = counts.sum(axis=1)
    order = np.argsort(-sizes, kind="stable")
    order = order[evenly(len(order), MOST)]
    longest = max(int(sizes.max()), 1)
    bars = [
        _bar(row, clients[at], counts[at], classes, longest)
        for row, at in enumerate(order.tolist())
    ]
    height = _TOP + len(order) * (_BAR + 2) + 30
    spread = spread_of(counts)
    shown = "" if len(order) == len(counts) else f"{len(order)} of "
    said = (
        f"{shown}{spread.clients:,} clients, {spread.examples:,} examples; distance between mixes "
        f"of classes {spread.distance:.2f}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" '
            'role="img" font-family="sans-serif" font-size="11">',
            f"<title>{escape(title)}: {said}</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
            f'<text x="8" y="34" fill="#555">{said}</text>',
            *bars,
            *_legend(classes, height - 10),
            "</svg>",
            "",
        ]
    )


def _bar(row: int, client: str, counts: Counts, classes: Sequence[int], longest: int) -> str:
    y, x, pieces = _TOP + row * (_BAR + 2), float(_LEFT), []
    pieces.append(
        f'<text x="{_LEFT - 6}" y="{y + _BAR - 2}" text-anchor="end">{escape(client[-22:])}</text>'
    )
    for number, count in enumerate(counts.tolist()):
        if count:
            width = _WIDTH * count / longest
            pieces.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{_colour(number)}"><title>{escape(client)}: {count:,} of class '
                f"{classes[number]}</title></rect>"
            )
            x += width
    return "\n".join(pieces)


def _legend(classes: Sequence[int], y: int) -> list[str]:
    """What the colours stand for; as many classes as fit into a line."""
    fits = _WIDTH // 40
    return [
        f'<rect x="{_LEFT + 40 * i}" y="{y - 9}" width="10" height="10" fill="{_colour(i)}"/>'
        f'<text x="{_LEFT + 40 * i + 14}" y="{y}">{each}</text>'
        for i, each in enumerate(classes[:fits])
    ]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
