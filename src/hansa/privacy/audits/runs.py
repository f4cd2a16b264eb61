"""Runs of a job's own plan with canaries in it, and the scores that an attacker gives them.

    coins ──► canaries ──► the plan's stages, sums, mechanism ──► public mean ──► score
               in or out     as in a federation, fresh noise        round by round

The attacker sees every public mean (white box) and knows the canaries, not their coins.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from hansa.assembly import clip_of, weight_of
from hansa.core.keys import Noise, ReplayKey, SecretNoise
from hansa.core.parts import Model, Relation, Split
from hansa.core.plan import Plan
from hansa.core.round import World, run_round
from hansa.core.train import initial_state
from hansa.core.vector import Vector
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import RoundVoid
from hansa.privacy.audits.canaries import (
    OVERSHOOT,
    Blocks,
    CanaryWork,
    Deltas,
    Watched,
    fair_coins,
    split_of,
)
from hansa.privacy.audits.one_run import Coins, Floats
from hansa.privacy.audits.scores import Scores, pooled
from hansa.privacy.audits.silence import Silence, silenced
from hansa.privacy.ledger import MemoryLedger

_Result = TypeVar("_Result")

_ENOUGH = 24
"""Coordinates from which the noise at a canary is measured well enough to be divided by."""

_LEAST = 1e-9
"""Noise, in canaries, that counts as none."""


def canary_clients(
    plan: Plan, model: Model, count: int, key: ReplayKey, *, noise: bool = True
) -> Scores:
    """Scores of canary clients, over as many runs as it takes.

    Where neighbours differ by a client more or less, a canary that is out holds no data; where one
    is replaced by another, it sends the opposite update.

    Args:
      plan: the job's own plan; it runs for as many rounds as it says.
      model: the mathematics of the task; nothing is trained.
      count: number of canaries.
      key: of the canaries and their coins. Noise and cohorts are fresh in each run.
      noise: false: without any noise.

    Raises:
      RoundVoid: draws below the quorum, again and again.
    """
    size, population = plan.task.schema.size, plan.parts.sampler.population
    found: list[Scores] = []
    while (done := sum(len(scores.coins) for scores in found)) < count:
        part = key.derive("run", len(found))
        blocks = Blocks.draw(min(population, count - done), size, part)
        coins = fair_coins(blocks.count, part)
        found.append(Scores(_client_run(plan, model, blocks, coins, noise=noise), coins))
    return pooled(found)


def _client_run(plan: Plan, model: Model, blocks: Blocks, coins: Coins, *, noise: bool) -> Floats:
    names = tuple(f"client-{i:04d}" for i in range(1, plan.parts.sampler.population + 1))
    bound = clip_of(plan.job) or 1.0
    opposite = plan.relation is Relation.REPLACE_ONE
    sign = {True: 1.0, False: -1.0 if opposite else 0.0}
    lengths = {
        name: sign[bool(coin)] * OVERSHOOT * bound for name, coin in zip(names, coins, strict=False)
    }
    weight = weight_of(plan.job).bound
    present = split_of(1 if math.isinf(weight) else math.ceil(weight))
    absent = split_of(0)

    def data(client: str) -> Split:
        return present if lengths.get(client) else absent

    work = CanaryWork(plan.parts.algorithm.work, Deltas(blocks, lengths))
    seen = watch(plan, model, work, data, names, lambda _, step: blocks.look(step), noise=noise)
    found, rest = np.zeros(blocks.count), np.zeros(blocks.count)
    expected = plan.parts.sampler.expected
    for (inside, energy), clip in seen:
        unit = expected / (bound if clip is None else clip)
        found += inside * unit
        rest += energy * unit**2
    rounds = len(seen)
    share = expected / plan.parts.sampler.population
    middle = 0.0 if opposite else rounds * share / 2
    degrees = rounds * (blocks.width - 1)
    spread = np.sqrt(rest / degrees) if degrees >= _ENOUGH else np.ones(blocks.count)
    scores: Floats = (found - middle) / np.maximum(spread, _LEAST)
    return scores


def watch(
    plan: Plan,
    model: Model,
    work: Any,
    data: Callable[[str], Split],
    population: Sequence[str],
    look: Callable[[Vector, Vector], Any],
    *,
    noise: bool,
) -> list[tuple[Any, float | None]]:
    """What is seen of each round of one run, with the round's norm bound where it adapts.

    The plan's stages, sampler, aggregator and mechanism run as they are, with fresh randomness.
    Masks are left out: they cancel exactly.

    Args:
      plan: the job's own plan.
      model: the mathematics of the task.
      work: what clients do, in place of the plan's own work.
      data: each client's examples.
      population: the clients' names.
      look: what is kept of a round, from the parameters before it and its public mean.
      noise: false: without any noise.

    Raises:
      RoundVoid: draws below the quorum, again and again.
    """
    algorithm = plan.parts.algorithm
    watched = replace(algorithm, work=work, server=Watched(algorithm.server, look))
    running = plan if noise else silenced(plan)
    running = replace(running, parts=replace(running.parts, algorithm=watched))
    source: Noise = SecretNoise.fresh() if noise else Silence()
    world = World(
        job=f"audit of {plan.job.name}",
        engine=InlineEngine(model, data, debug=True, masked=False),
        ledger=MemoryLedger(plan.job.rounds.count * plan.job.rounds.attempts),
        journal=MemoryJournal(),
        noise=source,
        key=ReplayKey(os.urandom(32)),
        population=population,
    )
    params = model.initial(plan.job.seed)
    params.flags.writeable = False
    return _finished(_rounds(running, params, world))


async def _rounds(plan: Plan, params: Vector, world: World) -> list[tuple[Any, float | None]]:
    # Every step is looked at, also of a model that would be rejected: going back hides nothing.
    state, seen = replace(initial_state(plan, params), accepted=None), []
    while state.round < plan.job.rounds.count:
        clip = state.clip
        state, record = await run_round(plan, state, world)
        if not record.void:
            seen.append((state.server[0], clip))
        elif state.attempt >= plan.job.rounds.attempts:
            raise RoundVoid(
                f"round {record.round} of an audit was void {state.attempt} times, with "
                f"{len(record.members)} of the {plan.quorum} clients that it needs",
                fix="lower rounds.quorum, or raise cohort.rate",
            )
    return seen


def _finished(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine, also inside of a running event loop such as a notebook's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
