"""A privacy statement as a page: plain text of 80 columns, Markdown, or HTML by itself."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TypeAlias

from hansa.errors import HansaError
from hansa.markup import html_page
from hansa.privacy.audit_report import LEAST_POWER
from hansa.privacy.statement import NO_LEDGER, Statement
from hansa.privacy.statement_audit import REFUTED

WIDTH = 80

Rows: TypeAlias = tuple[tuple[str, str], ...]


def written(statement: Statement, suffix: str) -> str:
    """The statement in the form that a file name ends in: .json, .txt, .md or .html.

    Raises:
      HansaError: there is no such form.
    """
    form = FORMS.get(suffix.lower())
    if form is None:
        raise HansaError(
            f"there is no privacy statement in the form '{suffix}'",
            fix=f"name a file that ends in one of: {', '.join(FORMS)}",
        )
    return form(statement)


def save(statement: Statement, file: Path) -> None:
    """Writes the statement in the form that the file's name ends in.

    Raises:
      HansaError: there is no such form, or the file cannot be written.
    """
    text = written(statement, file.suffix)
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise HansaError(
            f"{file} cannot be written ({error.strerror})", fix="name another file"
        ) from error


def sections(statement: Statement) -> tuple[tuple[str, Rows], ...]:
    """What all pages show: headings, and rows of a name and its words."""
    s = statement
    return (
        ("Guarantee", _guarantee(s)),
        (
            "Mechanism",
            (
                ("Mechanism", s.mechanism),
                ("Noise", s.noise_sampler),
                ("Random bits", s.noise_entropy),
                ("Grid", _grid(s)),
                ("Distribution", _exact(s)),
            ),
        ),
        (
            "Trust model",
            (
                ("Model", s.trust_model),
                ("Adds the noise", s.adds_noise),
                ("Before the noise", s.sees_before),
            ),
        ),
        ("Released so far", _released(s)),
        *_audited(s),
        (
            "Evidence",
            (
                ("Ledger", _ledger(s)),
                ("Audit", s.audit),
                ("Plan", s.plan_digest),
                ("Made by", f"Hansa {s.hansa}, statement format {s.format}"),
            ),
        ),
    )


def _guarantee(s: Statement) -> Rows:
    if s.epsilon is None or s.delta is None:
        return (("Promise", s.sentence), ("Sampling", s.sampling))
    return (
        ("Epsilon", f"{s.epsilon:.4g}, of all {s.rounds:,} releases together"),
        ("Delta", f"{s.delta:g}"),
        ("Unit", s.unit),
        ("Relation", s.relation),
        ("Sampling", s.sampling),
        ("Accountant", s.accountant),
    )


def _grid(s: Statement) -> str:
    return "none, or not known" if s.noise_grid is None else f"steps of {s.noise_grid:.4g}"


def _exact(s: Statement) -> str:
    if s.noise_exact is None:
        return "not known" if s.private else "no noise"
    return "exactly the one counted" if s.noise_exact else "floating point, near the one counted"


def _released(s: Statement) -> Rows:
    r = s.released
    if r is None:
        return (("Run", NO_LEDGER),)
    told = [
        ("Run", f"{r.run}, {'ended' if r.final else 'not ended'}"),
        ("Models", f"{r.rounds:,} rounds changed the model"),
        ("Measurements", f"{r.measurements:,} apart from those"),
    ]
    if s.epsilon is not None:
        counted = "no accountant knows these charges" if r.epsilon is None else f"{r.epsilon:.4g}"
        told += [
            ("Charges", f"{r.charges:,} of {r.declared:,}, void rounds included"),
            (
                "Epsilon so far",
                f"{counted}, at the delta, unit and relation of the guarantee. Valid if the run "
                "did not end because of its results; the epsilon of the guarantee always is",
            ),
        ]
    return tuple(told)


def _audited(s: Statement) -> tuple[tuple[str, Rows], ...]:
    """The figures of an audit; no such section without one."""
    a = s.audited
    if a is None:
        return ()
    claimed = "nothing" if a.epsilon_claimed is None else f"{a.epsilon_claimed:.4g}"
    shown = f"at least {a.epsilon_lower_bound:.4g}, {a.confidence:.0%} sure"
    if a.epsilon_gaussian is not None:
        shown += f"; at least {a.epsilon_gaussian:.4g} by rates of Gaussian noise, 99.999% sure"
    rows = (
        ("Of plan", a.plan_digest),
        ("Attacked", f"{a.attacked}; {a.mechanism}"),
        ("Claimed", f"{claimed}, for these rounds, at delta {a.delta:g}"),
        ("Shown", shown),
        (
            "Without noise",
            f"at least {a.epsilon_lower_bound_noise_off:.4g}; an attack that can see shows more "
            f"than {LEAST_POWER:g}",
        ),
        ("Verdict", REFUTED if a.refuted else "the attack shows no more than is claimed"),
        ("Made", f"{a.date} by Hansa {a.hansa}, seed {a.seed}"),
    )
    return (("Audit", rows),)


def _ledger(s: Statement) -> str:
    if s.released is None:
        return NO_LEDGER
    return f"{s.released.ledger_entries:,} entries, head {s.released.ledger_head}"


# ------------------------------------------------------------------ the forms


def to_json(statement: Statement) -> str:
    """One JSON object with sorted keys; see docs/dp-statement.md."""
    return json.dumps(statement.to_json(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def to_text(statement: Statement) -> str:
    """Plain text, at most 80 columns."""
    lines = [f"Differential-privacy statement: {statement.job}"]
    for title, rows in sections(statement):
        lines += ["", title]
        for name, words in rows:
            lines += _filled(words, f"  {name:<18}", " " * 20)
    for title, sentences in _lists(statement):
        lines += ["", title]
        for sentence in sentences:
            lines += _filled(sentence, "  - ", "    ")
    return "\n".join(lines) + "\n"


def to_markdown(statement: Statement) -> str:
    """Markdown: a table for each section, a list for scope and hazards."""
    lines = [f"# Differential-privacy statement: {_plain(statement.job)}"]
    for title, rows in sections(statement):
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_plain(words)} |" for name, words in rows]
    for title, sentences in _lists(statement):
        lines += ["", f"## {title}", "", *(f"- {_plain(sentence)}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def to_html(statement: Statement) -> str:
    """One HTML page that needs nothing else, for screens, screen readers and paper."""
    title = f"Differential-privacy statement: {escape(statement.job)}"
    body = [f"<h1>{title}</h1>"]
    for name, rows in sections(statement):
        cells = "\n".join(
            f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows
        )
        body.append(f"<h2>{name}</h2>\n<table>\n<tbody>\n{cells}\n</tbody>\n</table>")
    for name, sentences in _lists(statement):
        items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        body.append(f"<h2>{name}</h2>\n<ul>\n{items}\n</ul>")
    return html_page(title, _STYLE, body)


def _lists(statement: Statement) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("Scope", statement.scope), ("Hazards", statement.hazards)


def _filled(words: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _plain(words: str) -> str:
    """Words that Markdown shows as they are."""
    for mark in "\\`*_[]<>|":
        words = words.replace(mark, f"\\{mark}")
    return words


FORMS: Mapping[str, Callable[[Statement], str]] = {
    ".json": to_json,
    ".txt": to_text,
    ".md": to_markdown,
    ".html": to_html,
}
"""The forms, by how a file's name ends."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 48rem; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #888; padding: .3rem .5rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { width: 10rem; }
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; }
  h2, tr, li { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
