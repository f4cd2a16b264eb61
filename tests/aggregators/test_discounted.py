"""Updates from older models in the mean, against whole numbers of Python."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hansa.aggregators.linear import Mean
from hansa.core.parts import Update
from hansa.core.spec import Divisor, Domain, UpdateSpec
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, UpdateRejected
from tests.support.toy import facts_after

LAYOUT = Layout((Segment("delta", 300), Segment("weight", 1), Segment("metrics", 4)))
MEAN = Mean(Divisor.REALISED)
WEIGHTS = (1.0, 2**-0.5, 3**-0.5, 0.5, 1e-3, 1e-300)


def facts(**known: Any) -> dict[str, UpdateSpec]:
    return facts_after([MEAN], LAYOUT, **known)


def updates(scale: float, seed: int = 0) -> list[Update]:
    """Values over six orders of magnitude, so that both ways to round to the grid are taken."""
    rng, found = np.random.default_rng(seed), []
    for _ in WEIGHTS[:4]:
        values = rng.standard_normal(LAYOUT.size) * 10 ** rng.uniform(-3, 3, LAYOUT.size) * scale
        values[300] = abs(values[300])
        found.append(Update(values.astype(np.float32), LAYOUT))
    return found


def by_hand(them: list[Update], weights, its) -> list[int]:
    """Steps of the grid: each product in float64, then exact, half to even."""
    total = [0] * LAYOUT.size
    for update, weight in zip(them, weights, strict=True):
        for segment in LAYOUT.segments:
            grid = Fraction(its[segment.name].quantum)
            for place in range(*LAYOUT.bounds(segment.name)):
                value = float(update.vector[place])
                if segment.name == "delta":
                    value *= weight
                total[place] += round(Fraction(value) / grid)
    return total


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e-30])
@pytest.mark.parametrize("peak", [2.0**24, 2.0**60])
def test_the_sum_is_that_of_fractions(scale, peak):
    its = facts(peak=peak)
    them, partial = updates(scale), MEAN.zero(LAYOUT, its)
    for number, (update, weight) in enumerate(zip(them, WEIGHTS[:4], strict=True)):
        partial = MEAN.add_discounted(partial, str(number), update, its, weight)
    assert partial.value.tolist() == by_hand(them, WEIGHTS[:4], its)
    assert partial.members == ("0", "1", "2", "3")


@pytest.mark.parametrize("weight", WEIGHTS)
def test_rows_give_the_same_bits(weight):
    its, them = facts(), updates(1.0, seed=1)
    one, rows = MEAN.zero(LAYOUT, its), np.stack([update.vector for update in them])
    for name, update in zip("abcd", them, strict=True):
        one = MEAN.add_discounted(one, name, update, its, weight)
    two = MEAN.add_rows(MEAN.zero(LAYOUT, its), tuple("abcd"), rows, LAYOUT, its, weight)
    assert one.value.tobytes() == two.value.tobytes()
    assert one.members == two.members


def test_the_weight_of_a_fresh_update_changes_no_bit():
    its, update = facts(), updates(1.0)[0]
    one = MEAN.add(MEAN.zero(LAYOUT, its), "a", update, its)
    two = MEAN.add_discounted(MEAN.zero(LAYOUT, its), "a", update, its, 1.0)
    assert one.value.tobytes() == two.value.tobytes()


def test_only_the_delta_counts_for_less():
    its = facts()
    update = Update(np.full(LAYOUT.size, 2.0, np.float32), LAYOUT)
    total = MEAN.finish(
        MEAN.add_discounted(MEAN.zero(LAYOUT, its), "a", update, its, 0.25), LAYOUT, its
    )
    assert set(LAYOUT.slice(total, "delta")) == {0.5}
    assert set(LAYOUT.slice(total, "weight")) == {2.0}
    assert set(LAYOUT.slice(total, "metrics")) == {2.0}


@pytest.mark.parametrize("bad", [3.5, np.inf, np.nan])
def test_bounds_are_checked_before_the_weight(bad):
    """2 is the bound; 3.5 would be within it after the weight."""
    its = facts(peak=2.0)
    update, partial = Update(np.ones(LAYOUT.size, np.float32), LAYOUT), MEAN.zero(LAYOUT, its)
    update.vector[7] = bad
    with pytest.raises(UpdateRejected):
        MEAN.add_rows(partial, ("a",), update.vector[np.newaxis], LAYOUT, its, 0.5)
    with pytest.raises(UpdateRejected):
        MEAN.add_discounted(partial, "a", update, its, 0.5)
    assert not partial.value.any()


def test_integers_in_a_ring_are_not_divided():
    its = facts(domain=Domain.RING, bits=32)
    update = Update(np.ones(LAYOUT.size, np.uint32), LAYOUT)
    partial = MEAN.add_discounted(MEAN.zero(LAYOUT, its), "a", update, its, 1.0)
    assert partial.value.sum() == LAYOUT.size
    with pytest.raises(HansaError, match="ring"):
        MEAN.add_discounted(partial, "b", update, its, 0.5)
