"""Correlated Gaussian noise: its rows, its scale, what it remembers, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hansa.core import canonical
from hansa.core.events import Gaussian, NoOp
from hansa.core.keys import ReplayKey, SecretNoise
from hansa.core.parts import Correlated, Relation
from hansa.core.spec import Divisor
from hansa.errors import HansaError, PlanError
from hansa.mechanisms.correlated import CorrelatedGaussian
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.matrices.stream import Memory
from tests.laws.mechanisms import MechanismLaws, deviates, spec
from tests.privacy.matrices.test_matrices_sensitivity import dense, nodes

KINDS = ("identity", "tree", "banded", "blt")
KEY = ReplayKey.of_seed(0)
ROUNDS = 24


def mechanism(kind="blt", **changed) -> CorrelatedGaussian:
    """For clients that come at least every sixth round, four times at most."""
    return replace(CorrelatedGaussian(kind, ROUNDS, 6, 0, 1.5, 0.7), **changed)


def run(of: CorrelatedGaussian, facts, noise, totals: np.ndarray) -> np.ndarray:
    """The public form of successive sums, (rows, size)."""
    memory, rows = of.remember(facts, 0, noise), []
    for row, total in enumerate(totals):
        memory, public = of.correlate(memory, row, total.copy(), facts, noise)
        rows.append(public)
    return np.array(rows)


class TestLawsOfBuffers(MechanismLaws):
    mechanism = mechanism("blt")

    def sigma(self, of):
        return {"delta": 1.5, "metrics": 0.7}.get(of.segment, 0.0) * of.l2


class TestLawsOfTrees(TestLawsOfBuffers):
    mechanism = mechanism("tree")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("segment", "size", "event", "released"),
    [
        ("delta", 5, Gaussian(1.5), True),
        ("metrics", 5, Gaussian(0.7), True),
        ("metrics", 0, NoOp(), False),
        ("weight", 1, NoOp(), False),
    ],
)
def test_the_table(kind, segment, size, event, released):
    facts = spec(segment, size=size)
    assert mechanism(kind).infer(facts) == event
    assert mechanism(kind).releases(facts) is released


@pytest.mark.parametrize(
    ("changed", "facts", "because"),
    [
        ({}, spec(l2=math.inf), "the delta arbitrarily far"),
        ({}, spec("metrics", l2=math.inf), "the metrics arbitrarily far"),
        ({}, spec(l2=0.0), "arbitrarily far"),
        ({}, spec(divisor=Divisor.REALISED), "realised count"),
        ({}, spec(noise=0.1), "clients add noise of their own"),
        ({}, spec("within"), "norm bound that adapts"),
        ({"noise_multiplier": 0.0}, spec(), "protects nobody"),
        ({"noise_multiplier": -1.0}, spec(), "protects nobody"),
        ({"noise_multiplier": math.nan}, spec(), "protects nobody"),
        ({"noise_multiplier": math.inf}, spec(), "protects nobody"),
        ({"metrics_noise_multiplier": 0.0}, spec("metrics"), "protects nobody"),
        ({"rounds": 10_000}, spec(), "no buffered matrix is recorded for 10,000 rounds"),
        ({"rounds": 0}, spec(), "no schema"),
        ({"separation": 0}, spec(), "no schema"),
        ({"participations": -1}, spec(), "no schema"),
    ],
)
def test_what_cannot_be_released_is_refused(changed, facts, because):
    with pytest.raises(PlanError, match=because) as caught:
        mechanism(**changed).infer(facts)
    assert caught.value.fix
    assert caught.value.part.startswith("CorrelatedGaussian"), "the part that the job names"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [KEY, SecretNoise.fresh()], ids=["key", "secret"])
def test_the_rows_have_the_promised_covariance(kind, noise):
    """C times the rows is independent noise of one scale: what the guarantee is about."""
    of, facts = mechanism(kind), spec(size=5000)
    matrix = of.matrix
    sigma = 1.5 * facts.l2 * matrix.sens / math.sqrt(matrix.participations)
    rows = run(of, facts, noise, np.zeros((ROUNDS, facts.size)))
    if kind == "tree":
        # The sum of 16 rounds is one estimate, of which least squares knows the variance.
        sigma *= float(np.linalg.norm(np.ones(16) @ np.linalg.pinv(nodes(16))))
        white = rows[:16].sum(axis=0)
    else:
        white = (dense(matrix.column(ROUNDS)) @ rows).ravel()
        lags = [np.corrcoef(white[: -lag * 5000], white[lag * 5000 :])[0, 1] for lag in (1, 2, 6)]
        assert np.abs(lags).max() < 5 / math.sqrt(len(white) / 2)
        assert deviates(rows.ravel(), sigma) is (kind != "identity"), "the rows alone are not white"
    assert not deviates(white, sigma)
    if len(white) > 5000:
        assert deviates(white * 0.95, sigma), "the test has no power"
        assert deviates(white * 1.05, sigma), "the test has no power"
    assert stats.kstest(white / sigma, "norm").pvalue > 1e-6


def test_a_matrix_that_is_slightly_wrong_is_noticed():
    """The covariance test has power: whitened by coefficients that are 5 % off, rows correlate."""
    of, facts = mechanism("blt"), spec(size=20_000)
    rows = run(of, facts, KEY, np.zeros((ROUNDS, facts.size)))
    column = of.matrix.column(ROUNDS)
    column[1:] *= 0.95
    white = dense(column) @ rows
    lag = np.corrcoef(white[:-1].ravel(), white[1:].ravel())[0, 1]
    assert abs(lag) > 5 / math.sqrt(white[1:].size)


@pytest.mark.parametrize("kind", ["tree", "banded", "blt"])
def test_the_noise_of_a_model_is_smaller_than_independent_noise(kind):
    of, facts = mechanism(kind, participations=1), spec(size=5000)
    models = np.cumsum(run(of, facts, KEY, np.zeros((ROUNDS, 5000))), axis=0)
    independent = 1.5 * facts.l2 * np.sqrt(np.arange(1, ROUNDS + 1))
    assert (models**2).mean() < 0.75 * (independent**2).mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 7, 16, 23])
def test_after_a_crash_the_same_noise_comes_again(kind, rows):
    """The key is all that was kept; a release that was not recorded gets the same bits."""
    of, facts, key = mechanism(kind), spec(size=100), SecretNoise.fresh()
    totals = np.random.default_rng(0).normal(size=(ROUNDS, 100))
    undisturbed = run(of, facts, key, totals)
    memory = of.remember(facts, rows, SecretNoise(key.key))
    _, again = of.correlate(memory, rows, totals[rows].copy(), facts, SecretNoise(key.key))
    assert (again == undisturbed[rows]).all()
    memory = of.remember(facts, rows, key)
    for row in range(rows, ROUNDS):
        memory, public = of.correlate(memory, row, totals[row].copy(), facts, key)
        assert (public == undisturbed[row]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_another_key_gives_other_noise_and_no_row_repeats(kind):
    of, facts, zeros = mechanism(kind), spec(size=50), np.zeros((ROUNDS, 50))
    one = run(of, facts, SecretNoise.fresh(), zeros)
    other = run(of, facts, SecretNoise.fresh(), zeros)
    assert (one != other).mean() > 0.99
    assert len(np.unique(one)) > 0.99 * one.size


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_released_lies_on_the_grid(kind):
    """In exact arithmetic: no low bits of the sum or of the noise can leak."""
    of, facts = mechanism(kind), spec(size=40)
    _, grid = of.scale(facts)
    totals = np.random.default_rng(0).normal(size=(ROUNDS, 40))
    for value in run(of, facts, KEY, totals).ravel().tolist():
        assert (Fraction(value) / Fraction(grid)).denominator == 1


def test_two_sums_within_a_step_can_not_be_told_apart_by_low_bits():
    of, facts = mechanism(), spec(size=200)
    _, grid = of.scale(facts)
    base = np.round(np.random.default_rng(1).standard_normal((3, 200)) / grid) * grid
    assert (run(of, facts, KEY, base + 0.1 * grid) == run(of, facts, KEY, base - 0.2 * grid)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("l2", [1e-6, 3.0, 1e6])
def test_the_scale_covers_the_sensitivity_and_the_grid(kind, relation, l2):
    of = mechanism(kind, relation=relation)
    facts = spec(l2=l2, peak=l2)
    sigma, grid = of.scale(facts)
    neighbours = 2 if relation is Relation.REPLACE_ONE else 1
    row = Fraction(neighbours) * Fraction(l2) + 2 * Fraction(grid) * math.isqrt(facts.size)
    share = of.matrix.sens / math.sqrt(of.matrix.participations)
    assert Fraction(sigma) >= Fraction(1.5 * share) * row * (1 - Fraction(1, 10**12))
    assert sigma == pytest.approx(1.5 * share * neighbours * l2, rel=1e-5), "it costs nothing"
    assert math.log2(grid).is_integer()
    assert grid <= sigma * 2**-20


@pytest.mark.parametrize("kind", KINDS)
def test_the_guarantee_is_that_of_the_participations(kind):
    """sens / sigma, the parameter of the whole run's Gaussian, is sqrt(k) / z."""
    of, facts = mechanism(kind), spec(quantum=0.0)
    sigma, _ = of.scale(facts)
    assert of.matrix.participations == 4
    assert facts.l2 * of.matrix.sens / sigma == pytest.approx(math.sqrt(4) / 1.5, rel=1e-5)
    assert sigma > 0


