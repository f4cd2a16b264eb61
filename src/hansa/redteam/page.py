"""A matrix as one HTML page that needs nothing else: heat maps, then every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from hansa.markup import html_page
from hansa.redteam.report import Report
from hansa.redteam.rows import NONE, Row

_COLD, _HOT = (247, 247, 247), (165, 20, 45)
"""No harm, and all is lost: told apart by lightness alone."""


def page(report: Report) -> str:
    """The page."""
    title = f"Red team: {escape(report.job)}"
    body = [f"<h1>{title}</h1>", f"<p>{_about(report)}</p>", *_verdict(report)]
    for skew in dict.fromkeys(row.skew for row in report.rows):
        rows = [row for row in report.rows if row.skew == skew]
        body += [
            f"<h2>Data: {escape(skew)}</h2>",
            _heat("Accuracy in percent, of all held-out examples", rows, _accuracy),
            _heat("Attack success in percent", rows, _success),
            _heat(
                "Accuracy in percent of the worst site, class or cohort",
                rows,
                lambda row: (
                    row.worst_group,
                    None if row.worst_group is None else 1 - row.worst_group,
                ),
            ),
        ]
    body += ["<h2>Every number</h2>", _table(report.rows), _words()]
    return html_page(title, _STYLE, body)


def _about(report: Report) -> str:
    seeds = report.rows[0].seeds if report.rows else 0
    return escape(
        f"{report.clients} clients, {report.rounds} rounds, "
        f"{seeds} run{'s' if seeds != 1 else ''} of each. Bad clients see what the attack may see; "
        f"rules that are told how many may be bad are told {report.told:.0%}. A simulation: it "
        "says what these attacks did, not what no attack can do."
    )


def _verdict(report: Report) -> list[str]:
    if not report.limits:
        return []
    if not report.broken:
        return ['<p class="ok"><strong>All limits are kept.</strong></p>']
    items = "\n".join(
        f"<li>{escape(name_of(row))}: {escape(because)}</li>" for row, because in report.broken
    )
    return [
        f'<p class="bad"><strong>{len(report.broken)} limits are broken.</strong></p>',
        f"<ul>\n{items}\n</ul>",
    ]


def name_of(row: Row) -> str:
    """A row in words."""
    who = "nobody bad" if row.attack == NONE else f"{row.attack}, {row.share:.0%} bad"
    return f"{who}, {row.skew} data, {row.rule}"


Measure = Callable[[Row], tuple[float | None, float | None]]
"""A number of a row, and how bad it is, from 0 to 1."""


def _accuracy(row: Row) -> tuple[float | None, float | None]:
    return row.accuracy, None if row.accuracy is None else 1 - row.accuracy


def _success(row: Row) -> tuple[float | None, float | None]:
    return row.attack_success, row.attack_success


def _heat(caption: str, rows: Sequence[Row], measure: Measure) -> str:
    """Attacks by rules and shares."""
    rules = list(dict.fromkeys(row.rule for row in rows))
    shares = sorted({row.share for row in rows if row.attack != NONE})
    attacks = list(dict.fromkeys(row.attack for row in rows))
    found = {(row.attack, row.rule, row.share): row for row in rows}
    head = "".join(
        f'<th scope="colgroup" colspan="{len(shares)}">{escape(rule)}</th>' for rule in rules
    )
    under = "".join(f'<th scope="col">{share:.0%}</th>' for _ in rules for share in shares)
    lines = []
    for attack in attacks:
        cells = []
        for rule in rules:
            if attack == NONE:
                cells.append(_cell(found.get((NONE, rule, 0.0)), measure, len(shares)))
            else:
                cells += [_cell(found.get((attack, rule, share)), measure) for share in shares]
        name = "nobody bad" if attack == NONE else attack
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        f"<h3>{escape(caption)}</h3>\n"
        f'<div class="wide" tabindex="0"><table class="heat" aria-label="{escape(caption)}">\n'
        f'<thead><tr><th rowspan="2" scope="col">Attack</th>{head}</tr>\n<tr>{under}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _cell(row: Row | None, measure: Measure, span: int = 1) -> str:
    wide = f' colspan="{span}"' if span > 1 else ""
    value, harm = (None, None) if row is None else measure(row)
    if value is None or harm is None:
        return f"<td{wide}>&ndash;</td>"
    return f'<td{wide} style="{_colour(harm)}">{100 * value:.1f}</td>'


def _colour(harm: float) -> str:
    """Background from light to dark, and letters that can be read on it."""
    part = min(max(harm, 0.0), 1.0)
    mixed = [round(cold + part * (hot - cold)) for cold, hot in zip(_COLD, _HOT, strict=True)]
    return (
        f"background:#{''.join(f'{c:02x}' for c in mixed)};color:{'#fff' if part > 0.5 else '#111'}"
    )


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("Data", lambda row: row.skew),
    ("Rule", lambda row: row.rule),
    ("Attack", lambda row: row.attack),
    ("Bad", lambda row: f"{row.share:.0%}"),
    ("Accuracy", lambda row: percent(row.accuracy)),
    ("Success", lambda row: percent(row.attack_success)),
    ("By itself", lambda row: percent(row.success_by_itself)),
    ("Detected", lambda row: percent(row.detected)),
    ("False positives", lambda row: percent(row.false_positives)),
    ("... of the minority", lambda row: percent(row.minority_false_positives)),
    ("Worst site", lambda row: percent(row.worst_site)),
    ("Worst class", lambda row: percent(row.worst_class)),
    ("Worst cohort", lambda row: percent(row.worst_cohort)),
    ("Spread of sites", lambda row: percent(row.site_spread)),
    ("Minority", lambda row: percent(row.minority)),
    ("Its cost", lambda row: percent(row.minority_cost)),
    ("Ended early", lambda row: row.ended),
)


def percent(value: float | None) -> str:
    """In percent with one digit; a dash where it is not known."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f}"


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name, _ in _COLUMNS)
    lines = [
        "<tr>" + "".join(f"<td>{escape(of(row))}</td>" for _, of in _COLUMNS) + "</tr>"
        for row in rows
    ]
    return (
        '<p>All in percent.</p>\n<div class="wide" tabindex="0">'
        '<table class="rows" aria-label="All rows">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _words() -> str:
    items = "\n".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in _MEANINGS)
    return f"<h2>What the words mean</h2>\n<dl>\n{items}\n</dl>"


