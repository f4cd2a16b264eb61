"""The tables of docs/privacy.md and docs/audits.md, and a picture, from what `privacy.py` found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START, END = "<!-- made by bench/privacy.py -->", "<!-- end of what bench/privacy.py made -->"
PICTURE = "privacy-accuracy.svg"

Rows = Sequence[dict[str, Any]]


def write(found: dict[str, Any], docs: Path) -> None:
    """Puts the tables between their marks in privacy.md and audits.md, and the picture beside."""
    _put(docs / "privacy.md", table(found))
    (docs / PICTURE).write_text(picture(found), "utf-8")
    if found.get("audit"):
        _put(docs / "audits.md", audit_table(found["audit"]))


def _put(page: Path, made: str) -> None:
    before, rest = page.read_text("utf-8").split(START)
    _, after = rest.split(END)
    page.write_text(f"{before}{START}\n{made}\n{END}{after}", "utf-8")


def table(found: dict[str, Any]) -> str:
    """One line for each data set, unit and party; one column for each epsilon."""
    mine, peers = found["accuracy"], found.get("peers", {}).get("accuracy", [])
    epsilons = list(dict.fromkeys(row["epsilon"] for row in mine))
    names = ["no noise" if e is None else f"epsilon {e:g}" for e in epsilons]
    lines = [
        f"| data, unit, metric | by | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for party, some in (("Hansa", mine), *_by_peer(peers)):
        kinds = dict.fromkeys((r["data"], r["unit"], r["metric"]) for r in some)
        for kind in kinds:
            cells = {
                r["epsilon"]: _cell(r) for r in some if (r["data"], r["unit"], r["metric"]) == kind
            }
            shown = " | ".join(cells.get(e, "") for e in epsilons)
            lines.append(f"| {kind[0]}, {kind[1]}, {kind[2]} | {party} | {shown} |")
    return "\n".join(lines)


def audit_table(rows: Rows) -> str:
    """One line for each attacked job: what it claims, and what attacks show."""
    lines = [
        "| job, unit, clients | rounds | delta | claimed | shown | by rates of Gaussian noise | "
        "shown without noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        # Without noise, and where cohorts are drawn, the rates of Gaussian noise say nothing.
        closer = f"{r['epsilon_gaussian_dp']:.2f}" if r["gaussian"] and r["epsilon"] else ""
        claimed = "nothing" if r["epsilon_claimed"] is None else f"{r['epsilon_claimed']:.2f}"
        lines.append(
            f"| {r['data']}, {r['mechanism']}, {r['unit']}, {r['clients']:,} | {r['rounds']} of "
            f"{r['rounds_of_job']} | {r['delta']:g} | {claimed} | {r['epsilon_lower_bound']:.2f} | "
            f"{closer} | {r['epsilon_lower_bound_noise_off']:.2f} |"
        )
    return "\n".join(lines)


def _by_peer(rows: Rows) -> list[tuple[str, Rows]]:
    return [
        (p, [r for r in rows if r["peer"] == p]) for p in dict.fromkeys(r["peer"] for r in rows)
    ]


def _cell(row: dict[str, Any]) -> str:
    spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
    return f"{row['mean']:.3f}{spread}"


# ------------------------------------------------------------------ the picture

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 280, 60, 40, 20
COLOURS = ("#1b5e9b", "#c0392b", "#2e7d32", "#8e44ad")


def picture(found: dict[str, Any]) -> str:
    """Accuracy of the digits by epsilon, each party one line with bars of one deviation."""
    mine = [row for row in found["accuracy"] if row["data"] == "digits"]
    others = [r for r in found.get("peers", {}).get("accuracy", []) if r["data"] == "digits"]
    parties = [("Hansa", mine), *_by_peer(others)]
    epsilons = [row["epsilon"] for row in mine]
    values: list[float] = [row["mean"] for _, rows in parties for row in rows]
    low = math.floor(20 * min(values)) / 20
    high = max(math.ceil(20 * max(values)) / 20, low + 0.05)

    def x(place: int) -> float:
        return LEFT + (place + 0.5) * (WIDTH - LEFT - 20) / len(epsilons)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        "<title>Accuracy on test digits by epsilon of one client</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in range(round(low * 20), round(high * 20) + 1):
        at = y(tick / 20)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick / 20:.2f}</text>'
        )
    for place, epsilon in enumerate(epsilons):
        name = "no noise" if epsilon is None else f"{epsilon:g}"
        parts.append(
            f'<text x="{x(place):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{name}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">epsilon</text>'
    )
    for number, (party, rows) in enumerate(parties):
        colour, shift = COLOURS[number % len(COLOURS)], 5 * number
        points = [(x(epsilons.index(r["epsilon"])) + shift, r) for r in rows]
        line = " ".join(f"{at:.1f},{y(r['mean']):.1f}" for at, r in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        for at, r in points:
            spread = r["sd"] or 0.0
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(r["mean"] - spread):.1f}" '
                f'y2="{y(r["mean"] + spread):.1f}" stroke="{colour}"/>'
                f'<circle cx="{at:.1f}" cy="{y(r["mean"]):.1f}" r="3" fill="{colour}"/>'
            )
        parts.append(
            f'<text x="{WIDTH - 30}" y="{HEIGHT - BOTTOM - 14 - 16 * number}" text-anchor="end" '
            f'fill="{colour}">{party}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
