"""`hansa simulate`: a whole training run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import JOB, JSON
from hansa.cli.output import Progress, emit, heading, say, table

if TYPE_CHECKING:
    from hansa.core.round import RoundRecord
    from hansa.simulation import Result


def simulate(
    job: str = JOB,
    clients: int | None = typer.Option(None, min=1, help="Clients, instead of the job's."),
    rounds: int | None = typer.Option(None, min=1, help="Rounds, instead of the job's."),
    seed: int | None = typer.Option(None, min=0, help="Seed, instead of the job's."),
    engine: str = typer.Option(
        "auto",
        help="What runs the clients: inline, one after the other; workers, in a process for each "
        "core; auto, whichever is sooner; their result is the same. vector, as workers and with "
        "several clients in one pass: equal to about 1e-4, not to the bit.",
    ),
    debug_clients: bool = typer.Option(
        False, "--debug-clients", help="Stop at the first client that fails, and say why."
    ),
    skip_masks: bool = typer.Option(
        False, "--skip-masks", help="Sum without secure aggregation: the same result, sooner."
    ),
    json: bool = JSON,
) -> None:
    """Run a job with all its clients on this machine.

    The same plan and the same rounds as in a federation, and always the same result: noise is
    drawn from the seed, so a simulation shows what a job does and protects nobody.
    """
    from hansa.core.contribute import Purpose
    from hansa.jobfile import load_job
    from hansa.nearest import suggest
    from hansa.simulation import ENGINES
    from hansa.simulation import simulate as run

    if engine not in ENGINES:
        raise typer.BadParameter(
            f"there is no engine '{engine}': {suggest(engine, ENGINES, 'engines')}",
            param_hint="--engine",
        )
    loaded = load_job(job)
    with Progress("round", rounds or loaded.rounds.count) as progress:

        def heard(record: RoundRecord) -> None:
            if record.void:
                progress.note(f"round {record.round + 1} was void: {_left_out(record)}")
            elif record.purpose is Purpose.TRAIN:
                progress.step(_line(record))

        result = run(
            loaded,
            clients=clients,
            seed=seed,
            rounds=rounds,
            engine=engine,
            on_round=heard,
            debug=debug_clients,
            masked=not skip_masks,
        )
    values = [
        record.metrics
        for record in result.records
        if record.purpose is Purpose.TRAIN and not record.void
    ]
    if json:
        emit(_object(result, values))
    else:
        _show(result, len(values))


def _object(result: Result, values: list[dict[str, float | None]]) -> dict[str, Any]:
    return {
        "job": result.plan.job.name,
        "plan_digest": result.plan.digest,
        "engine": result.engine,
        "engine_because": result.engine_because,
        "rounds": len(values),
        "seconds_per_round": result.seconds_per_round,
        "clients_per_second": result.clients_per_second,
        "metrics": values,
        "final": _final(result),
        "model_sha256": result.model_sha256,
    }


def _show(result: Result, rounds: int) -> None:
    say(
        f"{result.plan.job.name}: {rounds} rounds, {result.seconds_per_round:.3g} s a round, "
        f"{result.clients_per_second:.3g} clients a second."
    )
    say(f"Engine: {result.engine}, because {result.engine_because}.")
    heading("Final model")
    if result.plan.private and result.metrics:
        say("The values carry noise, as those of a federation would.")
    if result.metrics:
        known = {metric.name: metric for metric in result.plan.task.metrics}
        table(
            ("Metric", "Value", "Unit", "Better"),
            [
                (name, _number(value), known[name].unit, known[name].better.name.lower())
                for name, value in _final(result).items()
            ],
        )
    else:
        say("No metrics leave the clients in this job.")
    say(f"model  {result.model_sha256}")


def _final(result: Result) -> dict[str, float | None]:
    """The values of the final model; nobody trained on it, so it has no training loss."""
    return {name: value for name, value in result.metrics.items() if name != "train_loss"}


def _line(record: RoundRecord) -> str:
    """What came of a round; the metrics are those of the model that it started from."""
    told = [f"{name} {_number(value)}" for name, value in record.metrics.items()]
    left = f"  left out: {_left_out(record)}" if record.dropouts else ""
    return "  ".join(told) + left


def _left_out(record: RoundRecord) -> str:
    reasons = [dropout.reason for dropout in record.dropouts]
    if not reasons:
        return f"{len(record.members)} updates"
    who = "1 client" if len(reasons) == 1 else f"{len(reasons)} clients, the first"
    return f"{who}, because {reasons[0]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
