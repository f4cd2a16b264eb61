"""Sites that attack a real federation: what has a false form is refused, the rest is borne."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from hansa.attacks.catalogue import attack_named
from hansa.attacks.engine import AttackedEngine
from hansa.attacks.site import Attacking, main
from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose, RoundTask, context_of, train_locally
from hansa.core.job import Aggregation, Cohort, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.core.plan import Plan
from hansa.core.round import TrainState, World
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import HansaError
from hansa.privacy.ledger import MemoryLedger
from hansa.site.agent import Agent
from hansa.work.bundle import load_task
from tests.support.federation import LONG, Place, expected, job, outcome, running

CLIPPED = Aggregation(clip=0.5, max_weight=40.0)
ONE = Rounds(count=1, deadline=LONG)


def simulated(plan: Plan, engine: AttackedEngine) -> TrainState:
    """The state after the plan ran by an engine."""
    key = ReplayKey.of_seed(plan.job.seed)
    world = World(
        job=plan.job.name,
        engine=engine,
        ledger=MemoryLedger(plan.charges),
        journal=MemoryJournal(),
        noise=key,
        key=key,
        population=("bremen", "danzig", "kiel"),
    )
    params = load_task(plan.job).initial(plan.job.seed)
    params.flags.writeable = False
    return asyncio.run(train(plan, initial_state(plan, params), world))


def federated(
    place: Place, attack: str, honest: tuple[str, ...] = ("bremen", "danzig"), **words: Any
) -> Any:
    """A job with some sites, of which `kiel` attacks: its plan, records and model."""

    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents(*honest)
            federation.agent("kiel", partial(Agent, contribution=Attacking(attack_named(attack))))
            await federation.attending("kiel")
            job_id, plan = await federation.submit(job(**{"rounds": ONE, **words}))
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return plan, federation.records(job_id), federation.model(job_id)

    return asyncio.run(whole())


REFUSED = {
    "nan": "not finite",
    "scaled": "norm bound",
    "short": "another size",
    "long": "another size",
}


@pytest.mark.parametrize(("attack", "words"), REFUSED.items(), ids=REFUSED)
def test_a_false_form_is_refused_and_the_model_is_that_of_the_others(place, attack, words):
    plan, records, model = federated(place, attack, aggregation=CLIPPED)
    training, measurement = records
    assert training.members == ("bremen", "danzig")
    assert words in training.dropouts[0].reason
    assert measurement.members == ("bremen", "danzig", "kiel")
    state, without = expected(plan, {"kiel"})
    assert outcome(records)[:1] == outcome(without)[:1]
    assert model == state.model


def test_a_flipped_update_turns_a_mean_and_not_a_median(place):
    """Minus five times what it found: with four honest sites a mean goes the wrong way."""
    losses: dict[str, tuple[float, float]] = {}
    honest = ("bremen", "danzig", "luebeck", "riga")
    rounds = Rounds(count=1, deadline=LONG, quorum=5)
    for rule in ("mean", "median"):
        aggregation = Aggregation(rule=rule, weighting="uniform")
        words = {"cohort": Cohort(population=5), "aggregation": aggregation, "rounds": rounds}
        _, records, _ = federated(place, "sign_flip_5", honest, **words)
        assert len(records[0].members) == 5
        losses[rule] = records[1].metrics["loss"], records[0].metrics["loss"]
    assert losses["mean"][0] > losses["mean"][1]
    assert losses["median"][0] < losses["median"][1]


def test_a_site_makes_an_attack_of_its_own_update(place):
    """It sends the opposite of what it would have sent: the model moves as computed from that."""
    plan, records, model = federated(place, "sign_flip")
    assert records[0].members == ("bremen", "danzig", "kiel")
    task = load_task(plan.job)
    params = task.initial(plan.job.seed)
    key = ReplayKey.of_seed(plan.job.seed)
    round_task = RoundTask(plan, 0, 0, Purpose.TRAIN, params, "", key)
    total, weight = np.zeros(len(params)), 0
    for site in ("bremen", "danzig", "kiel"):
        split = task.data(Site(site, {}))
        ctx = context_of(round_task, site, task, split)
        delta, _ = train_locally(round_task, ctx, split)
        total += (-1 if site == "kiel" else 1) * len(split.train) * delta.astype(float)
        weight += len(split.train)
    engine = AttackedEngine(
        InlineEngine(task, lambda name: task.data(Site(name, {}))),
        attack_named("sign_flip"),
        frozenset({"kiel"}),
        omniscient=False,
    )
    state = simulated(plan, engine)
    assert model == state.model
    np.testing.assert_allclose(state.params, params + total / weight, rtol=1e-5, atol=1e-6)


def test_the_command_runs_an_agent_that_attacks(place):
    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents("bremen", "danzig")
            command = [sys.executable, "-m", "hansa.attacks.site", str(place.site("kiel"))]
            site = subprocess.Popen(  # noqa: ASYNC220  it is waited for in a thread
                [*command, "--attack", "nan"],
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                await federation.attending("kiel")
                job_id, _ = await federation.submit(job(rounds=ONE))
                await federation.ended(job_id)
                site.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(site.wait, LONG) == 0
                return federation.records(job_id)
            finally:
                site.kill()
                site.wait()

    training, measurement = asyncio.run(whole())
    assert training.members == ("bremen", "danzig")
    assert "not finite" in training.dropouts[0].reason
    assert measurement.members == ("bremen", "danzig", "kiel")


def test_a_site_alone_does_not_know_the_rule(capsys):
    with pytest.raises(HansaError, match="a site alone cannot do 'adaptive_ipm'"):
        Attacking(attack_named("adaptive_ipm"))
    with pytest.raises(SystemExit):
        main(["folder", "--attack", "adaptive_ipm"])
    assert "invalid choice" in capsys.readouterr().err
