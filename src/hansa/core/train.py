"""Training over rounds: from the state that the journal remembers to the last measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hansa.core.contribute import Purpose
from hansa.core.parts import ServerOptimizer
from hansa.core.plan import Plan
from hansa.core.rollback import Accepted
from hansa.core.round import RoundRecord, TrainState, World, run_round
from hansa.core.vector import Vector, sha256
from hansa.errors import RoundVoid

OnRound = Callable[[RoundRecord], None]


def initial_state(plan: Plan, params: Vector, model: str = "") -> TrainState:
    """The state before the first round.

    Args:
      plan: what will run.
      params: (d,) float32; must not be written to afterwards.
      model: SHA-256 of `params`, if it is known.
    """
    server: ServerOptimizer[object] = plan.parts.algorithm.server
    adapts = plan.adapts
    clip = None if adapts is None else adapts.start
    state = TrainState(0, 0, params, model or sha256(params), server.init(params), clip=clip)
    if not plan.job.defend.rollback:
        return state
    return replace(state, accepted=Accepted(0, params, state.model, state.server, clip))


async def train(
    plan: Plan, state: TrainState, world: World, on_round: OnRound | None = None
) -> TrainState:
    """Runs the rounds that are left, then measures the final model on one more cohort.

    A void round is tried again with a new cohort; each try is charged. Where models are judged,
    that measurement judges the last one, and the state that comes back is that of an accepted one.

    Args:
      plan: what to run.
      state: where to start: `initial_state`, or what a journal remembers.
      world: where to run.
      on_round: called with each record, also of void rounds.

    Raises:
      RoundVoid: one round was void `rounds.attempts` times; the state before it is recorded.
      BudgetExceeded: the budget does not cover the next round.
    """
    rounds = plan.job.rounds
    while state.round < rounds.count and not _stopped(plan, state):
        state, record = await run_round(plan, state, world)
        if on_round is not None:
            on_round(record)
        if record.void and state.attempt >= rounds.attempts:
            raise _void(plan, record, state.attempt)
    if plan.measures:
        state, record = await run_round(plan, state, world, Purpose.EVALUATE)
        if on_round is not None:
            on_round(record)
    return state


def _void(plan: Plan, record: RoundRecord, attempts: int) -> RoundVoid:
    """Why training ends: too few updates, or a sum that cannot be."""
    times = f"round {record.round} was void {attempts} times"
    if len(record.members) < plan.quorum:
        return RoundVoid(
            f"{times}: at most {len(record.members)} of the {plan.quorum} updates that it needs "
            "arrived",
            fix="see why clients dropped out, lower rounds.quorum or raise rounds.deadline",
        )
    why = record.dropouts[-1].reason if record.dropouts else "its sum could not be used"
    return RoundVoid(f"{times}: {why}", fix="find out which client sends what it should not")


def _stopped(plan: Plan, state: TrainState) -> bool:
    """Early stop: the watched metric has not improved for `patience` measurements."""
    return 0 < plan.job.rounds.patience <= state.stale
