"""`hansa coordinator`: make a coordinator's folder, and run it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import typer

from hansa.cli.group import OPTIONS
from hansa.cli.output import say

app = typer.Typer(help="Make and run a coordinator.", **OPTIONS)

FOLDER = typer.Argument(metavar="FOLDER", help="The coordinator's folder.")


@app.command()
def init(
    folder: Path = FOLDER,
    federation: str = typer.Option(..., help="Name of the federation: a-z, 0-9, '-', '.'."),
    host: str = typer.Option("localhost", help="Name or address under which sites reach it."),
    listen: str = typer.Option("127.0.0.1", help="Address to listen on."),
    sites_port: int = typer.Option(7431, help="Port of the sites' door (mTLS)."),
    enrol_port: int = typer.Option(7432, help="Port where invited sites join."),
    people_port: int = typer.Option(7433, help="Port of the people's door (HTTPS)."),
    store: str = typer.Option("", help="URL of a PostgreSQL; SQLite in the folder if left out."),
) -> None:
    """Make a coordinator's folder: authority, keys, settings."""
    from hansa.coordinator import config

    settings = config.Settings(
        federation=federation,
        host=host,
        listen=listen,
        sites_port=sites_port,
        enrol_port=enrol_port,
        people_port=people_port,
        store=store,
    )
    authority = config.init(folder, settings, datetime.now(UTC))
    say(f"Federation '{federation}' has its coordinator in {folder}.")
    say(f"Root fingerprint: {authority.root_fingerprint}")
    say("Next:")
    say(f"hansa coordinator serve {folder}", "  ")
    say(f"hansa invite SITE --coordinator {folder}", "  ")


@app.command()
def serve(folder: Path = FOLDER) -> None:
    """Run a coordinator until it is told to stop."""
    from hansa.coordinator.serve import Coordinator, serve_until_signalled

    log_to_stderr()

    def ready(coordinator: Coordinator) -> None:
        s = coordinator.settings
        say(
            f"Federation '{s.federation}' is served on {s.listen}: sites {s.sites_port}, "
            f"enrolment {s.enrol_port}, people {s.people_port}."
        )

    asyncio.run(serve_until_signalled(folder, ready))


def log_to_stderr() -> None:
    """Plain lines with a time in UTC, for a terminal, a file or a journal."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%FT%TZ"
    )
