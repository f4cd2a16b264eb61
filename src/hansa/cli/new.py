"""`hansa new`: a job folder to start from."""

from __future__ import annotations

from pathlib import Path

import typer

from hansa.cli.arguments import JSON
from hansa.cli.output import emit, say


def new(
    name: Path = typer.Argument(metavar="NAME", help="The folder to make; it names the job."),
    template: str = typer.Option("numpy", help="What the task is written with: numpy or torch."),
    json: bool = JSON,
) -> None:
    """Make a job folder that runs as it is.

    It holds a job.toml and a task.py, with comments that say what to change.
    """
    from hansa.scaffold import create

    files = create(name, template)
    if json:
        emit({"folder": str(name), "files": [str(file) for file in files]})
        return
    for file in files:
        say(f"wrote {file}")
    say(f"Next: hansa plan {name}, then hansa simulate {name}")
