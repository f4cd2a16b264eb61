"""Noise that clients add themselves, from the words of a job to the sum of a round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.core.events import DiscreteGaussianSum, SelfComposed
from hansa.core.job import (
    Aggregation,
    Cohort,
    Job,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
    TaskFacts,
)
from hansa.core.parts import Split
from hansa.core.plan import Plan
from hansa.core.vector import Schema, Tensor
from hansa.engines.inline import InlineEngine
from hansa.errors import PlanRefused
from hansa.mechanisms.distributed import DistributedGaussian
from hansa.privacy.accountants import DpAccounting
from hansa.recipes import compile_plan
from hansa.simulation import simulate
from hansa.stages.discrete_noise import DiscreteGaussian
from hansa.stages.mask import Mask
from hansa.stages.rotate import Rotate
from tests.support.toy import FACTS, POPULATION, TOY, data, gathered, job, round_task

WORDS: dict[str, Any] = {
    "privacy": Privacy(mechanism="distributed", clip=1.0, epsilon=8.0, delta=1e-3),
    "aggregation": Aggregation(weighting="uniform"),
    "secure_aggregation": SecureAggregation(enabled=True, corrupt=0.25),
}


def shared(**words: Any) -> Job:
    return job(**{**WORDS, **words})


def plan(facts: TaskFacts = FACTS, **words: Any) -> Plan:
    return compile_plan(shared(**words), facts)


def test_the_parts_are_those_of_the_paper_in_its_order() -> None:
    of = plan()
    kinds = [type(stage) for stage in of.parts.stages]
    assert kinds[-3:] == [Rotate, DiscreteGaussian, Mask]
    assert isinstance(of.parts.mechanism, DistributedGaussian)
    assert not of.measures


def test_the_noise_is_found_from_epsilon_for_the_fewest_honest_survivors() -> None:
    of = plan(rounds=Rounds(count=3, quorum=5))
    assert isinstance(of.event, SelfComposed)
    assert of.event.count == 3
    one = of.round_event
    assert isinstance(one, DiscreteGaussianSum)
    assert one.shares == 4  # five survivors, of which one colludes
    assert 0.99 * 8 < of.epsilon <= 8
    counted = DpAccounting("rdp").epsilon(of.event, 1e-3, of.relation)
    assert of.epsilon == pytest.approx(counted, rel=1e-9)


def test_another_party_that_reads_the_numbers_reaches_the_same_plan() -> None:
    of = plan()
    assert compile_plan(of.job, FACTS).digest == of.digest
    assert of.job.privacy.noise_multiplier > 0
    assert of.job.quantization.step > 0


def test_fewer_counted_survivors_need_more_noise_each() -> None:
    noise = [
        plan(rounds=Rounds(count=3, quorum=quorum)).job.privacy.noise_multiplier
        for quorum in (4, 5, 6)
    ]
    assert noise == sorted(noise, reverse=True)
    assert noise[0] > 1.1 * noise[2]


def test_the_claim_names_everything_that_an_epsilon_needs() -> None:
    words = "\n".join(plan().claims)
    for part in (
        "epsilon 8 at delta 0.001", "the data of one client", "one unit more or less",
        "all 6 clients take part", "RDP of dp-accounting", "trust model: distributed",
        "up to 1 colluding clients", "at most 1 of the clients collude",
    ):  # fmt: skip
        assert part in words


@pytest.mark.parametrize(
    ("words", "because", "fix"),
    [
        ({"secure_aggregation": SecureAggregation()}, "read each client's update",
         "secure_aggregation.enabled"),
        ({"secure_aggregation": SecureAggregation(enabled=True, corrupt=0.0)},
         "the masks hold against 0", "secure_aggregation.corrupt to at least 0.25"),
        ({"cohort": Cohort(population=6, sampler="poisson", rate=0.5)},
         "knows the cohort", 'sampler = "everyone"'),
        ({"aggregation": Aggregation()}, "outweigh", "max_weight"),
        ({"privacy": replace(WORDS["privacy"], metrics_clip=5.0, metrics_noise_multiplier=9.0)},
         "without any", "leave metrics_clip"),
        ({"privacy": replace(WORDS["privacy"], clip=0.0)}, "is missing", "norm bound"),
        ({"quantization": Quantization(step=1e-12)}, "overflow", "quantization.step >= "),
        ({"privacy": replace(WORDS["privacy"], colluding=6)}, "hold against", "quorum"),
        ({"privacy": replace(WORDS["privacy"], epsilon=1.0, noise_multiplier=0.1)},
         "the job promises 1", "leave privacy.noise_multiplier out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_fix(
    words: dict[str, Any], because: str, fix: str
) -> None:
    with pytest.raises(PlanRefused) as caught:
        plan(**words)
    found = [e for e in caught.value.errors if because in e.because]
    assert found, [str(e) for e in caught.value.errors]
    assert any(fix in e.fix for e in found), [e.fix for e in found]


def test_the_sum_of_a_masked_round_carries_the_noise_of_all() -> None:
    """Clients without data send noise alone, so the decoded sum is the noise and nothing else."""
    of = plan()
    sigma = of.facts["delta"].noise
    sums = []
    for number in range(60):
        (partial,), _ = gathered(
            InlineEngine(TOY, empty), round_task(of, number=number), POPULATION
        )
        total = of.parts.aggregator.finish(partial, of.layout, of.facts)
        for stage in reversed(of.parts.stages):
            total = stage.decode(total, of.layout)
        sums.append(of.layout.slice(total, "delta"))
    spread = np.std(np.concatenate(sums))
    expected = sigma * np.sqrt(len(POPULATION))
    # 300 samples: the deviation of a sample deviation is expected / sqrt(600), 4 %
    assert 0.84 * expected < spread < 1.16 * expected


def empty(client: str) -> Split:
    split = data(client)
    return replace(split, train=split.train.take(np.zeros(0, np.int64)))


def test_a_simulation_can_be_repeated_and_another_seed_draws_other_noise() -> None:
    first, again, other = (simulate(shared(seed=seed)) for seed in (1, 1, 2))
    assert first.model_sha256 == again.model_sha256 != other.model_sha256


def test_a_model_of_a_million_parameters_finds_its_numbers_in_seconds() -> None:
    schema = Schema((Tensor("w", (1_000_000,)),))
    of = plan(replace(FACTS, schema=schema), quantization=Quantization(bits=24))
    assert of.facts["delta"].bits == 24
    assert of.epsilon <= 8
