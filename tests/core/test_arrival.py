"""The words of buffered rounds: old updates, who is next, what a plan says and refuses."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld

from hansa.core.arrival import Buffer
from hansa.core.events import Gaussian, SelfComposed
from hansa.core.job import (
    Aggregation,
    Cohort,
    Defend,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError, PlanRefused
from hansa.recipes import compile_plan
from tests.support.toy import FACTS, job, plan

ARRIVAL = Cohort(population=6, sampler="arrival", buffer=2, concurrency=4)
UNIFORM = Aggregation(weighting="uniform")
GAUSSIAN = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5)


def words(**changed: Any) -> Cohort:
    return Cohort(**{**_of(ARRIVAL), **changed})


def _of(cohort: Cohort) -> dict[str, Any]:
    return {name: getattr(cohort, name) for name in Cohort.__slots__}


def test_the_weight_of_an_old_update():
    paper = Buffer(10, 100)
    assert [paper.weight(age) for age in (0, 1, 3, 8)] == pytest.approx([1, 2**-0.5, 0.5, 1 / 3])
    assert [Buffer(10, 100, 0.0).weight(age) for age in range(4)] == [1.0] * 4
    steep = [Buffer(10, 100, 2.0).weight(age) for age in range(4)]
    assert steep == pytest.approx([1, 1 / 4, 1 / 9, 1 / 16])
    for exponent in (0.0, 0.1, 0.5, 3.0, 1e6):
        weights = [Buffer(10, 100, exponent).weight(age) for age in range(50)]
        assert weights[0] == 1
        assert all(0 <= b <= a <= 1 for a, b in pairwise(weights))


def test_the_age_at_which_an_update_does_not_count():
    assert [Buffer(1, 1, oldest=3).too_old(age) for age in (0, 3, 4)] == [False, False, True]
    assert not any(Buffer(1, 1, oldest=0).too_old(age) for age in range(100))


def test_everybody_is_as_likely_to_be_next():
    """The first of 20: 4,000 draws, five standard errors of a binomial."""
    names, firsts = [f"c{i}" for i in range(20)], Counter[str]()
    for number in range(4000):
        key = ReplayKey.of_seed(1).derive(number)
        queue = Buffer(2, 3).queue(names, key, whole=False)
        assert len(queue) == len(set(queue)) == 10
        assert sorted(Buffer(2, 3).queue(names, key, whole=True)) == sorted(names)
        firsts[queue[0]] += 1
    assert all(abs(firsts[n] - 200) < 5 * math.sqrt(200 * 0.95) for n in names)


def test_only_a_job_by_arrival_has_a_buffer():
    assert Buffer.of(job()) is None
    assert Buffer.of(job(cohort=ARRIVAL)) == Buffer(2, 4, 0.5, 0)


# ------------------------------------------------------------------ what a plan says


def test_a_plan_says_what_becomes_of_old_updates():
    of = plan(cohort=words(max_staleness=7))
    assert (of.quorum, of.parts.sampler.cap, of.facts["delta"].cohort) == (2, 2, 2)
    said = " ".join(of.claims)
    assert "multiplied by (1 + s)**-0.5" in said
    assert "more than 7 rounds old it does not count" in said
    assert "models that the clients began with" in said
    same = " ".join(plan(cohort=words(staleness_exponent=0)).claims)
    assert "counts like a fresh one" in same
    assert "does not count" not in same
    assert "waited for" not in " ".join(plan().claims)


def test_the_words_are_in_the_digest():
    digests = {
        plan(cohort=words(**changed)).digest
        for changed in (
            {}, {"buffer": 3}, {"concurrency": 5}, {"staleness_exponent": 0.4},
            {"max_staleness": 9},
        )
    }  # fmt: skip
    assert len(digests) == 5


@pytest.mark.parametrize("mechanism", ["gaussian", "local"])
def test_epsilon_is_that_of_as_many_gaussians_as_rounds(mechanism):
    """Counted by dp-accounting directly: replaced by another, so that sensitivity is doubled."""
    noise = 60.0 if mechanism == "local" else 8.0
    of = plan(
        cohort=words(population=60),
        rounds=Rounds(count=20),
        aggregation=UNIFORM,
        privacy=Privacy(mechanism=mechanism, clip=0.5, noise_multiplier=noise, delta=1e-3),
    )
    assert of.relation is Relation.REPLACE_ONE
    if mechanism == "gaussian":
        assert of.event == SelfComposed(Gaussian(noise), 20)
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    # dp-accounting counts the noise relative to one vector's norm, and doubles it by itself.
    single = dp_accounting.GaussianDpEvent(2 * noise)
    accountant.compose(single, 20)
    assert of.epsilon == pytest.approx(accountant.get_epsilon(1e-3), rel=1e-3)


def test_nothing_is_amplified_and_the_claims_say_what_is_assumed():
    """The same as everybody in each round with a doubled sensitivity; far more than if drawn."""
    private: dict[str, Any] = {"aggregation": UNIFORM, "privacy": GAUSSIAN}
    arrival = plan(cohort=words(population=600), **private)
    drawn = plan(cohort=Cohort(population=600, sampler="poisson", rate=0.05), **private)
    assert arrival.epsilon > 3 * drawn.epsilon
    said = " ".join(arrival.claims)
    assert "sampling: none, the first 2 updates to arrive" in said
    assert "order of arrivals is taken as given" in said
    assert "does not depend on its data" in said


# ------------------------------------------------------------------ what is refused


def refusals(**changed: Any) -> list[PlanError]:
    with pytest.raises(PlanRefused) as caught:
        compile_plan(job(**{"cohort": ARRIVAL, **changed}), FACTS)
    return list(caught.value.errors)


ROWS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no buffer": (
        {"cohort": words(buffer=0)}, "cohort.buffer", "is missing", "updates that make a round",
    ),
    "nobody at work": (
        {"cohort": words(concurrency=0)}, "cohort.concurrency", "is missing", "concurrency",
    ),
    "more than everybody in a buffer": (
        {"cohort": words(buffer=7)}, "cohort.buffer", "each at most once", "between 1 and 6",
    ),
    "more than everybody at work": (
        {"cohort": words(concurrency=7)}, "cohort.concurrency", "6 clients", "between 1 and 6",
    ),
    "old updates count for more": (
        {"cohort": words(staleness_exponent=-1.0)},
        "cohort.staleness_exponent", "more than a fresh one", "0 or more",
    ),
    "fewer than a buffer": (
        {"rounds": Rounds(count=3, quorum=1)}, "rounds.quorum", "another number", "leave it out",
    ),
    "words of a buffer, and everyone": (
        {"cohort": Cohort(population=6, buffer=2)},
        "cohort.buffer", "means nothing", 'sampler = "arrival"',
    ),
    "an exponent, and everyone": (
        {"cohort": Cohort(population=6, staleness_exponent=1)},
        "cohort.staleness_exponent", "means nothing", 'sampler = "arrival"',
    ),
    "words of another sampler": (
        {"cohort": words(over_selection=1.3)}, "cohort.over_selection", "means nothing", "leave",
    ),
    "masks": (
        {
            "secure_aggregation": SecureAggregation(enabled=True),
            "quantization": Quantization(step=1e-5),
        },
        "secure_aggregation.enabled", "known before it begins", "another cohort.sampler",
    ),
    "a ring, and old updates for less": (
        {
            "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=50),
            "quantization": Quantization(step=1e-5),
        },
        "cohort.staleness_exponent", "integers in a ring", "set it to 0",
    ),
    "a median of two": (
        {"aggregation": Aggregation(rule="median")},
        "Median", "protects against nobody in a round of 2", "at least 5",
    ),
    "a median under masks": (
        {
            "aggregation": Aggregation(rule="median", clip=1.0, max_weight=50),
            "cohort": words(buffer=6, staleness_exponent=0),
            "secure_aggregation": SecureAggregation(enabled=True, groups=3),
            "quantization": Quantization(step=1e-5),
        },
        "secure_aggregation.enabled", "known before it begins", "another cohort.sampler",
    ),
    "a trusted client": (
        {"aggregation": Aggregation(rule="fltrust", trusted="a"), "cohort": words(buffer=5)},
        "aggregation.rule", "whoever came first", "geometric_median",
    ),
    "the largest losses": (
        {"aggregation": Aggregation(rule="agnostic"), "cohort": words(buffer=5)},
        "aggregation.rule", "losses of one model", "geometric_median",
    ),
    "a standing beside the mean": (
        {"defend": Defend(standing=True), "cohort": words(buffer=5)},
        "defend.standing", "the mean keeps none", "geometric_median",
    ),
    "a clip that adapts": (
        {"aggregation": UNIFORM, "privacy": Privacy(
            mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5, clip_quantile=0.5)},
        "privacy.clip_quantile", "several rounds", "bound of all rounds",
    ),
    "correlated noise": (
        {"aggregation": UNIFORM, "privacy": Privacy(
            mechanism="correlated", clip=1.0, noise_multiplier=2.0, delta=1e-5)},
        "cohort.sampler", "come back in the next round", '"cyclic"',
    ),
    "distributed noise": (
        {"aggregation": UNIFORM, "privacy": Privacy(
            mechanism="distributed", clip=1.0, noise_multiplier=2.0, delta=1e-5)},
        "cohort.sampler", "knows the cohort", '"everyone"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_does_not_go_together_is_refused(name):
    changed, part, because, fix = ROWS[name]
    found = [e for e in refusals(**changed) if str(e.part).startswith(part)]
    assert any(because in e.because and fix in e.fix for e in found), refusals(**changed)


ROBUST = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "dnc", "flame")


@pytest.mark.parametrize("rule", [*ROBUST, "bulyan", "centered_clipping", "foolsgold"])
@pytest.mark.parametrize("standing", [False, True])
def test_robust_rules_are_accepted_and_the_plan_says_what_becomes_of_old_updates(rule, standing):
    share = 0.15 if rule == "bulyan" else 0.25
    of = plan(
        cohort=words(population=20, buffer=8, concurrency=12),
        aggregation=Aggregation(rule=rule, bad=share, trim=0.25, weighting="uniform"),
        defend=Defend(standing=standing),
    )
    assert (of.quorum, of.facts["delta"].cohort) == (8, 8)
    said = " ".join(of.claims)
    assert "multiplied by (1 + s)**-0.5 before the rule looks at it, and is one client's" in said
    assert "all bad clients may be among its 8 updates" in said
    assert "what the sum is divided by" not in said
    assert ("Standing:" in said) == standing


def test_a_rule_that_takes_old_updates_like_fresh_ones_says_so():
    exact = {"population": 20, "buffer": 8, "concurrency": 12, "staleness_exponent": 0}
    said = " ".join(plan(cohort=words(**exact), aggregation=Aggregation(rule="median")).claims)
    assert "one from a model s rounds old counts like a fresh one." in said
    assert "among its" not in " ".join(plan(cohort=words()).claims)


def test_a_ring_is_accepted_where_old_updates_count_like_fresh_ones():
    of = plan(
        cohort=words(staleness_exponent=0.0),
        aggregation=Aggregation(weighting="uniform", clip=1.0, max_weight=50),
        quantization=Quantization(step=1e-5),
    )
    assert of.facts["delta"].bits == 32
