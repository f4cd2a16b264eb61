"""`hansa standing`: who stands out in a job, what a person decides of it, appeal by replay."""

from __future__ import annotations

from pathlib import Path

import typer

from hansa.cli.arguments import JSON
from hansa.cli.group import OPTIONS
from hansa.cli.invite import COORDINATOR
from hansa.cli.output import emit, say
from hansa.cli.standing_table import show_standing
from hansa.errors import Refused

app = typer.Typer(help="Who stands out in a job: look, release, expel, count again.", **OPTIONS)

JOB = typer.Argument(metavar="JOB", help="The job.")
SITE = typer.Argument(metavar="SITE", help="The quarantined site.")
REASON = typer.Option(..., "--reason", help="Why; it is kept in the audit trail, the site is told.")


@app.command()
def show(job: str = JOB, coordinator: Path = COORDINATOR, json: bool = JSON) -> None:
    """Show where the sites of a job stand, and every transition with its evidence."""
    from hansa.remote import Remote

    said = Remote.load(coordinator).standing(job)
    if json:
        emit(said)
        return
    show_standing(said)


@app.command()
def release(
    job: str = JOB,
    site: str = SITE,
    reason: str = REASON,
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Let a quarantined site in again: watched, and nothing is held against it.

    It is asked from the round after the one that is open. Whoever does it needs the administrator's
    token.
    """
    from hansa.remote import Remote

    said = Remote.load(coordinator).decide_standing(job, site, "release", reason)
    if json:
        emit(said)
        return
    say(f"Site '{site}' is watched from the next round on.")


@app.command()
def expel(
    job: str = JOB,
    site: str = SITE,
    reason: str = REASON,
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Shut a quarantined site out of the federation, in all jobs and for good.

    Its certificate is revoked at once. Whoever does it needs the administrator's token.
    """
    from hansa.remote import Remote

    said = Remote.load(coordinator).decide_standing(job, site, "expel", reason)
    if json:
        emit(said)
        return
    say(f"Site '{site}' is expelled, and refused from now on.")


@app.command()
def replay(job: str = JOB, coordinator: Path = COORDINATOR, json: bool = JSON) -> None:
    """Count all transitions again from the recorded scores, and compare.

    The audit chain and the scores' hashes are checked first. Ends with code 2 if anything differs.
    """
    from hansa.remote import Remote

    said = Remote.load(coordinator).replay_standing(job)
    if json:
        emit(said)
    else:
        say(
            f"{said['rounds']} rounds were counted again, {len(said['changes'])} transitions "
            f"follow; the audit trail has {said['events']:,} entries and is whole."
        )
        for words in said["differences"]:
            say(words, later="  ")
    if not said["agrees"]:
        raise Refused(
            f"what is recorded of job '{job}' does not follow from its scores",
            fix="find out who changed the store; restore it from a copy that agrees",
        )
    if not json:
        say("All agrees with what is recorded.")
