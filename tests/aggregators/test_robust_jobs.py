"""Robust rules as parts of jobs: what they are told, what they need, and that they hold."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.aggregators import robust
from hansa.aggregators.robust import FLTrust, Robust
from hansa.aggregators.robust.centers import CENTERS, clipped, key_of
from hansa.core.parts import Aggregator
from hansa.core.vector import Layout, Segment, Vector
from hansa.errors import RoundVoid
from hansa.jobfile.rules import COUNTING
from hansa.stages.weight import Weight
from tests.support.toy import facts_after, update

LAYOUT = Layout((Segment("delta", 6), Segment("weight", 1), Segment("metrics", 0)))
N = 15
"""The fewest clients among which Bulyan bears 20 %."""


def centre(rule: Aggregator, rows: Vector, weights: list[float] | None = None) -> Vector:
    """What a job would add to its model."""
    facts = facts_after([Weight("examples"), rule], layout=LAYOUT, cohort=N, quorum=N)
    partial = rule.zero(LAYOUT, facts)
    for i, row in enumerate(rows):
        weight = 1.0 if weights is None else weights[i]
        one = update(list(row * weight), weight, layout=LAYOUT)
        partial = rule.add(partial, f"c{i:02}", one, facts)
    total = rule.finish(partial, LAYOUT, facts)
    mean: Vector = total[:-1] / total[-1]
    return mean


def honest(n: int = N, seed: int = 0) -> Vector:
    """Updates around one direction."""
    rng = np.random.default_rng(seed)
    return (np.arange(1, 7) + 0.2 * rng.standard_normal((n, 6))).astype(np.float32)


EXPECTED: dict[str, Callable[[Any, int], Any]] = {
    "median": lambda x, f: np.median(x, axis=0),
    "trimmed_mean": robust.trimmed_mean,
    "krum": robust.krum,
    "multi_krum": robust.multi_krum,
    "bulyan": robust.bulyan,
    "geometric_median": lambda x, f: robust.geometric_median(x),
    "centered_clipping": lambda x, f: clipped(list(x)),
    "dnc": lambda x, f: robust.dnc(x, f, key_of(list(x))),
    "flame": lambda x, f: robust.flame(x, key_of(list(x))),
    "foolsgold": lambda x, f: robust.foolsgold(x),
}


def test_every_rule_is_expected_here():
    assert EXPECTED.keys() == CENTERS.keys()


def test_job_files_know_which_rules_are_told_how_many_may_be_bad():
    told = {name for name, center in CENTERS.items() if center.counts}
    assert told == {*COUNTING, "trimmed_mean"}, "which is told by aggregation.trim"


@pytest.mark.parametrize("name", CENTERS)
def test_a_job_gets_what_the_function_gives(name):
    """A fifth of fifteen are three; weights do not weigh."""
    x = honest()
    found = centre(Robust(name, 0.2), x)
    np.testing.assert_allclose(found, EXPECTED[name](x, 3), rtol=1e-6)
    weights = [1.0, 4.0, 2.0, 16.0, 8.0] * 3
    np.testing.assert_allclose(centre(Robust(name, 0.2), x, weights), found, rtol=1e-6)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "geometric_median", "dnc"])
def test_mixing_comes_before_the_rule(name):
    x = honest()
    mixed = robust.nearest_neighbor_mixing(x, 3)
    expected = EXPECTED[name](mixed, 3)
    np.testing.assert_allclose(centre(Robust(name, 0.2, "nearest"), x), expected, rtol=1e-6)
    if name in ("median", "geometric_median"):
        pairs = robust.bucketing(x, 2, key_of(list(x)))
        expected = EXPECTED[name](pairs, 3)
        np.testing.assert_allclose(centre(Robust(name, 0.2, "bucketing"), x), expected, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in CENTERS if n != "foolsgold"])
@pytest.mark.parametrize("size", [-1e3, 1e6])
def test_three_liars_of_fifteen_hardly_move_it(name, size):
    x = honest()
    x[[2, 7, 11]] = np.float32(size) * np.sign(np.sin(np.arange(6))).astype(np.float32)
    mean = x[[i for i in range(N) if i not in (2, 7, 11)]].mean(axis=0)
    assert np.linalg.norm(centre(Robust(name, 0.2), x) - mean) < 0.6
    assert np.linalg.norm(x.mean(axis=0) - mean) > 100, "the mean is moved"


def test_krums_score_is_told_the_share():
    """The same fifteen, of which another share may be bad: another choice."""
    x = np.vstack([honest(9), honest(6, 1) + 1]).astype(np.float32)
    few, many = centre(Robust("multi_krum", 0.1), x), centre(Robust("multi_krum", 0.4), x)
    np.testing.assert_allclose(few, robust.multi_krum(x, 1), rtol=1e-6)
    np.testing.assert_allclose(many, robust.multi_krum(x, 6), rtol=1e-6)
    assert np.linalg.norm(few - many) > 0.1


def test_fltrust_follows_the_trusted_client():
    x = honest()
    x[3:] *= -50
    found = centre(FLTrust("c01"), x)
    np.testing.assert_allclose(found, robust.fltrust(x, x[1]), rtol=1e-6)
    assert np.linalg.norm(found) <= np.linalg.norm(x[1]) * (1 + 1e-6)
    with pytest.raises(RoundVoid, match="'kiel'"):
        centre(FLTrust("kiel"), x)


def test_a_round_in_which_too_few_had_examples_is_void():
    weights = [1.0] * 4 + [0.0] * 11
    with pytest.raises(RoundVoid, match="needs 3 updates to bear 0 bad ones, and 2 clients"):
        centre(Robust("multi_krum", 0.2), honest(), [1.0, 1.0] + [0.0] * 13)
    assert np.isfinite(centre(Robust("geometric_median", 0.2), honest(), weights)).all()


def test_the_key_depends_on_every_update_and_on_no_order():
    x = honest()
    assert key_of(list(x)) == key_of(list(x[::-1]))
    other = x.copy()
    other[4, 2] = np.nextafter(other[4, 2], np.float32(0))
    assert key_of(list(other)) != key_of(list(x))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Robust("krum", 0.2), "Krum holds while at most 20% of a round's clients are bad"),
        (Robust("geometric_median", 0.2), "fewer than half of a round's clients are bad"),
        (Robust("geometric_median", 0.2, "bucketing"), "fewer than a quarter"),
        (Robust("geometric_median", 0.3, "nearest"), "mixing holds while at most 30%"),
        (Robust("dnc", 0.2), "no bound is proved"),
        (Robust("flame", 0.2), "no bound is proved"),
        (Robust("foolsgold", 0.2), "one liar is not seen"),
        (FLTrust("kiel"), "while that one is honest"),
    ],
)
def test_what_is_promised(rule, says):
    assert says in str(rule)


def test_mixing_writes_into_the_updates_that_are_kept():
    """Peak memory of the end of a round: below one more copy of the updates."""
    layout = Layout((Segment("delta", 400_000), Segment("weight", 1), Segment("metrics", 0)))
    rule = Robust("trimmed_mean", 0.2, "nearest")
    facts = facts_after([Weight("uniform"), rule], layout=layout, cohort=N, quorum=N)
    partial = rule.zero(layout, facts)
    for i in range(N):
        one = update([0], 1.0, layout=layout)
        one.segment("delta")[:] = np.random.default_rng(i).standard_normal(400_000)
        partial = rule.add(partial, f"c{i:02}", one, facts)
    tracemalloc.start()
    rule.finish(partial, layout, facts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.9 * N * 4 * 400_000
