"""How much a client counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.core.spec import UpdateSpec
from hansa.stages.weight import Weight
from tests.support.toy import LAYOUT, encode, facts_after, update

DELTA = [1.0, -2.0, 0.5, 0.0, 1e-20]


@pytest.mark.parametrize(
    ("stage", "examples", "weight"),
    [
        (Weight("examples"), 7, 7),
        (Weight("examples", cap=5), 7, 5),
        (Weight("examples", cap=5), 3, 3),
        (Weight("examples", cap=0.5), 3, 0.5),
        (Weight("uniform"), 7, 1),
        (Weight("uniform", cap=5), 7, 1),
        (Weight("examples"), 0, 0),
        (Weight("uniform"), 0, 0),
    ],
)
def test_the_table(stage, examples, weight):
    sent = encode([stage], update(DELTA, examples, [1.0, 2.0, 3.0, 4.0]))
    assert sent.segment("weight").tolist() == [weight]
    factor = (weight > 0) if stage.by == "uniform" else weight
    assert sent.segment("delta").tolist() == [np.float32(d) * np.float32(factor) for d in DELTA]
    assert sent.segment("metrics").tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("cap", [0.1, 0.3, 1e-7, 1 / 3, 16_777_217.0, 1e30])
def test_a_weight_never_exceeds_its_cap_when_it_is_rounded_to_float32(cap):
    sent = encode([Weight("examples", cap=cap)], update(DELTA, 3e38, []))
    assert float(sent.segment("weight")[0]) <= cap
    assert float(sent.segment("weight")[0]) == pytest.approx(cap, rel=1e-6)


def test_a_delta_that_overflows_stays_visible():
    sent = encode([Weight("examples")], update([3e38] + [0.0] * 4, 10))
    assert math.isinf(sent.segment("delta")[0])


@pytest.mark.parametrize(
    ("stage", "bound", "quantum"),
    [
        (Weight("uniform"), 1.0, 1.0),
        (Weight("examples", cap=50), 50.0, 1.0),
        (Weight("examples", cap=2.5), 2.5, 0.0),
        (Weight("examples"), math.inf, 1.0),
    ],
)
def test_the_bound_is_a_fact_of_every_segment(stage, bound, quantum):
    facts = facts_after([stage])
    assert {spec.weight for spec in facts.values()} == {bound}
    assert (facts["weight"].l2, facts["weight"].peak) == (bound, bound)
    assert facts["weight"].quantum == quantum
    assert math.isinf(facts["delta"].l2)
    assert stage.bound == bound


def test_a_layout_without_a_weight_is_left_alone():
    layout = LAYOUT.without("weight")
    before = update(DELTA, 0, [], layout)
    assert (encode([Weight("examples")], before).vector == before.vector).all()


def test_an_update_of_a_ring_is_checked_by_its_own_stage():
    from hansa.core.spec import Domain

    facts = {n: UpdateSpec(size=1, cohort=1, segment=n, domain=Domain.RING) for n in ("weight",)}
    Weight("uniform").admit(update(DELTA, 7), facts)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Weight("uniform"), "every client counts once"),
        (Weight("examples"), "a client counts by its examples"),
        (Weight("examples", 50), "a client counts by its examples, at most 50 of them"),
    ],
)
def test_it_says_how_it_counts(stage, words):
    assert str(stage) == words
