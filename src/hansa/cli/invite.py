"""`hansa invite` and `hansa revoke`: letting a site into a federation, and out of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from hansa.cli.output import emit, say

COORDINATOR = typer.Option(
    Path("coordinator"), "--coordinator", help="The coordinator's folder, or its operator.json."
)


def invite(
    site: str = typer.Argument(help="Name that the site will have in the federation."),
    organisation: str = typer.Option("", help="Whose site it is; the site's name if left out."),
    coordinator: Path = COORDINATOR,
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Make a one-time invite for a site."""
    from hansa.coordinator.inviting import invite as make

    text = make(coordinator, site, organisation or site, datetime.now(UTC))
    if json:
        emit({"site": site, "invite": text})
        return
    print(text)


def revoke(
    site: str = typer.Argument(help="The site to shut out."),
    reason: str = typer.Option("revoked by an operator", help="Why; the site is told."),
    coordinator: Path = COORDINATOR,
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Shut a site out of the federation at once."""
    from hansa.remote import Remote

    told = Remote.load(coordinator).revoke(site, reason)
    if json:
        emit(told)
        return
    say(f"Site '{site}' is refused from now on.")
