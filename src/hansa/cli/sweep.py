"""`hansa sweep`: one job with many values, each in a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import ADDRESS, BY, ENGINE, EXPERIMENT, JSON, MLFLOW
from hansa.cli.output import Progress, emit, note, say, wrapped
from hansa.errors import Refused

if TYPE_CHECKING:
    from hansa.runs.compare import Comparison
    from hansa.runs.folder import Status
    from hansa.runs.settings import Combination
    from hansa.runs.sweep import Candidate, Sweep


def sweep(
    job: str | None = typer.Argument(
        None,
        metavar="[JOB]",
        help="A job file, a folder with a job.toml, or the name of an example; none with --resume.",
        show_default=False,
    ),
    changes: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUES",
        help="Values to try: algorithm.client_lr=0.01,0.1,1; with --random also a range: "
        "log:0.001..1, uniform:0.1..0.4 or int:10..50. May be repeated.",
    ),
    random: int = typer.Option(
        0, min=0, metavar="N", help="Draw N combinations; 0: every combination of the values."
    ),
    search_seed: int = typer.Option(
        0, min=0, help="Seed of the drawing; all runs have the job's own seed unless it is tried."
    ),
    parallel: int = typer.Option(1, min=1, metavar="P", help="Runs at a time, a process for each."),
    by: str | None = BY,
    output: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="New folder for the sweep; runs/NAME-sweep-001 and so on, in the current folder, if "
        "it is left out.",
    ),
    resume: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Go on with the sweep in FOLDER; what is over is not run again.",
    ),
    skip_refused: bool = typer.Option(
        False, "--skip-refused", help="Leave out combinations whose plan is refused."
    ),
    engine: str | None = ENGINE,
    address: str | None = ADDRESS,
    mlflow: str | None = MLFLOW,
    experiment: str | None = EXPERIMENT,
    json: bool = JSON,
) -> None:
    """Run a job with many values, and compare the runs.

    The plan of every combination is checked before anything runs; if some are refused, nothing
    runs, and each is listed with its reason. A run that fails does not end the others; the exit
    code is then 1.
    """
    from hansa.cli.simulate import check_engine

    check_engine(engine)
    if (job is None) == (resume is None):
        raise typer.BadParameter("name a job, or a sweep to go on with: --resume FOLDER")
    if resume is not None and (changes or output is not None or random):
        raise typer.BadParameter("the sweep has its values already", param_hint="--resume")
    if address is not None and engine != "ray" and (engine is not None or resume is None):
        raise typer.BadParameter(
            "an address is for the engine ray: add --engine ray, or leave the address out",
            param_hint="--address",
        )
    if resume is not None:
        from hansa.runs.sweep import read

        found = read(resume)
        _check_metric(found, by)
    else:
        assert job is not None  # noqa: S101  checked above
        chosen = engine or ("inline" if parallel > 1 else "auto")
        found = _prepared(job, changes, random, search_seed, output, chosen, skip_refused, json, by)
    options = [] if address is None else ["--address", address]
    options += _options(found, mlflow, experiment, engine if resume is not None else None)
    comparison = _run(found, parallel, options, by)
    failed = [row for row in comparison.rows if row.state not in ("finished", "stopped")]
    if json:
        emit({"folder": str(found.at), **comparison.to_json(), "refused": _refused(found)})
    else:
        from hansa.cli.runs import show

        show(comparison)
        say(f"folder {found.at}")
    if failed:
        raise typer.Exit(1)


def _prepared(
    job: str,
    changes: list[str],
    random: int,
    seed: int,
    output: Path | None,
    engine: str,
    skip: bool,
    json: bool,
    by: str | None,
) -> Sweep:
    """A new sweep, its plans checked and its folders made."""
    from hansa.nearest import suggest
    from hansa.runs.settings import drawn, grid, settings
    from hansa.runs.sweep import check, prepare

    if not changes:
        raise typer.BadParameter("name what to try, such as --set algorithm.client_lr=0.01,0.1,1")
    tried = settings(changes)
    combinations = drawn(tried, random, seed) if random else grid(tried)
    note(f"{len(combinations)} combinations are checked.")
    if random > len(combinations):
        note(f"There are no more than {len(combinations)} different ones.")
    candidates = check(job, combinations)
    _tell_refused(candidates, skip, json)
    metrics = {m.name for c in candidates if c.plan is not None for m in c.plan.task.metrics}
    if by is not None and by not in metrics:
        raise typer.BadParameter(
            f"no run measures '{by}': {suggest(by, metrics, 'metrics')}", param_hint="--by"
        )
    about = {"settings": changes, "random": random, "search_seed": seed}
    return prepare(job, candidates, output, engine, about)


def _tell_refused(candidates: list[Candidate], skip: bool, json: bool) -> None:
    """Lists what is refused, and ends there unless it may be left out."""
    from hansa.report import problems
    from hansa.runs.settings import label

    refused = [c for c in candidates if c.error is not None]
    if not refused:
        return
    if json and not skip:
        emit(
            {
                "folder": None,
                "by": None,
                "better": None,
                "best": None,
                "runs": [],
                "refused": [_entry(c.values, str(c.error)) for c in refused],
            }
        )
    alike: dict[str, list[Candidate]] = {}
    for candidate in refused:
        alike.setdefault(str(candidate.error), []).append(candidate)
    note(f"{len(refused)} of {len(candidates)} combinations are refused.")
    for same in alike.values():
        note("")
        for candidate in same:
            note(wrapped(label(candidate.values), "- ", "  "))
        error = same[0].error
        assert error is not None  # noqa: S101  these are the refused ones
        for problem in problems(error):
            where = f"{problem.part}: " if problem.part else ""
            note(wrapped(f"{where}{problem.because}.", "    "))
            note(wrapped(f"Fix: {problem.fix}.", "    "))
    note("")
    if not skip or len(refused) == len(candidates):
        raise Refused(
            "nothing ran, since some combinations are refused",
            fix="leave them out with --skip-refused, or change the values",
        )


def _check_metric(found: Sweep, by: str | None) -> None:
    """Refuses to sort by what is not measured, before hours are spent."""
    if by is not None:
        from hansa.runs.compare import compare

        compare(found.runs[:1], by)


def _options(
    found: Sweep, mlflow: str | None, experiment: str | None, engine: str | None
) -> list[str]:
    """What each run is told beside its folder; MLflow is tried before the first one."""
    words = [] if engine is None else ["--engine", engine]
    if mlflow is None:
        return words
    from hansa.runs.tracking import Tracking

    Tracking.to(mlflow, experiment).experiment_of(found.name)
    return [*words, "--mlflow", mlflow, "--experiment", experiment or found.name]


def _run(found: Sweep, parallel: int, options: list[str], by: str | None) -> Comparison:
    """Runs what is left, and writes the comparison, also after Ctrl-C."""
    from hansa.runs.compare import compare, write
    from hansa.runs.folder import Lock
    from hansa.runs.processes import Processes

    lock, left = Lock(found.at), found.left
    try:
        with Progress("run", len(found.runs), len(found.runs) - len(left)) as progress:

            def ended(at: Path, status: Status) -> None:
                progress.step(_line(at, status))

            Processes(parallel, options).run(left, ended)
    except KeyboardInterrupt:
        note(f"\nThe sweep can go on with: hansa sweep --resume {found.at}")
        raise
    finally:
        comparison = compare(found.runs, by, found.keys)
        write(found.at, comparison, f"{found.name}: {found.at.name}")
        lock.release()
    return comparison


def _line(at: Path, status: Status) -> str:
    from hansa.runs.compare import compare

    final = compare([at]).rows[0].final
    told = "  ".join(f"{n} {v:.4f}" for n, v in final.items() if v is not None)
    return f"{at.name} {status.state}  {told if status.done else status.because}"


def _entry(values: Combination, because: str) -> dict[str, Any]:
    return {"values": dict(values), "because": because}


def _refused(found: Sweep) -> list[dict[str, Any]]:
    from hansa.runs.disk import read_json
    from hansa.runs.folder import SWEEP

    refused: list[dict[str, Any]] = read_json(found.at / SWEEP)["refused"]
    return refused
