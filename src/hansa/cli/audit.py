"""`hansa audit`: attacks that test what a job claims."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hansa.cli.arguments import JOB, JSON
from hansa.cli.group import EPILOG, OPTIONS
from hansa.cli.output import emit, heading, note, say, table

if TYPE_CHECKING:
    from hansa.privacy.audits import AuditReport

app = typer.Typer(help="Attack a job to test what it claims.", epilog=EPILOG, **OPTIONS)


@app.callback()
def _group() -> None:
    """Attack a job to test what it claims."""


@app.command(epilog=EPILOG)
def privacy(
    job: str = JOB,
    quick: bool = typer.Option(False, "--quick", help="Fewer canaries and rounds: some seconds."),
    canaries: int = typer.Option(0, min=0, help="Canaries; 0 = 5,000, or 1,000 with --quick."),
    rounds: int = typer.Option(
        0,
        min=0,
        help="Rounds of the job that are attacked; 0 = as many as a minute allows, or it takes to "
        "see.",
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the canaries; noise is always fresh."),
    output: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Write the result, for hansa plan JOB --statement ... --audit FILE.",
    ),
    json: bool = JSON,
) -> None:
    """Attack a job's own plan, and compare with its epsilon.

    Canaries are put in or left out by a coin each, and somebody who sees all that is released
    guesses the coins. The exit code is 2 if the guesses show more than the plan claims, or if the
    attack finds nothing even without noise. A result is of this plan alone: it names its digest.
    """
    from hansa.jobfile import load_job
    from hansa.privacy import audit_file
    from hansa.privacy.audits import audit

    if output is not None:
        audit_file.check_place(output)
    report = audit(
        load_job(job), canaries=canaries, rounds=rounds, quick=quick, seed=seed, on_part=note
    )
    if output is not None:
        audit_file.save(report, output)
        note(f"The result is in {output}.")
    if json:
        emit(report.json())
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(2)


def _show(report: AuditReport) -> None:
    say(
        f"{report.job}: {report.canaries_seen:,} canaries, each one {report.unit}, over "
        f"{report.rounds} of {report.rounds_of_job} rounds; {report.seconds:.3g} s."
    )
    if math.isinf(report.epsilon_claimed):
        say("The job has no differential privacy: nothing is claimed.")
    heading("Epsilon")
    sure = f"{report.confidence:.0%} sure"
    counts = "counts" if report.gaussian else "a second opinion only"
    told = [
        ("claimed", report.epsilon_claimed, f"delta {report.delta:g}, for these rounds"),
        (
            "shown",
            report.epsilon_lower_bound,
            f"lower bound, {sure}; {report.correct} of {report.guesses} guesses right, "
            f"{report.canaries} canaries",
        ),
        ("shown without noise", report.epsilon_lower_bound_noise_off, "must be above 5"),
        ("could be shown", report.epsilon_ceiling, "if all guesses had been right"),
        ("for Gaussian noise", report.epsilon_gaussian_dp, f"lower bound, 99.999% sure; {counts}"),
        ("by rates alone", report.epsilon_clopper_pearson, f"lower bound, {sure}"),
        ("of two Gaussians", report.epsilon_two_gaussians, "an estimate"),
    ]
    table(("", "Epsilon", "What it is"), [(name, _number(v), what) for name, v, what in told])
    say()
    say(
        f"Relation: {report.relation}. Sampling: {report.sampling}."
        + (f" Accountant: {report.accountant}." if report.accountant else "")
    )
    say(f"{report.verdict}.")
    say(f"Plan: {report.plan_digest}")


def _number(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.3f}"
