"""A norm bound that adapts, over whole rounds: what is private, what moves, what is remembered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hansa.core.contribute import Fold, Purpose, contribute, layout_of
from hansa.core.events import Gaussian, SelfComposed
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.keys import ReplayKey
from hansa.core.round import TrainState, run_round
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import PlanRefused
from tests.support.toy import POPULATION, TOY, data, nobody, plan, round_task, run, start, world

PRIVACY = Privacy(
    mechanism="gaussian",
    clip=0.05,
    noise_multiplier=0.8,
    delta=1e-5,
    clip_quantile=0.5,
    clip_noise=0.5,
)
WORDS = {
    "privacy": PRIVACY,
    "aggregation": Aggregation(weighting="uniform"),
    "rounds": Rounds(count=6),
}
PLAN = plan(**WORDS)


class Quiet:
    """No noise at all, to see what else happens."""

    replayable = True

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)


def test_the_plan_counts_one_gaussian_a_round():
    assert PLAN.round_event == Gaussian(0.8)
    assert PLAN.event == SelfComposed(Gaussian(0.8), 6)
    assert PLAN.facts["delta"].l2 == 1.0
    fixed = plan(**{**WORDS, "privacy": replace(PRIVACY, clip_quantile=0.0, clip_noise=0.0)})
    assert PLAN.epsilon == pytest.approx(fixed.epsilon)


def test_it_says_that_the_bound_adapts():
    text = " ".join(PLAN.claims)
    assert "starts at 0.05" in text
    assert "counted with noise" in text


def test_the_noise_on_the_count_is_found_from_the_cohort():
    found = plan(**{**WORDS, "privacy": replace(PRIVACY, noise_multiplier=0.3, clip_noise=0.0)})
    assert found.job.privacy.clip_noise == pytest.approx(6 / 20)


def test_the_noise_is_found_from_epsilon_as_for_a_fixed_bound():
    wanted = replace(PRIVACY, noise_multiplier=0.0, epsilon=20.0, clip_noise=2.0)
    adapting = plan(**{**WORDS, "privacy": wanted}).job.privacy.noise_multiplier
    fixed = replace(wanted, clip_quantile=0.0, clip_noise=0.0)
    assert adapting == plan(**{**WORDS, "privacy": fixed}).job.privacy.noise_multiplier


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"clip_quantile": 0.0}, "clip_noise"),
        ({"clip_noise": 0.39}, "clip_noise"),
        ({"mechanism": "distributed", "noise_multiplier": 1.0}, "clip_quantile"),
        ({"mechanism": "none"}, "clip_quantile"),
    ],
)
def test_words_that_contradict_each_other_are_refused(changed, part):
    with pytest.raises(PlanRefused) as caught:
        plan(**{**WORDS, "privacy": replace(PRIVACY, **changed)})
    assert part in str(caught.value)


def test_a_measurement_neither_counts_nor_moves_the_bound():
    assert [s.name for s in layout_of(PLAN, Purpose.EVALUATE).segments] == ["weight", "metrics"]
    state = replace(initial_state(PLAN, start()), round=6)
    after, _ = run(run_round(PLAN, state, world(PLAN), Purpose.EVALUATE))
    assert after.clip == state.clip == 0.05


def one(clip: float) -> np.ndarray:
    task = replace(round_task(PLAN), clip=clip)
    update = contribute(task, POPULATION[0], TOY, data(POPULATION[0]))
    return update.segment("delta") * clip


def test_a_client_moves_the_model_by_at_most_the_bound():
    free, small = one(1e6), one(1e-3)
    assert np.linalg.norm(small) == pytest.approx(1e-3, rel=1e-5)
    assert np.linalg.norm(free) > 0.1
    cosine = free @ small / np.linalg.norm(free) / np.linalg.norm(small)
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_the_model_moves_by_the_mean_times_the_bound():
    """Noise aside, a round with a bound that clips nobody is a round without one."""
    state = replace(initial_state(PLAN, start()), clip=64.0)
    after, _ = run(run_round(PLAN, state, world(PLAN, noise=Quiet())))
    plain = plan(aggregation=WORDS["aggregation"], rounds=WORDS["rounds"])
    free, _ = run(run_round(plain, initial_state(plain, start()), world(plain)))
    assert after.params == pytest.approx(free.params, abs=1e-3)
    assert not np.allclose(after.params, start(), atol=1e-2)


def test_the_bound_follows_the_clients_and_is_remembered():
    journal = MemoryJournal()
    seen: list[float | None] = []

    async def rounds() -> TrainState:
        state = initial_state(PLAN, start())
        for _ in range(6):
            state, _record = await run_round(PLAN, state, world(PLAN, journal=journal))
            seen.append(state.clip)
        return state

    state = run(rounds())
    assert len(set(seen)) == 6
    assert journal.state is not None
    assert journal.state.clip == state.clip
    # Deltas of the toy are far longer than 0.05, so nobody is within and the bound grows.
    assert seen[-1] is not None
    assert seen[-1] > 0.06


def test_a_void_round_leaves_the_bound():
    plain = world(PLAN, InlineEngine(TOY, nobody), population=POPULATION[:2])
    after, record = run(run_round(PLAN, initial_state(PLAN, start()), plain))
    assert record.void
    assert after.clip == 0.05


def test_nothing_but_the_count_moves_it():
    """The same count, whatever the deltas: equal keys give equal noise, hence equal bounds."""

    def bound_after(clip: float, seed: int) -> float | None:
        state = replace(initial_state(PLAN, start()), clip=clip)
        key = ReplayKey.of_seed(seed)
        after, _ = run(run_round(PLAN, state, world(PLAN, noise=key)))
        return None if after.clip is None else after.clip / clip

    assert bound_after(1e-4, 3) == pytest.approx(bound_after(1e-5, 3))
    assert bound_after(1e-4, 3) != pytest.approx(bound_after(1e-4, 4))


@pytest.mark.parametrize("masks", [False, True])
def test_it_works_in_a_ring_and_under_masks(masks):
    ring = plan(
        **WORDS,
        quantization=Quantization(step=2.0**-12, bits=24),
        secure_aggregation=SecureAggregation(enabled=masks, corrupt=0.2),
    )
    assert ring.facts["within"].l2 == 0.5
    state = run(train(ring, initial_state(ring, start()), world(ring)))
    assert state.clip not in (None, 0.05)


def test_the_sum_of_the_bits_is_what_the_clients_said():
    task = replace(round_task(PLAN), clip=0.4)
    fold = Fold.of(task)
    partial, bits = fold.zero(), 0.0
    for client in POPULATION:
        update = contribute(task, client, TOY, data(client))
        bits += float(update.segment("within")[0])
        partial = fold.add(partial, client, update)
    total = PLAN.parts.aggregator.finish(partial, task.layout, PLAN.facts)
    assert task.layout.slice(total, "within").tolist() == [bits]
    assert task.layout.bounds("within")[1] == task.layout.size


def test_poisson_sampling_amplifies_the_one_gaussian():
    sampled = plan(
        **{**WORDS, "privacy": replace(PRIVACY, clip_noise=2.0)},
        cohort=Cohort(population=60, sampler="poisson", rate=0.2),
    )
    assert repr(sampled.round_event).count("Gaussian") == 1
