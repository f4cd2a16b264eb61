"""`hansa plan`: what a job does and claims, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hansa.cli.arguments import AUDIT, JOB, JSON
from hansa.cli.output import emit, heading, note, say, table
from hansa.errors import Refused

if TYPE_CHECKING:
    from hansa.core.plan import Plan
    from hansa.privacy.advice import Advice, Costs
    from hansa.privacy.statement import Statement


def plan(
    job: str = JOB,
    statement: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Write the privacy statement: .html, .md, .txt or .json, by the file's name.",
    ),
    audit: Path | None = AUDIT,
    json: bool = JSON,
) -> None:
    """Check a job: trail, claims, privacy, cost, digest.

    The task is loaded, but no data is read and nobody is contacted. A job that does not fit is
    refused with every reason and a fix for each; the exit code is then 2.
    """
    from hansa.jobfile import load_job
    from hansa.privacy import audit_file
    from hansa.privacy.statement import statement_of
    from hansa.privacy.statement_page import save
    from hansa.recipes import compile_plan
    from hansa.report import plan_json, refusal_json

    try:
        compiled = compile_plan(load_job(job))
    except Refused as error:
        if not json:
            raise
        emit(refusal_json(error))
        raise typer.Exit(error.exit_code) from error
    report = None if audit is None else audit_file.load(audit)
    said = statement_of(compiled, audit=report)
    if statement is not None:
        save(said, statement)
        note(f"The privacy statement is in {statement}.")
    if json:
        emit(plan_json(compiled, report))
    else:
        _show(compiled, said)


def _show(plan: Plan, statement: Statement) -> None:
    from hansa.privacy.advice import advice_on
    from hansa.report import size_words, trail_words

    job = plan.job
    say(
        f"{job.name}: {job.rounds.count} rounds of {job.algorithm.name} over "
        f"{job.cohort.population} clients; {plan.task.schema.size:,} parameters; "
        f"risk tier {job.risk_tier}."
    )
    heading("Trail")
    table(
        ("Part", "What is known after it"),
        [(part, "\n".join(lines)) for part, lines in trail_words(plan.trail)],
    )
    heading("Claims")
    for claim in plan.claims:
        say(claim, "- ", "  ")
    advice = advice_on(plan)
    if advice is not None:
        _show_advice(advice)
    heading("Numbers")
    noise = f"multiplier {job.privacy.noise_multiplier:g}" if plan.private else ""
    rows = [
        ("privacy", statement.sentence),
        ("audit", statement.audit if statement.audited else ""),
        ("noise", noise),
        ("quorum", f"{plan.quorum} of at most {plan.parts.sampler.cap} updates in a round"),
        ("down", f"{size_words(plan.cost.down_bytes)} to each client in a round"),
        ("up", f"{size_words(plan.cost.up_bytes)} from each client in a round"),
        ("coordinator", f"{size_words(plan.cost.coordinator_bytes)} of memory"),
        ("task digest", plan.task.digest),
        ("plan digest", plan.digest),
    ]
    for name, value in rows:
        if value:
            say(value, f"{name:<13}", " " * 13)


def _show_advice(advice: Advice) -> None:
    """What the noise does to the model, and what more or fewer rounds would cost."""
    heading("Noise against updates")
    for words in advice.words:
        say(words, "- ", "  ")
    say()
    table(
        ("Rounds", "Epsilon with this noise, at the delta and unit of the plan"),
        [(f"{row.rounds:,}", _cost(row)) for row in advice.rounds],
    )


def _cost(row: Costs) -> str:
    if row.epsilon is None:
        return "not counted here; set rounds.count and plan again"
    return f"{row.epsilon:.4g}" + (" at most, by a rougher count" if row.approximate else "")
