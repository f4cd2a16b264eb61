"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import typer

JOB = typer.Argument(
    metavar="JOB", help="A job file, a folder with a job.toml, or the name of an example."
)
JSON = typer.Option(False, "--json", help="Print one JSON object instead.")
AUDIT: Path | None = typer.Option(
    None,
    metavar="FILE",
    help="An audit's result for the statement: what hansa audit privacy JOB --output FILE wrote.",
)
