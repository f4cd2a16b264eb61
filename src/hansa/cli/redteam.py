"""`hansa redteam`: attack a job in simulation, and see what its rule is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hansa.cli.arguments import JOB, JSON, SET
from hansa.cli.output import Progress, emit, heading, note, say, table

if TYPE_CHECKING:
    from hansa.redteam.cell import Cell, Outcome
    from hansa.redteam.matrix import Wanted
    from hansa.redteam.report import Report
    from hansa.redteam.rows import Row


def redteam(
    job: str = JOB,
    attacks: str = typer.Option(
        "",
        metavar="NAMES",
        help="Attacks, with commas between; all: every one. The usual nine if it is left out.",
    ),
    adaptive: bool = typer.Option(
        False, "--adaptive", help="Also the attacks that look for what harms the job's rule most."
    ),
    shares: str = typer.Option(
        "",
        metavar="NUMBERS",
        help="Shares of bad clients, with commas between; of 0.05, 0.2 and 0.4 those that are "
        "somebody, if it is left out.",
    ),
    skews: str = typer.Option(
        "own,iid,dirichlet_0.3",
        metavar="NAMES",
        help="Divisions of the data: own, as the task has it; iid and dirichlet_ALPHA, the same "
        "examples dealt out anew.",
    ),
    rules: str = typer.Option(
        "own",
        metavar="NAMES",
        help="Rules: own, or words of aggregation.rule; nearest+RULE, bucketing+RULE mix before.",
    ),
    bad: float | None = typer.Option(
        None, metavar="SHARE", help="What rules are told may be bad, instead of what the job says."
    ),
    seeds: str = typer.Option("", metavar="NUMBERS", help="Seeds; the job's if it is left out."),
    rounds: int | None = typer.Option(None, min=1, help="Rounds, instead of the job's."),
    clients: int | None = typer.Option(None, min=1, help="Clients, instead of the job's."),
    changes: list[str] = SET,
    parallel: int = typer.Option(1, min=1, metavar="P", help="Runs at a time, a process for each."),
    out: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Write a page and the rows there; what was run before in it is not run again.",
    ),
    fail_under: list[str] = typer.Option(
        [],
        metavar="NAME=NUMBER",
        help="Exit with 2 if a row is lower: accuracy=0.8, also worst_group, worst_site, "
        "worst_class, worst_cohort, minority, detected. May be repeated.",
    ),
    fail_over: list[str] = typer.Option(
        [],
        metavar="NAME=NUMBER",
        help="Exit with 2 if a row is higher: attack_success=0.1, also false_positives, "
        "minority_false_positives, minority_cost, site_spread. May be repeated.",
    ),
    json: bool = JSON,
) -> None:
    """Attack a job in simulation, and see what its rule is worth.

    Trains the job again and again on this machine: each attack, share of bad clients, division of
    the data and rule. Nobody else is contacted. What is shown is what these attacks did; another
    may do more. The exit code is 2 if a limit is broken or the job cannot be attacked so.
    """
    from hansa.jobfile import load_job
    from hansa.redteam.gate import Limit
    from hansa.redteam.matrix import prepare
    from hansa.redteam.record import Record
    from hansa.redteam.report import report_of, write
    from hansa.runs.settings import assignments

    limits = [
        *(Limit.read(text, least=True) for text in fail_under),
        *(Limit.read(text, least=False) for text in fail_over),
    ]
    wanted = _wanted(attacks, adaptive, shares, skews, rules, bad, seeds)
    named = {"cohort.population": clients, "rounds.count": rounds}
    given = {name: value for name, value in named.items() if value is not None}
    matrix = prepare(load_job(job, {**assignments(changes), **given}), wanted)
    record = Record.at(out)
    with Progress("run", len(matrix.cells)) as progress:

        def heard(cell: Cell, outcome: Outcome, new: bool) -> None:
            progress.step(_line(cell, outcome, new))

        try:
            rows = matrix.run(record, heard, parallel)
        except KeyboardInterrupt:
            if out is not None:
                note(f"\nRuns that ended are in {out}; the same command goes on after them.")
            raise
    report = report_of(matrix, rows, limits, bad)
    if out is not None:
        write(report, out)
        note(f"The page is {out / 'redteam.html'}.")
    if json:
        emit(report.to_json())
    else:
        _show(report)
    if report.broken:
        raise typer.Exit(2)


def _wanted(
    attacks: str,
    adaptive: bool,
    shares: str,
    skews: str,
    rules: str,
    bad: float | None,
    seeds: str,
) -> Wanted:
    from hansa.attacks.catalogue import ATTACKS
    from hansa.redteam.matrix import ADAPTIVE, USUAL, Wanted

    every = tuple(name for name in ATTACKS if name not in ADAPTIVE)
    named = every if attacks == "all" else tuple(_words(attacks)) or USUAL
    return Wanted(
        attacks=named + (ADAPTIVE if adaptive else ()),
        shares=tuple(_number(word, "--shares") for word in _words(shares)),
        skews=tuple(_words(skews)),
        rules=tuple(_words(rules)),
        seeds=tuple(_whole(word) for word in _words(seeds)),
        bad=bad,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(word: str, option: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise typer.BadParameter(f"'{word}' is no number", param_hint=option) from error


def _whole(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise typer.BadParameter(f"'{word}' is no whole number", param_hint="--seeds")
    return int(word)


def _line(cell: Cell, outcome: Outcome, new: bool) -> str:
    who = "nobody bad" if not cell.share else f"{cell.attack} by {cell.share:.0%}"
    parts = [
        f"{who}, {cell.skew}, {cell.rule or 'mean, to compare with'}",
        f"accuracy {_percent(outcome.worth.accuracy)}",
        "" if new else "known",
        f"ended early: {outcome.ended}" if outcome.ended else "",
    ]
    return "  ".join(part for part in parts if part)


def _show(report: Report) -> None:
    say(
        f"{report.job}: {report.clients} clients, {report.rounds} rounds, "
        f"{report.rows[0].seeds} of each run. All in percent."
    )
    for skew, rule in dict.fromkeys((row.skew, row.rule) for row in report.rows):
        heading(f"Data: {skew}, rule: {rule}")
        table(
            ("Attack", "Bad", "Right", "Success", "Else", "Found", "False", "Worst", "Few"),
            [_cells(row) for row in report.rows if (row.skew, row.rule) == (skew, rule)],
        )
    say()
    say(
        "Right: accuracy. Success: answers that the attacker wanted, or accuracy that is lost; "
        "Else: such answers with nobody bad. Found, False: bad and honest clients that were "
        "quarantined by their standing. Worst: accuracy of the worst site, class or cohort. "
        "Few: accuracy at the clients that are least like the others."
    )
    if not report.limits:
        return
    heading("Limits")
    if not report.broken:
        say("All are kept.")
    from hansa.redteam.page import name_of

    for row, because in report.broken:
        say(f"{name_of(row)}: {because}.", "- ", "  ")


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (
        row.accuracy,
        row.attack_success,
        row.success_by_itself,
        row.detected,
        row.false_positives,
        row.worst_group,
        row.minority,
    )
    return (row.attack, f"{row.share:.0%}", *map(_percent, numbers))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
