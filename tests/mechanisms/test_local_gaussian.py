"""Local differential privacy, from the job to the claim: who is protected, and at what cost."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hansa.core.events import Gaussian, NoOp, SelfComposed
from hansa.core.job import (
    Aggregation,
    Cohort,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.core.parts import Relation
from hansa.core.plan import Plan
from hansa.core.spec import UpdateSpec
from hansa.core.train import initial_state, train
from hansa.engines.memory import MemoryJournal
from hansa.errors import PlanError, PlanRefused
from hansa.mechanisms.local import LocalGaussian
from hansa.privacy import epsilon
from hansa.stages.local_noise import LocalNoise
from tests.support.toy import FACTS, plan, start, world

LOCAL = Privacy(mechanism="local", clip=1.0, epsilon=8.0, delta=1e-5)
UNIFORM = Aggregation(weighting="uniform")
MECHANISM = LocalGaussian(LocalNoise(1.0, 2.0))
SIGMA = LocalNoise(1.0, 2.0).scale(5).sigma
DELTA = UpdateSpec(size=5, cohort=4, l2=30.0, peak=30.0, weight=1.0, noise=SIGMA)


def local(**words: Any) -> Plan:
    return plan(**{"privacy": LOCAL, "aggregation": UNIFORM, **words})


def exact(sigma_over_sensitivity: float, delta: float) -> float:
    """Balle and Wang (ICML 2018), theorem 8, solved for epsilon by bisection."""
    mu = 1 / sigma_over_sensitivity

    def spent(eps: float) -> float:
        first = stats.norm.cdf(mu / 2 - eps / mu)
        return float(first - math.exp(eps) * stats.norm.cdf(-mu / 2 - eps / mu))

    low, high = 0.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(
    ("spec", "event", "released"),
    [
        (DELTA, Gaussian(2.0), True),
        (replace(DELTA, l2=math.inf), Gaussian(2.0), True),
        (replace(DELTA, segment="weight", size=1, noise=0.0), NoOp(), True),
        (replace(DELTA, segment="metrics", size=0), NoOp(), False),
    ],
)
def test_the_table(spec, event, released):
    assert MECHANISM.infer(spec) == event
    assert MECHANISM.releases(spec) is released
    assert MECHANISM.relation is Relation.REPLACE_ONE


@pytest.mark.parametrize(
    ("spec", "because"),
    [
        (replace(DELTA, noise=0.0), "without its own noise"),
        (replace(DELTA, noise=SIGMA / 2), "without its own noise"),
        (replace(DELTA, segment="metrics"), "without its own noise"),
        (replace(DELTA, segment="weight", weight=9.0), "how many examples"),
    ],
)
def test_what_carries_no_noise_is_refused(spec, because):
    with pytest.raises(PlanError, match=because):
        MECHANISM.infer(spec)


def test_epsilon_is_the_exact_one_of_all_updates_of_a_client():
    """k releases of multiplier z are one of z / sqrt(k); Balle and Wang give its epsilon."""
    found = local()
    z = found.job.privacy.noise_multiplier
    assert found.event == SelfComposed(Gaussian(z), 3)
    assert found.relation is Relation.REPLACE_ONE
    assert found.epsilon == pytest.approx(exact(z / math.sqrt(3), 1e-5), abs=1e-3)
    assert 7.9 < found.epsilon <= 8.0
    assert found.facts["delta"].noise == pytest.approx(z * 2.0, rel=1e-4)


@pytest.mark.parametrize(
    ("cohort", "updates"),
    [
        (Cohort(population=6), 3),
        (Cohort(population=6, sampler="poisson", rate=0.5), 3),
        (Cohort(population=6, sampler="fixed", size=3), 3),
        (Cohort(population=6, sampler="fixed", size=3, over_selection=1.5), 3),
        (Cohort(population=6, sampler="cyclic", separation=2), 2),
        (Cohort(population=6, sampler="cyclic", separation=2, rate=0.9), 2),
    ],
)
def test_no_sampling_amplifies_anything(cohort, updates):
    """The coordinator draws the cohort and knows it; turns reduce how often a client is asked."""
    found = local(cohort=cohort, privacy=replace(LOCAL, epsilon=0.0, noise_multiplier=2.0))
    one = Gaussian(2.0)
    assert found.event == SelfComposed(one, updates)
    assert found.epsilon == pytest.approx(epsilon(SelfComposed(one, updates), 1e-5), abs=1e-6)
    assert found.charges == updates
    assert any(f"for its {updates} updates" in claim for claim in found.claims)
    assert any("not counted on, as the coordinator knows" in claim for claim in found.claims)


ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "metrics": (
        {"privacy": replace(LOCAL, metrics_clip=1.0, metrics_noise_multiplier=1.0)},
        "privacy.metrics_clip", "no local noise",
    ),
    "weights by examples": (
        {"aggregation": Aggregation(max_weight=9)}, "aggregation.weighting", "how many a client",
    ),
    "rotation": (
        {"quantization": Quantization(step=1e-3, rotate=True)},
        "quantization.rotate", "have spread|has spread",
    ),
    "an adaptive bound": (
        {"privacy": replace(LOCAL, clip_quantile=0.5)}, "privacy.clip_quantile", "no private count",
    ),
    "a promise that is not kept": (
        {"privacy": replace(LOCAL, noise_multiplier=0.5)}, "LocalGaussian", "the job promises 8",
    ),
    "a ring that is too small": (
        {"quantization": Quantization(step=1e-3, bits=16)}, "Quantize", "overflow",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_refusals(row):
    import re

    words, part, because = ROWS[row]
    with pytest.raises(PlanRefused) as caught:
        local(**words)
    assert any(part in str(e.part) or part in repr(e.part) for e in caught.value.errors)
    assert any(re.search(because, e.because) and e.fix for e in caught.value.errors)


def test_claims_name_all_that_an_epsilon_needs():
    found = local()
    text = " ".join(found.claims)
    for words in (
        "epsilon 7.99", "delta 1e-05", "unit: all data of one client",
        "one unit replaced by another", "PLD of dp-accounting", "trust model: local",
        "Robust rules", "over sqrt(n)", "Not hidden: who took part", "No metrics leave",
        "carries noise of the client's own",
    ):  # fmt: skip
        assert words in text, words
    assert "may reveal training data to the coordinator" not in text
    sigma = found.facts["delta"].noise
    assert f"{sigma / math.sqrt(6):.3g} for 6 clients" in text


def test_noise_that_drowns_the_model_is_warned_of():
    assert not any("Warning" in claim for claim in local().claims)
    strong = local(privacy=replace(LOCAL, epsilon=0.3))
    warned = [claim for claim in strong.claims if "Warning" in claim]
    norm = strong.facts["delta"].noise / math.sqrt(6) * math.sqrt(FACTS.schema.size)
    assert len(warned) == 1
    assert f"about {norm:.3g} clip norms" in warned[0]


MASKS: dict[str, Any] = {
    "quantization": Quantization(step=1e-4),
    "secure_aggregation": SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1),
    "rounds": Rounds(count=3, quorum=5),
}


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"quantization": Quantization(step=1e-4)},
        MASKS,
        {"aggregation": replace(UNIFORM, rule="median"), "rounds": MASKS["rounds"]},
        {
            "aggregation": replace(UNIFORM, rule="trimmed_mean", trim=0.3),
            "rounds": MASKS["rounds"],
        },
        {"cohort": Cohort(population=6, sampler="cyclic", separation=2)},
    ],
    ids=["mean", "ring", "masks", "median", "trimmed", "cyclic"],
)
def test_it_trains_with_every_rule_and_ring(words):
    found = local(**words)
    journal = MemoryJournal()
    its = world(found, journal=journal)
    state = asyncio.run(train(found, initial_state(found, start()), its))
    assert state.round == 3
    assert not any(record.void or record.dropouts for record in journal.records)
    assert np.isfinite(state.params).all()


def test_the_released_mean_has_the_noise_that_is_claimed():
    """One round of a job whose clip hides the data: what is left is noise over sqrt(6)."""
    moves = []
    for seed in range(120):
        found = local(
            seed=seed,
            rounds=Rounds(count=1),
            privacy=Privacy(mechanism="local", clip=1e-3, noise_multiplier=50.0, delta=1e-5),
        )
        state = asyncio.run(train(found, initial_state(found, start()), world(found)))
        moves.append(state.params.astype(float) - start())
    drawn = np.concatenate(moves)
    claimed = 50.0 * 2 * 1e-3 / math.sqrt(6)

    def far(sigma: float) -> bool:
        return bool(abs(drawn.std() / sigma - 1) > 5 / math.sqrt(2 * len(drawn)))

    assert not far(claimed)
    assert far(claimed * 1.25), "the test has no power"
    assert far(claimed / 1.25), "the test has no power"
