"""The rule of a plan as a function of updates, beside NumPy, and jobs under other rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.aggregators import robust
from hansa.core.job import Aggregation, Defend, Quantization, Rounds, SecureAggregation
from hansa.errors import Refused
from hansa.redteam.rules import Words, rule_of, under, words_of
from tests.support import toy

ROWS = np.random.default_rng(3).standard_normal((6, 5)).astype(np.float32)
ROUNDS = Rounds(count=2, quorum=5)


def plan(**words: Any) -> Any:
    return toy.plan(rounds=ROUNDS, aggregation=Aggregation(**words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, lambda x: x.mean(axis=0)),
        ({"rule": "median"}, lambda x: np.median(x, axis=0)),
        (
            {"rule": "trimmed_mean", "trim": 0.2},
            lambda x: np.sort(x, axis=0)[1:-1].mean(axis=0),
        ),
        ({"rule": "multi_krum", "bad": 0.2}, lambda x: robust.multi_krum(x, 1)),
        (
            {"rule": "median", "mixing": "nearest", "bad": 0.2},
            lambda x: np.median(robust.nearest_neighbor_mixing(x, 1), axis=0),
        ),
    ],
)
def test_the_rule_is_what_the_plan_would_make_of_the_updates(words, expected):
    kept = ROWS.copy()
    found = rule_of(plan(**words))
    assert found is not None
    np.testing.assert_allclose(found(ROWS), expected(ROWS.copy()), rtol=1e-5)
    np.testing.assert_array_equal(ROWS, kept)  # mixing writes into its rows: into copies


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_updates_are_cut_to_the_norm_bound_before_the_rule(rule):
    long = ROWS * np.array([[1], [1], [1], [1], [1], [1000]], np.float32)
    norms = np.linalg.norm(long, axis=1, keepdims=True)
    cut = np.where(norms > 0.5, long * (0.5 / norms), long)
    found = rule_of(plan(rule=rule, clip=0.5, weighting="uniform"))
    assert found is not None
    centre = np.mean if rule == "mean" else np.median
    np.testing.assert_allclose(found(long), centre(cut, axis=0), rtol=1e-5)


def test_no_rule_is_known_where_updates_are_not_looked_at_one_by_one():
    words = Aggregation(clip=1.0, max_weight=40.0)
    ring = Quantization(step=1e-3)
    masked = toy.plan(
        rounds=ROUNDS,
        aggregation=words,
        quantization=ring,
        secure_aggregation=SecureAggregation(enabled=True),
    )
    assert rule_of(masked) is None
    assert rule_of(toy.plan(rounds=ROUNDS, aggregation=words, quantization=ring)) is None
    trusted = Aggregation(rule="fltrust", trusted=toy.POPULATION[0])
    assert rule_of(toy.plan(rounds=ROUNDS, aggregation=trusted)) is None


def test_a_rule_has_two_words():
    assert Words.read("dnc") == Words("dnc")
    assert Words.read("nearest+trimmed_mean") == Words("trimmed_mean", "nearest")
    assert str(Words("median", "bucketing")) == "bucketing+median"
    for text, wanted in (("dcn", "dnc"), ("nearst+median", "nearest"), ("+dnc", "none")):
        with pytest.raises(Refused) as error:
            Words.read(text)
        assert wanted in error.value.fix


def test_a_job_under_another_rule_says_only_what_that_rule_reads():
    job = toy.job(aggregation=Aggregation(rule="trimmed_mean", trim=0.3, clip=2.0))
    assert words_of(job) == Words("trimmed_mean")
    mean = under(job, Words("mean"))
    assert mean.aggregation == Aggregation(clip=2.0)
    dnc = under(job, Words("dnc"), 0.35)
    assert dnc.aggregation == Aggregation(rule="dnc", bad=0.35, clip=2.0)
    grouped = replace(
        job,
        secure_aggregation=SecureAggregation(enabled=True, groups=5),
        defend=Defend(standing=True),
    )
    assert under(grouped, Words("median")).secure_aggregation.groups == 5
    assert under(grouped, Words("median", "nearest")).secure_aggregation.groups == 0
    assert under(grouped, Words("mean")).secure_aggregation == SecureAggregation(enabled=True)
    assert under(grouped, Words("mean")).defend == Defend()
    assert under(grouped, Words("dnc")).defend == Defend(standing=True)
    trimmed = under(dnc, Words("trimmed_mean"))
    assert trimmed.aggregation.trim == 0.35
    assert replace(trimmed, aggregation=job.aggregation) == job
