"""Differential privacy of single examples, from the job to the claim."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import fedavg, fedsgd
from hansa.core.events import Gaussian, NoOp, PoissonSampled, SelfComposed
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
from hansa.core.spec import Divisor, UpdateSpec
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import PlanError, PlanRefused
from hansa.mechanisms.example import ExampleGaussian
from hansa.privacy import epsilon
from hansa.privacy.advice import advice_on
from hansa.privacy.statement import statement_of
from hansa.work.dpsgd import DpSgd
from hansa.work.sgd import LocalSGD
from tests.support.toy import TOY, data, plan, start, world

PRIVATE = Privacy(unit="example", mechanism="dpsgd", clip=1.0, epsilon=4.0, delta=1e-3, examples=15)
STEPS = fedavg(client_lr=0.5, local_steps=3, batch_size=5)
UNIFORM = Aggregation(weighting="uniform", clip=1.0)
EVENT = SelfComposed(PoissonSampled(0.2, Gaussian(1.0)), 3)
DELTA = UpdateSpec(size=5, cohort=4, reveals=EVENT)
GATE = ExampleGaussian(
    DpSgd(
        sgd=LocalSGD(client_lr=1.0, local_steps=3, batch_size=4),
        clip=1.0,
        noise_multiplier=1.0,
        examples=20,
        delta=1e-3,
    )
)


def private(**words: Any) -> Plan:
    return plan(**{"privacy": PRIVATE, "algorithm": STEPS, **words})


# ------------------------------------------------------------------ the gate


@pytest.mark.parametrize(
    ("spec", "event", "released"),
    [
        (DELTA, EVENT, True),
        (replace(DELTA, l2=3.0), EVENT, True),
        (replace(DELTA, segment="weight", size=1, reveals=None), NoOp(), True),
        (replace(DELTA, segment="metrics", size=0, reveals=None), NoOp(), False),
    ],
)
def test_the_table(spec, event, released):
    assert GATE.infer(spec) == event
    assert GATE.releases(spec) is released
    assert GATE.relation is Relation.ZERO_OUT


@pytest.mark.parametrize("segment", ["delta", "metrics", "within"])
def test_what_no_work_protects_does_not_pass(segment):
    with pytest.raises(PlanError, match="tells of its examples, without noise"):
        GATE.infer(replace(DELTA, segment=segment, reveals=None))
    if segment != "delta":
        with pytest.raises(PlanError):
            GATE.infer(replace(DELTA, segment=segment))


def test_the_sum_is_released_as_it_is():
    total = np.arange(5.0)
    assert (GATE.apply(total, DELTA, TOY) == np.arange(5.0)).all()  # type: ignore[arg-type]  # no noise is asked for


# ------------------------------------------------------------------ the plan


def test_a_plan_counts_for_the_smallest_client():
    found = private()
    z = found.job.privacy.noise_multiplier
    assert found.round_event == SelfComposed(PoissonSampled(1 / 3, Gaussian(z)), 3)
    assert found.event == SelfComposed(found.round_event, 3)
    assert found.relation is Relation.ZERO_OUT
    assert found.epsilon == 4.0
    assert 3.95 < epsilon(found.event, 1e-3, "pld", Relation.ZERO_OUT) <= 4.0
    assert found.parts.algorithm.work == found.parts.mechanism.work  # type: ignore[attr-defined]
    assert found.job.algorithm.work == STEPS.work
    assert found.facts["delta"].divisor is Divisor.REALISED
    assert found.facts["metrics"].size == 0


def test_without_an_epsilon_all_clients_use_one_noise():
    found = private(privacy=replace(PRIVATE, epsilon=0.0, noise_multiplier=2.0))
    assert isinstance(work := found.parts.algorithm.work, DpSgd)
    assert work.promise is None
    counted = SelfComposed(SelfComposed(PoissonSampled(1 / 3, Gaussian(2.0)), 3), 3)
    assert found.event == counted
    assert found.epsilon == epsilon(counted, 1e-3, "pld", Relation.ZERO_OUT)


@pytest.mark.parametrize(
    ("cohort", "updates"),
    [
        (Cohort(population=6, sampler="poisson", rate=0.5), 3),
        (Cohort(population=6, sampler="fixed", size=3), 3),
        (Cohort(population=6, sampler="cyclic", separation=2), 2),
    ],
)
def test_drawing_clients_amplifies_nothing(cohort, updates):
    """The coordinator knows who took part, and it is the coordinator that must not learn more."""
    found = private(cohort=cohort)
    assert found.event == SelfComposed(found.round_event, updates)
    assert isinstance(found.round_event, SelfComposed)
    assert found.charges == updates


@pytest.mark.parametrize(
    "words",
    [
        {"aggregation": Aggregation(rule="median"), "rounds": Rounds(count=3, quorum=5)},
        {
            "aggregation": Aggregation(rule="trimmed_mean", trim=0.3),
            "rounds": Rounds(count=3, quorum=5),
        },
        {"aggregation": UNIFORM},
        {"quantization": Quantization(step=1e-3), "aggregation": UNIFORM},
        {
            "secure_aggregation": SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1),
            "quantization": Quantization(step=1e-3),
            "aggregation": UNIFORM,
            "rounds": Rounds(count=3, quorum=5),
        },
    ],
)
def test_all_that_follows_is_post_processing(words):
    base = private(rounds=words.get("rounds", Rounds(count=3)))
    found = private(**words)
    assert (found.event, found.epsilon) == (base.event, base.epsilon)
    assert "bounded below" in found.claims[0] or "only the sum" in " ".join(found.claims)


ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "the unit alone": (
        {"privacy": replace(PRIVATE, mechanism="gaussian", examples=0)}, "privacy.unit",
        '"example" is not what mechanism = "gaussian" hides',
    ),
    "the mechanism alone": (
        {"privacy": replace(PRIVATE, unit="client")}, "privacy.unit", '"client" is not what',
    ),
    "no smallest client": (
        {"privacy": replace(PRIVATE, examples=0)}, "privacy.examples", "is missing",
    ),
    "a smallest client elsewhere": (
        {"privacy": Privacy(mechanism="gaussian", clip=1, epsilon=4, delta=1e-3, examples=9)},
        "privacy.examples", "means nothing",
    ),
    "a smallest client of nothing": (
        {"privacy": Privacy(examples=9)}, "privacy", "without a mechanism",
    ),
    "batches larger than a client": (
        {"algorithm": fedavg(client_lr=0.5, local_steps=3, batch_size=16)},
        "algorithm.batch_size", "of 16 is more than the 15",
    ),
    "no steps": (
        {"algorithm": fedsgd(server_lr=1.0)}, "algorithm.name", "takes no steps on batches",
    ),
    "epochs without a promise": (
        {
            "algorithm": fedavg(client_lr=0.5, local_epochs=1, batch_size=5),
            "privacy": replace(PRIVATE, epsilon=0.0, noise_multiplier=2.0),
        },
        "privacy.noise_multiplier", "take more steps",
    ),
    "metrics": (
        {"privacy": replace(PRIVATE, metrics_clip=1.0, metrics_noise_multiplier=1.0)},
        "privacy.metrics_clip", "no noise of the clients' own",
    ),
    "a delta for fewer": (
        {"privacy": replace(PRIVATE, delta=0.07)}, "privacy.delta", "one of 15 examples",
    ),
    "no norm bound": (
        {"privacy": replace(PRIVATE, clip=0.0)}, "privacy.clip", "is missing",
    ),
    "an adaptive bound": (
        {"privacy": replace(PRIVATE, clip_quantile=0.5)}, "privacy.clip_quantile", "no private",
    ),
    "rotation without a ring": (
        {"quantization": Quantization(rotate=True), "aggregation": Aggregation(clip=1.0)},
        "quantization.rotate", "no ring",
    ),
    "less noise than was promised": (
        {"privacy": replace(PRIVATE, noise_multiplier=0.5)}, "ExampleGaussian", "promises 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_refusals(row):
    words, part, because = ROWS[row]
    with pytest.raises(PlanRefused) as caught:
        private(**words)
    said = [f"{e.part!r} {e.part} {e.because}" for e in caught.value.errors]
    assert any(part in each and re.search(because, each) for each in said), said
    assert all(e.fix for e in caught.value.errors)


def test_claims_name_all_that_an_epsilon_needs():
    text = " ".join(private().claims)
    for words in (
        "epsilon 4 at delta 0.001 at most for its 3 updates", "one training example of one client",
        "one unit's data zeroed out", "PLD of dp-accounting", "batches: drawn example by example",
        "trust model: example", "cannot see what noise a client added",
        "fewer than 15 training examples", "Not hidden: who took part, how many training examples",
        "what it may reveal of one training example is bounded", "No metrics leave",
    ):  # fmt: skip
        assert words in text, words
    assert "Differential privacy of the released models" not in text


def test_the_statement_says_whose_noise_it_is():
    found = statement_of(private())
    assert found.epsilon == 4.0
    assert found.unit.startswith("one example")
    assert found.trust_model == "example"
    assert "each client" in found.adds_noise
    assert "Box and Muller" in found.noise_sampler
    assert found.noise_exact is False
    text = " ".join((*found.scope, *found.hazards, found.sampling))
    assert "A whole site is not hidden" in text
    assert "which examples were in a batch" in text


# ------------------------------------------------------------------ running


def test_advice_names_the_noise_of_a_step_and_what_to_do():
    """By hand: r = z sqrt(d) / L, T = 3 rounds of 3 steps, 6 clients."""
    found = private(privacy=replace(PRIVATE, epsilon=0.5))
    z = found.job.privacy.noise_multiplier
    length = z * math.sqrt(5) / 5
    advice = advice_on(found)
    assert advice is not None
    text = " ".join(advice.words)
    assert f"At a client with 15 examples the noise of a step is {length:.3g} norm bounds" in text
    assert f"moves the model by about {math.sqrt(9 / 6) * length:.3g}" in text
    assert "use secure aggregation against that" in text
    assert advice.noise is None
    assert [row.rounds for row in advice.rounds] == [1, 2, 3, 6, 12]
    costs = [row.epsilon or 0.0 for row in advice.rounds]
    assert costs == sorted(costs)


@pytest.mark.parametrize(("epsilon", "words"), [(0.02, "will destroy"), (200.0, "at most 1 long")])
def test_advice_says_when_it_is_hopeless_and_when_all_is_well(epsilon, words):
    found = private(privacy=replace(PRIVATE, epsilon=epsilon), risk_tier="low")
    advice = advice_on(found)
    assert advice is not None
    text = " ".join(advice.words)
    assert words in text
    assert ("destroy" in text) == (epsilon < 1)


def test_it_trains_and_whoever_has_too_few_takes_no_part():
    """Six clients with 6 to 34 examples: those below 15 drop out, the model learns all the same."""
    strong = replace(PRIVATE, epsilon=50.0)
    quick = fedavg(client_lr=0.5, local_steps=10, batch_size=8)
    found = private(
        privacy=strong, algorithm=quick, rounds=Rounds(count=8, quorum=2), risk_tier="low"
    )
    journal = MemoryJournal()
    end = asyncio.run(train(found, initial_state(found, start()), world(found, journal=journal)))
    few = {c for c in world(found).population if len(data(c).train) < 15}
    assert few, "the test has no power"
    for record in journal.records:
        assert {d.client for d in record.dropouts} == few
        assert all("fewer than the 15 training examples" in d.reason for d in record.dropouts)
        assert record.metrics == {}
    held = [data(c).test for c in world(found).population]
    inputs = np.concatenate([h.inputs for h in held])
    targets = np.concatenate([h.targets for h in held])
    views = TOY.schema.views(end.params)
    right = (TOY.probabilities(views, inputs) > 0.5) == targets
    assert right.mean() > 0.75


def test_a_debugging_engine_says_why_a_client_took_no_part():
    from hansa.errors import ClientFailed, HansaError

    found = private(rounds=Rounds(count=1, quorum=1), risk_tier="low")
    engine = InlineEngine(TOY, data, debug=True)
    with pytest.raises((ClientFailed, HansaError)) as caught:
        asyncio.run(train(found, initial_state(found, start()), world(found, engine)))
    said = f"{caught.value} {caught.value.__cause__}"
    assert "fewer than the 15 training examples" in said


def test_half_the_noise_costs_more():
    """What the plan counts follows the noise that is added: the same number, in one place."""
    found = private()
    half = replace(found.job.privacy, noise_multiplier=found.job.privacy.noise_multiplier / 2)
    with pytest.raises(PlanRefused, match="promises 4"):
        private(privacy=half)
    alone = private(privacy=replace(half, epsilon=0.0))
    assert alone.epsilon > 1.5 * found.epsilon
    assert math.isfinite(alone.epsilon)
