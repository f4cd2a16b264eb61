"""Arguments and options that several verbs share."""

from __future__ import annotations

import typer

JOB = typer.Argument(
    metavar="JOB", help="A job file, a folder with a job.toml, or the name of an example."
)
JSON = typer.Option(False, "--json", help="Print one JSON object instead.")