def test_independent_rows_are_those_of_the_central_mechanism():
    central = CentralGaussian(1.5, 0.7)
    assert mechanism("identity").scale(spec()) == pytest.approx(central.scale(spec()), rel=1e-12)


def test_metrics_have_noise_of_their_own():
    facts, total = spec("metrics"), np.ones(40_000)
    ours = mechanism().apply(total.copy(), facts, KEY)
    assert (ours == CentralGaussian(1.5, 0.7).apply(total.copy(), facts, KEY)).all()


@pytest.mark.parametrize(
    ("kind", "participations", "orthogonal"),
    [
        ("identity", 0, True),
        ("banded", 0, True),
        ("tree", 0, False),
        ("blt", 0, False),
        ("blt", 1, True),
    ],
)
def test_amplification_is_only_for_participations_that_never_meet(kind, participations, orthogonal):
    assert mechanism(kind, participations=participations).orthogonal is orthogonal


@pytest.mark.parametrize("kind", KINDS)
def test_each_orthogonal_participation_costs_one_gaussian(kind):
    """What amplification counts on: no column of C is longer than a participation's share."""
    of = mechanism(kind)
    if not of.orthogonal:
        return
    matrix = of.matrix
    longest = np.linalg.norm(matrix.column(ROUNDS))
    assert longest <= matrix.sens / math.sqrt(matrix.participations) * (1 + 1e-12)


def test_a_row_out_of_turn_is_refused():
    of, facts = mechanism(), spec(size=3)
    with pytest.raises(HansaError, match="cannot follow"):
        of.correlate(of.remember(facts, 2, KEY), 3, np.zeros(3), facts, KEY)
    with pytest.raises(HansaError, match="one more than the 24"):
        of.correlate(Memory(row=ROUNDS), ROUNDS, np.zeros(3), facts, KEY)


def test_it_is_what_the_round_loop_looks_for():
    assert isinstance(mechanism(), Correlated)
    assert not isinstance(CentralGaussian(1.0), Correlated)
    assert '"strategy":"blt"' in canonical.dumps(mechanism())


def test_its_words_name_the_matrix_and_the_schema():
    words = str(mechanism("banded"))
    for part in ("1.5", "24 rounds", "banded matrix", "jax-privacy 2.0.0", "4 times", "6 rounds"):
        assert part in words
    assert "at most once (" in str(mechanism("tree", participations=1))
