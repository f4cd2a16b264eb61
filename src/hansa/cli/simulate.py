"""`hansa simulate`: a whole training run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import ADDRESS, ENGINE, EXPERIMENT, JSON, MLFLOW, SET
from hansa.cli.output import Progress, emit, heading, note, say, table
from hansa.cli.standing_table import show_standing

if TYPE_CHECKING:
    from hansa.core.job import Job
    from hansa.core.plan import Plan
    from hansa.core.round import RoundRecord
    from hansa.runs.recorder import Listener, Recorder
    from hansa.simulation import Result


def simulate(
    job: str | None = typer.Argument(
        None,
        metavar="[JOB]",
        help="A job file, a folder with a job.toml, or the name of an example; with --resume, the "
        "run's own if it is left out.",
        show_default=False,
    ),
    clients: int | None = typer.Option(None, min=1, help="Clients, instead of the job's."),
    rounds: int | None = typer.Option(None, min=1, help="Rounds, instead of the job's."),
    seed: int | None = typer.Option(None, min=0, help="Seed, instead of the job's."),
    changes: list[str] = SET,
    engine: str | None = ENGINE,
    address: str | None = ADDRESS,
    debug_clients: bool = typer.Option(
        False, "--debug-clients", help="Stop at the first client that fails, and say why."
    ),
    skip_masks: bool = typer.Option(
        False, "--skip-masks", help="Sum without secure aggregation: the same result, sooner."
    ),
    output: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="New folder for what the run leaves; runs/NAME-001 and so on, in the current folder, "
        "if it is left out.",
    ),
    no_output: bool = typer.Option(False, "--no-output", help="Write no folder."),
    resume: Path | None = typer.Option(
        None, metavar="FOLDER", help="Go on with the run in FOLDER from its last checkpoint."
    ),
    checkpoint_every: int = typer.Option(
        0, min=0, help="Rounds between checkpoints; 0: as often as takes 1 % of the time at most."
    ),
    keep_checkpoints: int = typer.Option(2, min=0, help="Checkpoints that are kept; 0: all."),
    mlflow: str | None = MLFLOW,
    experiment: str | None = EXPERIMENT,
    devices: Path | None = typer.Option(
        None,
        metavar="FILE.toml",
        help="Who is online when, how fast, and who vanishes: rounds end by a virtual clock.",
    ),
    json: bool = JSON,
) -> None:
    """Run a job with all its clients on this machine.

    The same plan and the same rounds as in a federation. Noise is drawn from the seed, so a
    simulation shows what a job does and protects nobody, and its result is always the same: to the
    bit, or to about 1e-4 where a long job trains PyTorch clients in stacks (--engine workers does
    not). The run is written to a folder as it goes: metrics, checkpoints, the model, and all that
    it followed from.
    """
    _check_options(job, output, no_output, resume, (clients, rounds, seed), changes, mlflow, engine)
    from hansa.runs import Pace, Recorder, Source
    from hansa.runs.folder import read_status
    from hansa.runs.settings import assignments

    overrides = assignments(changes)
    if resume is not None and read_status(resume).done:
        _show_again(resume, json)
        return
    listeners = _listeners(mlflow, experiment)
    pace = Pace(checkpoint_every, keep_checkpoints)
    if resume is not None:
        recorder = Recorder.resume(resume, pace, listeners, engine)
        loaded = recorder.job(None if job is None else _load(job, overrides))
        devices = recorder.devices(devices)
    else:
        assert job is not None  # noqa: S101  checked above
        loaded = _load(job, overrides)
        named = {"cohort.population": clients, "rounds.count": rounds, "seed": seed}
        given = {name: value for name, value in named.items() if value is not None}
        source = Source.of(job, {**overrides, **given}, devices)
        recorder = Recorder(output, source, pace, listeners, engine=engine or "auto")
    words = {
        "clients": clients,
        "seed": seed,
        "rounds": rounds,
        "engine": recorder.engine,
        "address": address,
        "debug": debug_clients,
        "masked": not skip_masks,
        "devices": devices,
    }
    try:
        result, said = _run(loaded, None if no_output else recorder, words)
    finally:
        for line in recorder.notes:
            note(line)
    if json:
        emit(said)
    else:
        _show(result, said)


def _run(
    job: Job, recorder: Recorder | None, words: dict[str, Any]
) -> tuple[Result, dict[str, Any]]:
    """Runs the job, with progress on stderr; the result, and what `--json` prints of it."""
    from dataclasses import asdict

    from hansa.core.contribute import Purpose
    from hansa.news import rejected_words
    from hansa.runs.outcome import outcome
    from hansa.simulation import simulate as run

    with Progress("round", words["rounds"] or job.rounds.count) as progress:

        def heard(record: RoundRecord) -> None:
            if recorder is not None:
                recorder.heard(record)
            if record.void:
                progress.note(f"round {record.round + 1} was void: {_left_out(record)}")
            elif record.purpose is Purpose.TRAIN:
                progress.step(_line(record), len(record.members))
            if record.rejected is not None:
                last = record.purpose is Purpose.EVALUATE
                name = "after the last round" if last else f"round {record.round + 1}"
                progress.note(f"{name}: {rejected_words(asdict(record.rejected), first=1)}")

        if recorder is None:
            result = run(job, on_round=heard, **words)
            return result, {**outcome(result), "folder": None}
        with recorder:
            recorder.on_begin = progress.begin
            result = run(job, on_round=heard, keeper=recorder, **words)
            return result, recorder.finish(result)


def _check_options(
    job: str | None,
    output: Path | None,
    no_output: bool,
    resume: Path | None,
    numbers: tuple[int | None, ...],
    changes: list[str],
    mlflow: str | None,
    engine: str | None,
) -> None:
    """Refuses options that contradict each other; the engine's name is looked up, too."""
    check_engine(engine)
    if job is None and resume is None:
        raise typer.BadParameter("name a job, or a run to go on with: --resume FOLDER")
    if resume is not None and (output is not None or no_output):
        raise typer.BadParameter("a run that goes on stays in its folder", param_hint="--resume")
    if job is None and (changes or any(number is not None for number in numbers)):
        raise typer.BadParameter(
            "without JOB a run goes on with the job that it began with: leave out --set, "
            "--clients, --rounds and --seed",
            param_hint="--resume",
        )
    if no_output and output is not None:
        raise typer.BadParameter("either --output or --no-output", param_hint="--no-output")
    if no_output and mlflow is not None:
        raise typer.BadParameter(
            "what is sent to MLflow is taken from the run's folder", param_hint="--no-output"
        )


