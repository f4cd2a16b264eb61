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
ENGINE: str | None = typer.Option(
    None,
    help="What runs the clients: inline, one after the other; workers, in a process for each "
    "core, and ray, on a Ray cluster, with the same result. vector, as workers and with several "
    "clients in one pass: equal to about 1e-4, not to the bit. auto, whichever of inline, workers "
    "and vector is sooner. auto if it is left out; with --resume, the run's own.",
    show_default=False,
)
ADDRESS: str | None = typer.Option(
    None,
    metavar="HOST:PORT",
    help="The Ray cluster for --engine ray; the one that this machine is part of, if it is left "
    "out.",
)
BY: str | None = typer.Option(
    None, metavar="METRIC", help="Sort by this metric; by the one that the job watches if left out."
)