_MEANINGS = (
    (
        "Success",
        "of an attack that wants an answer (flipped labels, backdoors): held-out examples that get "
        "it, of those that could; by itself: with nobody bad. Of any other: what is lost of the "
        "accuracy that the rule has with nobody bad.",
    ),
    (
        "Detected, false positives",
        "bad and honest clients whose standing would be quarantined at the end; a dash where "
        "nothing looks at single updates.",
    ),
    (
        "Worst site, class, cohort",
        "the lowest accuracy among honest clients, among classes, and among what the task calls "
        "cohorts, of those with five held-out examples or more. Spread of sites: the standard "
        "deviation over such clients.",
    ),
    (
        "Minority",
        "the quarter of the clients whose mixes of classes are least like the others', the honest "
        "ones of them. Its cost: how much lower their accuracy is than with the plain mean and "
        "nobody bad.",
    ),
)

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
.wide { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
th, td { border: 1px solid #8888; padding: .2rem .5rem; text-align: right; white-space: nowrap; }
th[scope=row], .rows td:nth-child(-n+3) { text-align: left; }
.heat td, .heat thead th { text-align: center; min-width: 2.6rem; }
.heat th[scope=row] { position: sticky; left: 0; background: Canvas; }
.bad { border-left: .4rem solid #a5142d; padding-left: .6rem; }
.ok { border-left: .4rem solid #1a7f37; padding-left: .6rem; }
dt { font-weight: bold; } dd { margin: 0 0 .5rem 1rem; }
@media print { body { font-size: 9pt; max-width: none; } .wide { overflow: visible; } }
"""
