"""Correlated noise over whole rounds: one plan, one key, the same rows after every interruption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.core.events import Gaussian, NoOp, PoissonSampled, SelfComposed
from hansa.core.job import Aggregation, Cohort, Privacy, Rounds
from hansa.core.keys import NoiseSource, ReplayKey, SecretNoise
from hansa.core.parts import Correlated
from hansa.core.plan import Plan
from hansa.core.round import TrainState, run_round
from hansa.core.train import initial_state, train
from hansa.engines.memory import MemoryJournal
from hansa.errors import HansaError, PlanRefused
from hansa.mechanisms.correlated import CorrelatedGaussian
from hansa.privacy.accountants import epsilon
from hansa.privacy.ledger import MemoryLedger
from hansa.privacy.matrices import choose, prefix_error
from tests.support.odd import Silent
from tests.support.toy import plan, run, start, world

PRIVACY = Privacy(mechanism="correlated", clip=1.0, noise_multiplier=2.0, delta=1e-5)
TURNS = Cohort(population=6, sampler="cyclic", separation=2)
WORDS: dict[str, Any] = {
    "privacy": PRIVACY,
    "aggregation": Aggregation(weighting="uniform"),
    "rounds": Rounds(count=8, quorum=2),
    "cohort": TURNS,
}
KINDS = ("blt", "tree", "banded")


def planned(matrix: Any = "blt", **words: Any) -> Plan:
    return plan(**{**WORDS, "privacy": replace(PRIVACY, matrix=matrix), **words})


@pytest.mark.parametrize("matrix", KINDS)
def test_each_participation_costs_one_gaussian(matrix):
    turns = planned(matrix)
    assert isinstance(turns.parts.mechanism, Correlated)
    assert turns.event == SelfComposed(Gaussian(2.0), 4)
    assert turns.charges == 4
    if matrix == "banded":
        assert [turns.charge(n) for n in range(4)] == [Gaussian(2.0), NoOp()] * 2
    else:  # a part of the run may cost more than its share: all is spent with the first
        assert [turns.charge(n) for n in range(4)] == [turns.event, NoOp(), NoOp(), NoOp()]


def test_the_noise_is_found_from_epsilon():
    wanted = replace(PRIVACY, noise_multiplier=0.0, epsilon=4.0)
    found = plan(**{**WORDS, "privacy": wanted})
    noise = found.job.privacy.noise_multiplier
    assert epsilon(SelfComposed(Gaussian(noise), 4), 1e-5) <= 4.0
    assert epsilon(SelfComposed(Gaussian(noise * 0.998), 4), 1e-5) > 4.0


@pytest.mark.parametrize("matrix", ["blt", "tree"])
def test_sampling_amplifies_nothing_of_shared_noise(matrix):
    cohort = Cohort(population=60, sampler="cyclic", separation=2, rate=0.5)
    with pytest.raises(PlanRefused, match="sampling amplifies nothing"):
        planned(matrix, cohort=cohort)


def test_sampling_within_turns_amplifies_what_is_orthogonal():
    cohort = Cohort(population=60, sampler="cyclic", separation=2, rate=0.5)
    found = planned("banded", cohort=cohort)
    assert found.event == SelfComposed(PoissonSampled(0.5, Gaussian(2.0)), 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"privacy": replace(PRIVACY, mechanism="gaussian", matrix="tree")}, "privacy.matrix"),
        ({"privacy": replace(PRIVACY, clip_quantile=0.5)}, "clip_quantile"),
        ({"cohort": Cohort(population=6)}, "come back in the next round"),
        ({"cohort": Cohort(population=60, sampler="poisson", rate=0.5)}, "come back in the next"),
        (
            {"aggregation": Aggregation(weighting="uniform", rule="median")},
            "protects against nobody",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words, said):
    with pytest.raises(PlanRefused, match=said):
        plan(**{**WORDS, **words})


def models(of: Plan, states: list[TrainState], **changed: Any) -> list[str]:
    """Model after each round that is left after the last of some states."""

    async def rounds() -> list[str]:
        state, found = states[-1], []
        while state.round < of.job.rounds.count:
            state, record = await run_round(of, state, world(of, **changed))
            assert not record.void
            states.append(state)
            found.append(state.model)
        return found

    found: list[str] = run(rounds())
    return found


@pytest.mark.parametrize("matrix", KINDS)
def test_a_run_that_was_interrupted_goes_on_with_the_same_noise(matrix):
    """The key is all that is kept: what is remembered in memory is computed again."""
    of, noise = planned(matrix), SecretNoise(bytes(range(32)))
    states = [initial_state(of, start())]
    whole = models(of, states, noise=noise)
    assert all(state.memory is not None for state in states[1:])
    for cut in (1, 4, 7):
        again = [replace(states[cut], memory=None)]
        assert models(of, again, noise=SecretNoise(bytes(range(32)))) == whole[cut:]
    other = models(of, [initial_state(of, start())], noise=SecretNoise.fresh())
    assert other[0] != whole[0]


def test_noise_without_a_key_is_refused():
    of = planned()
    with pytest.raises(HansaError, match="comes from no key") as caught:
        run(run_round(of, initial_state(of, start()), world(of, noise=NoiseSource())))
    assert "SecretNoise" in caught.value.fix


def test_a_void_round_uses_up_no_row():
    of = planned(rounds=Rounds(count=8, quorum=2, attempts=3))
    noise = SecretNoise(bytes(32))
    plain = models(of, [initial_state(of, start())], noise=noise)

    async def interrupted() -> TrainState:
        state = initial_state(of, start())
        state, _ = await run_round(of, state, world(of, noise=noise))
        state, record = await run_round(of, state, world(of, Silent([]), noise=noise))
        assert record.void
        assert state.attempt == 1
        # Over the whole population every cohort is the same, so only the noise could differ.
        state, record = await run_round(of, state, world(of, noise=noise))
        assert not record.void
        return state

    assert run(interrupted()).model == plain[1]


def test_a_retry_is_charged_a_whole_participation():
    of = planned(rounds=Rounds(count=8, quorum=2, attempts=3))
    ledger = MemoryLedger(4)
    seen = world(of, ledger=ledger)
    state = replace(initial_state(of, start()), round=1, attempt=1)
    run(run_round(of, state, seen))
    (charge,) = ledger.charges
    assert charge.event == Gaussian(2.0)


@pytest.mark.parametrize("matrix", ["blt", "banded"])  # whose last prefix sum has the largest error
def test_the_noise_cancels_in_the_model(matrix):
    """Beside independent noise of the same guarantee, as much as the matrix promises."""
    words: dict[str, Any] = {
        "risk_tier": "low",
        "rounds": Rounds(count=32, quorum=1),
        "cohort": Cohort(population=6, sampler="cyclic", separation=6),
    }
    of = planned(matrix, **words)
    independent = plan(**{**WORDS, "privacy": replace(PRIVACY, mechanism="gaussian"), **words})
    still = {"engine": Still()}

    def spread(plan_: Plan) -> float:
        ends = []
        for seed in range(40):
            key = ReplayKey.of_seed(seed)
            state = run(
                train(
                    plan_,
                    initial_state(plan_, np.zeros(5, np.float32)),
                    world(plan_, noise=key, **still),
                )
            )
            ends.append(state.params)
        return float(np.std(ends))

    # At 32 rounds, 6 apart: about 0.5, as `prefix_error` says; 200
    # numbers each, so that a ratio of deviations is within 20 % of the true one.
    assert isinstance(of.parts.mechanism, CorrelatedGaussian)
    told = prefix_error(of.parts.mechanism.matrix).max
    plain = prefix_error(choose("identity", 32, 6, 6)).max
    assert spread(of) / spread(independent) == pytest.approx((told / plain) ** 0.5, rel=0.2)


class Still:
    """Clients that send nothing but zeros, so that only noise moves the model."""

    real = False

    async def gather(self, task, cohort):
        from hansa.core.contribute import Fold
        from hansa.core.parts import Update

        fold = Fold.of(task)
        partial = fold.zero()
        for client in cohort:
            update = Update(np.zeros(task.layout.size, np.float32), task.layout)
            update.segment("weight")[:] = 1.0
            partial = fold.add(partial, client, update)
        yield partial


def test_the_journal_need_not_remember_the_memory():
    of, journal = planned(), MemoryJournal()
    run(train(of, initial_state(of, start()), world(of, journal=journal)))
    assert journal.state is not None
    assert journal.state == replace(journal.state, memory=None)
