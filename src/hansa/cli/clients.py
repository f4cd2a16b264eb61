"""`hansa clients`: what the clients of a simulation hold, and how much they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import JOB, JSON
from hansa.cli.output import emit, note, say, table
from hansa.errors import HansaError

if TYPE_CHECKING:
    from hansa.core.parts import Task
    from hansa.populations.spread import Spread

_LISTED = 12
"""Clients in the table."""


def clients(
    job: str = JOB,
    most: int = typer.Option(
        1000, min=1, help="Look at no more clients than this, evenly chosen from all of them."
    ),
    picture: Path | None = typer.Option(
        None, metavar="FILE.svg", help="Write a picture: one bar for each client."
    ),
    json: bool = JSON,
) -> None:
    """Show what a simulation's clients hold, and how much they differ.

    Only the classes of training examples are looked at. Sites of a federation are never asked.
    """
    from hansa.jobfile import load_job
    from hansa.populations import counts_of, evenly, spread_of
    from hansa.populations import picture as drawn
    from hansa.simulation import population_of
    from hansa.work.bundle import load_task

    loaded = load_job(job)
    task = load_task(loaded)
    everybody = population_of(loaded, task)
    chosen = [everybody[at] for at in evenly(len(everybody), most)]
    counts, classes = counts_of([_classes(task, name) for name in chosen])
    spread = spread_of(counts)
    if picture is not None:
        _write(picture, drawn(counts, chosen, classes, f"{loaded.name}: who has what"))
        note(f"The picture is in {picture}.")
    if json:
        rows = [
            {"client": name, "examples": int(row.sum()), "by_class": row.tolist()}
            for name, row in zip(chosen, counts, strict=True)
        ]
        emit(
            {
                "population": len(everybody),
                "labels": list(classes),
                **asdict(spread),
                "by_client": rows,
            }
        )
        return
    _show(spread, len(everybody))
    sizes = counts.sum(axis=1).tolist()
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])[:_LISTED]
    table(
        ("Client", "Examples", "By class, of " + _names(classes)),
        [(chosen[i], f"{sizes[i]:,}", _cells(counts[i].tolist())) for i in order],
    )
    if len(chosen) > _LISTED:
        say(f"The {_LISTED} largest are listed; --json has all of them.")


def _classes(task: Task, name: str) -> Any:
    from hansa.core.parts import Site

    targets = task.data(Site(name, {})).train.targets
    if targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise HansaError(
            f"the targets of '{name}' are no classes: {targets.dtype} of shape {targets.shape}",
            fix="this command is about tasks whose targets are one whole number per example",
        )
    return targets.astype("int64")


def _show(spread: Spread, population: int) -> None:
    looked = f"{spread.clients:,}" + (f" of {population:,}" if population != spread.clients else "")
    say(
        f"{looked} clients hold {spread.examples:,} training examples of {spread.classes:,} "
        f"classes: {spread.smallest:,} to {spread.largest:,} each, {spread.median:g} in the middle"
        + (f", {spread.empty:,} hold none" if spread.empty else "")
        + "."
    )
    say(
        f"Sizes differ by a Gini coefficient of {spread.inequality:.2f} (0: all equal). A client "
        f"has {spread.classes_each:.1f} classes in the mean. Mixes of classes lie "
        f"{spread.distance:.2f} from the whole (total variation; 0: all alike)."
    )
    say()


def _names(classes: Sequence[int]) -> str:
    shown = ", ".join(str(each) for each in classes[:10])
    return shown + (", ..." if len(classes) > 10 else "")


def _cells(row: Sequence[int]) -> str:
    return " ".join(str(count) for count in row[:10]) + (" ..." if len(row) > 10 else "")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise HansaError(
            f"{path} cannot be written ({error.strerror})", fix="name another file or folder"
        ) from error