def check_engine(name: str | None) -> None:
    """Refuses an engine that there is not."""
    from hansa.nearest import suggest
    from hansa.simulation import ENGINES

    if name is not None and name not in ENGINES:
        raise typer.BadParameter(
            f"there is no engine '{name}': {suggest(name, ENGINES, 'engines')}",
            param_hint="--engine",
        )


def _load(job: str, overrides: dict[str, Any]) -> Job:
    from hansa.jobfile import load_job

    return load_job(job, overrides)


def _listeners(mlflow: str | None, experiment: str | None) -> list[Listener]:
    if mlflow is None:
        return []
    from hansa.runs.tracking import Tracking

    return [Tracking.to(mlflow, experiment)]


def _show_again(folder: Path, json: bool) -> None:
    """A run that is over has its result already."""
    from hansa.runs.disk import read_json
    from hansa.runs.folder import RESULT, read_status

    said = read_json(folder / RESULT)
    if json:
        emit(said)
        return
    say(f"The run in {folder} is over: {read_status(folder).because}.")
    say(f"model  {said['model_sha256']}")


def _show(result: Result, said: dict[str, Any]) -> None:
    plan: Plan = result.plan
    say(
        f"{plan.job.name}: {said['rounds']} rounds, {result.seconds_per_round:.3g} s a round, "
        f"{result.clients_per_second:.3g} clients a second."
    )
    if said["rounds"] < plan.job.rounds.count:
        say(f"Stopped early: {said['ended_because']}.")
    say(f"Engine: {result.engine}, because {result.engine_because}.")
    if result.virtual_seconds is not None:
        say(f"On these devices the run would take {_span(result.virtual_seconds)}.")
    if "rejected" in said:
        show_rejected(said["rejected"])
    if "standing" in said:
        show_standing(said["standing"])
    heading("Final model")
    if plan.private and result.metrics:
        say("The values carry noise, as those of a federation would.")
    if result.metrics:
        known = {metric.name: metric for metric in plan.task.metrics}
        table(
            ("Metric", "Value", "Unit", "Better"),
            [
                (name, _number(value), known[name].unit, known[name].better.name.lower())
                for name, value in said["final"].items()
            ],
        )
    else:
        say("No metrics leave the clients in this job.")
    say(f"model  {result.model_sha256}")
    if said["folder"] is not None:
        say(f"folder {said['folder']}")


def show_rejected(rejected: list[dict[str, Any]]) -> None:
    """Which models were rejected, in the order in which it was seen."""
    from hansa.news import rejected_words

    if not rejected:
        say("No model was rejected.")
        return
    heading("Rejected models")
    for each in rejected:
        train = each["purpose"] == "train"
        name = f"round {each['round'] + 1}" if train else "after the last round"
        say(f"{name}: {rejected_words(each, first=1)}", later="  ")


def _line(record: RoundRecord) -> str:
    """What came of a round; the metrics are those of the model that it started from."""
    told = [f"{name} {_number(value)}" for name, value in record.metrics.items()]
    left = f"  left out: {_left_out(record)}" if record.dropouts else ""
    return "  ".join(told) + _age(record) + left


def _age(record: RoundRecord) -> str:
    """How old the models were that the updates of a round came from, where that varies."""
    if not record.members or not record.ages:
        return ""
    mean = sum(age * count for age, count in enumerate(record.ages)) / len(record.members)
    return f"  models {mean:.1f} rounds old, at most {len(record.ages) - 1}"


def _left_out(record: RoundRecord) -> str:
    reasons = [dropout.reason for dropout in record.dropouts]
    if not reasons:
        return f"{len(record.members)} updates"
    who = "1 client" if len(reasons) == 1 else f"{len(reasons)} clients, the first"
    return f"{who}, because {reasons[0]}"


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
