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
SET: list[str] = typer.Option(
    [],
    "--set",
    metavar="KEY=VALUE",
    help="A value instead of the job's, such as algorithm.client_lr=0.1; may be repeated.",
)
MLFLOW: str | None = typer.Option(
    None,
    metavar="URI",
    help="Log to MLflow, too: sqlite:///mlflow.db or a server's address. Needs hansa[mlflow].",
)
EXPERIMENT: str | None = typer.Option(
    None, metavar="NAME", help="MLflow experiment; the job's name if it is left out."
)
