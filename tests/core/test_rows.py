"""Several clients in one pass: the bits of one after the other, and nothing if one is refused."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from hansa.aggregators.linear import Mean
from hansa.core import canonical
from hansa.core.contribute import Fold, context_of, encode_rows, encoded
from hansa.core.job import Aggregation, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import AddsRows, EncodesRows, Site, Update
from hansa.core.spec import Divisor
from hansa.errors import UpdateRejected
from hansa.stages.clip import Clip
from hansa.stages.weight import Weight
from tests.support.toy import LAYOUT, POPULATION, TOY, facts_after, plan, round_task

MEAN = Mean(Divisor.REALISED)


def rows(scale: float = 1.0, number: int = 7) -> np.ndarray:
    """Updates before any stage; the third client has no examples."""
    rng = np.random.default_rng(3)
    made = (scale * rng.standard_normal((number, LAYOUT.size))).astype(np.float32)
    made[:, slice(*LAYOUT.bounds("weight"))] = rng.integers(1, 90, (number, 1))
    made[2, slice(*LAYOUT.bounds("weight"))] = 0
    return made


@pytest.mark.parametrize(
    "stage",
    [Weight("examples"), Weight("examples", 20.5), Weight("examples", 0.3), Weight("uniform")],
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_a_stage_encodes_and_admits_rows_as_it_does_updates(stage, scale):
    assert isinstance(stage, EncodesRows)
    together, alone = rows(scale), rows(scale)
    stage.encode_rows(together, LAYOUT)
    for row in alone:
        stage.encode(Update(row, LAYOUT), None)  # type: ignore[arg-type]  # no stage here asks
    np.testing.assert_array_equal(together, alone)
    facts = facts_after([stage, MEAN], cohort=7)
    stage.admit_rows(together, LAYOUT, facts)
    for wrong in (-1.0, np.nan, np.inf):
        bad = together.copy()
        bad[4, LAYOUT.bounds("weight")[0]] = wrong
        with pytest.raises(UpdateRejected):
            stage.admit_rows(bad, LAYOUT, facts)
    together[2, 0] = 1.0  # a delta of nobody's examples
    with pytest.raises(UpdateRejected, match="without weight"):
        stage.admit_rows(together, LAYOUT, facts)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 2e5])
@pytest.mark.parametrize("number", [1, 7, 60])
def test_rows_are_added_to_the_same_bits(scale, number):
    """Also where numbers are too far from zero for the quick way of rounding."""
    facts = facts_after([Weight("examples"), MEAN], cohort=200)
    some = rows(scale, max(number, 3))[:number]
    assert isinstance(MEAN, AddsRows)
    together = MEAN.add_rows(
        MEAN.zero(LAYOUT, facts), list("abc" * 20)[:number], some, LAYOUT, facts
    )
    together = MEAN.add_rows(together, ["x"] * number, some, LAYOUT, facts)
    alone = MEAN.zero(LAYOUT, facts)
    for row in [*some, *some]:
        alone = MEAN.add(alone, "a", Update(row.copy(), LAYOUT), facts)
    np.testing.assert_array_equal(together.value, alone.value)
    assert together.value.any()
    assert len(together.members) == 2 * number


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e30])
def test_one_row_that_is_refused_leaves_the_sum_as_it_was(wrong):
    facts = facts_after([Weight("examples"), MEAN], cohort=20)
    partial = MEAN.add_rows(MEAN.zero(LAYOUT, facts), ["a"] * 7, rows(), LAYOUT, facts)
    before, bad = partial.value.copy(), rows()
    bad[5, 3] = wrong
    with pytest.raises(UpdateRejected):
        MEAN.add_rows(partial, ["b"] * 7, bad, LAYOUT, facts)
    np.testing.assert_array_equal(partial.value, before)
    for spoilt in (rows().astype(np.float64), rows()[:, :-1]):
        with pytest.raises(UpdateRejected, match="in one pass"):
            MEAN.add_rows(partial, ["b"] * 7, spoilt, LAYOUT, facts)


@pytest.mark.parametrize("every", [0, 1])
def test_a_round_encodes_rows_as_updates(every):
    """With metrics, or without any."""
    task = round_task(plan(evaluate_every=every, aggregation=Aggregation(max_weight=6)))
    splits = [TOY.data(Site(client, MappingProxyType({}))) for client in POPULATION]
    contexts = [
        context_of(task, client, TOY, split)
        for client, split in zip(POPULATION, splits, strict=True)
    ]
    rng = np.random.default_rng(1)
    deltas = rng.standard_normal((len(splits), len(task.params))).astype(np.float32)
    losses = rng.random(len(splits))
    found = np.full((len(splits), task.layout.size), np.nan, np.float32)
    found[:, slice(*task.layout.bounds("delta"))] = deltas
    encode_rows(task, contexts, splits, found, losses)
    for row, ctx, split, delta, loss in zip(found, contexts, splits, deltas, losses, strict=True):
        expected = encoded(task, ctx, split, (delta, float(loss)))
        np.testing.assert_array_equal(row, expected.vector)
    fold = Fold.of(task)
    assert fold.in_rows
    together = fold.add_rows(fold.zero(), POPULATION, found)
    alone = fold.zero()
    for client, row in zip(POPULATION, found, strict=True):
        alone = fold.add(alone, client, Update(row, task.layout))
    np.testing.assert_array_equal(together.value, alone.value)
    assert together.members == alone.members


def test_what_looks_at_single_updates_takes_no_rows():
    clipped = round_task(plan(aggregation=Aggregation(clip=1.0, max_weight=6)))
    quorum = Rounds(count=3, quorum=5)
    median = round_task(plan(aggregation=Aggregation(rule="median"), rounds=quorum))
    assert not isinstance(Clip(1.0), EncodesRows)
    assert not Fold.of(clipped).in_rows
    assert not Fold.of(median).in_rows
    with pytest.raises(TypeError):
        Fold.of(median).add_rows(Fold.of(median).zero(), ["a"], np.zeros((1, 9), np.float32))


def test_shuffles_are_those_of_a_new_generator():
    key = ReplayKey.of_seed(5)
    for size in (1, 2, 50, 1001, 3):
        for epoch in range(3):
            expected = key.generator("shuffle", epoch).permutation(size)
            np.testing.assert_array_equal(key.permutation(size, "shuffle", epoch), expected)


def test_a_list_of_words_has_its_canonical_text():
    words = ("ab", 3, 'quote " and é\n', -7, True)
    assert canonical.listed(*words) == canonical.dumps(list(words))
