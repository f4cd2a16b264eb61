"""What came of a run, as one JSON object; and why training ended when it did."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hansa.core.contribute import Purpose
from hansa.core.plan import Plan
from hansa.core.round import TrainState
from hansa.defend.judge import Judged
from hansa.defend.text import standing_words, transition_words
from hansa.runs.disk import finite
from hansa.simulation import Result


def outcome(result: Result) -> dict[str, Any]:
    """A finished run as `hansa simulate --json` prints it, but for the folder.

    A value that JSON cannot hold, such as a loss that is infinite, is null.
    """
    values = [
        record.metrics
        for record in result.records
        if record.purpose is Purpose.TRAIN and not record.void
    ]
    found = {
        "job": result.plan.job.name,
        "plan_digest": result.plan.digest,
        "engine": result.engine,
        "engine_because": result.engine_because,
        "rounds": len(values),
        "ended_because": ending(result.plan, result.state),
        "seconds_per_round": result.seconds_per_round,
        "clients_per_second": result.clients_per_second,
        "metrics": values,
        "final": final(result),
        "model_sha256": result.model_sha256,
    }
    if result.virtual_seconds is not None:
        found["virtual_seconds"] = result.virtual_seconds
        found["rounds_virtual_seconds"] = [r.virtual_seconds for r in result.records]
    if result.plan.job.defend.rollback:
        found["rejected"] = [
            {"purpose": record.purpose.value, "round": record.round, **asdict(record.rejected)}
            for record in result.records
            if record.rejected is not None
        ]
    if result.state.standing is not None:
        found["standing"] = standing(result.state.standing)
    said = finite(found)
    assert isinstance(said, dict)  # noqa: S101  for the type checker
    return said


def final(result: Result) -> dict[str, float | None]:
    """The values of the final model; nobody trained on it, so it has no training loss."""
    return {name: value for name, value in result.metrics.items() if name != "train_loss"}


def standing(judged: Judged) -> dict[str, Any]:
    """Where clients stand at the end, and every transition that led there."""
    return {
        "clients": {
            client: {**standing_words(found), "mean": found.mean, "weight": found.weight}
            for client, found in judged.standings.clients.items()
        },
        "changes": [transition_words(change) for change in judged.changes],
    }


def ending(plan: Plan, state: TrainState) -> str:
    """Why training ended after the rounds that it had."""
    rounds = plan.job.rounds
    if not stopped_early(plan, state):
        return f"all {rounds.count} rounds were run"
    best = "" if state.best is None else f" than {state.best:.4g}"
    return (
        f"{rounds.watch} had no better value{best} in {rounds.patience} measurements "
        f"(rounds.patience), so training stopped after round {state.round} of {rounds.count}"
    )


def stopped_early(plan: Plan, state: TrainState) -> bool:
    """Whether rounds were left when training ended."""
    return state.round < plan.job.rounds.count
