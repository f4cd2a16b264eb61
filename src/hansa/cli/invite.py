"""`hansa invite`, `revoke`, `sites`: letting a site into a federation, out of it, who is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from hansa.cli.arguments import JSON
from hansa.cli.output import emit, say, table

COORDINATOR = typer.Option(
    Path("coordinator"), "--coordinator", help="The coordinator's folder, or its operator.json."
)


def invite(
    site: str = typer.Argument(
        metavar="SITE", help="Name that the site will have in the federation."
    ),
    organisation: str = typer.Option("", help="Whose site it is; the site's name if left out."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Make a one-time invite for a site."""
    from hansa.coordinator.inviting import invite as make

    text = make(coordinator, site, organisation or site, datetime.now(UTC))
    if json:
        emit({"site": site, "invite": text})
        return
    print(text)


def revoke(
    site: str = typer.Argument(metavar="SITE", help="The site to shut out."),
    reason: str = typer.Option("revoked by an operator", help="Why; the site is told."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Shut a site out of the federation at once.

    Its connection and its calls end now, and its name is refused for good; what it delivered before
    stays counted.
    """
    from hansa.remote import Remote

    told = Remote.load(coordinator).revoke(site, reason)
    if json:
        emit(told)
        return
    say(f"Site '{site}' is refused from now on.")


def sites(
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """List the sites of a federation, and who attends."""
    from hansa.news import moment
    from hansa.remote import Remote

    rows = Remote.load(coordinator).sites()
    if json:
        emit({"sites": rows})
        return
    if not rows:
        say("No site has joined yet: hansa invite SITE")
        return
    table(
        ("Site", "Organisation", "Joined (UTC)", "Now"),
        [
            (
                row["name"],
                row["organisation"],
                moment(row["enrolled"]),
                "revoked" if row["revoked"] else "attends" if row["attending"] else "away",
            )
            for row in rows
        ],
    )
