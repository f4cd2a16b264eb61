"""How far one client moves C X: against every pattern of participation, and against others."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import NeighboringRelation, SingleEpochTreeAggregationDpEvent, rdp

from hansa.core.events import Gaussian, SelfComposed, ZCDp
from hansa.errors import HansaError
from hansa.privacy.accountants import epsilon
from hansa.privacy.matrices import Strategy, choose, prefix_error, sensitivity, toeplitz
from hansa.privacy.matrices.sensitivity import of_decreasing

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text("ascii"))["matrices"]
TREES = [vector for vector in VECTORS if vector["kind"] == "tree"]
TOEPLITZ = [vector for vector in VECTORS if vector["kind"] != "tree"]

SCHEMAS = [
    (t, b, k)
    for t in (1, 2, 5, 8, 9, 12)
    for b in (1, 2, 3, 4, 7)
    for k in (1, 2, 3, 5, 12)
    if b <= t and k <= -(-t // b)
]


def dense(first: np.ndarray) -> np.ndarray:
    """The lower triangular Toeplitz matrix with this first column."""
    size = len(first)
    return np.array([[first[i - j] if i >= j else 0.0 for j in range(size)] for i in range(size)])


def nodes(rounds: int) -> np.ndarray:
    """The (nodes, rounds) matrix of a tree: a row of ones for each complete node."""
    rows = []
    for level in range(rounds.bit_length()):
        for start in range(0, rounds - 2**level + 1, 2**level):
            rows.append([1.0 if start <= r < start + 2**level else 0.0 for r in range(rounds)])
    return np.array(rows)


def brute(matrix: np.ndarray, separation: int, participations: int) -> float:
    """The largest norm over all patterns of at most k rounds, at least b apart."""
    rounds, worst = matrix.shape[1], 0.0
    for often in range(1, participations + 1):
        for pattern in itertools.combinations(range(rounds), often):
            if all(b - a >= separation for a, b in itertools.pairwise(pattern)):
                worst = max(worst, float(np.linalg.norm(matrix[:, pattern].sum(axis=1))))
    return worst


def falling(kind: str, rounds: int) -> np.ndarray:
    if kind == "root":
        return np.array(toeplitz.square_root(rounds))
    if kind == "blt":
        return toeplitz.buffered((0.4, 0.2), (0.95, 0.3), rounds)
    if kind == "ones":
        return np.ones(rounds)
    return np.sort(np.random.default_rng(rounds).random(rounds))[::-1].copy()


@pytest.mark.parametrize("kind", ["root", "blt", "ones", "random"])
def test_toeplitz_is_exact(kind):
    for rounds, separation, participations in SCHEMAS:
        first = falling(kind, rounds)
        expected = brute(dense(first), separation, participations)
        found = of_decreasing(first, separation, participations)
        assert found == pytest.approx(expected, rel=1e-12), (rounds, separation, participations)


def test_separate_columns_are_bounded_and_exact_where_none_is_cut_off():
    """Bands up to the separation; signs and order of the coefficients do not matter."""
    rng = np.random.default_rng(1)
    for rounds, separation, participations in SCHEMAS:
        coefficients = tuple(rng.normal(size=separation).tolist())
        coefficients = (abs(coefficients[0]), *coefficients[1:])
        strategy = Strategy("banded", rounds, separation, participations, coefficients)
        expected = brute(dense(strategy.column(rounds)), separation, participations)
        assert strategy.orthogonal
        assert strategy.sens >= expected * (1 - 1e-12)
        if participations * separation <= rounds:
            assert strategy.sens == pytest.approx(expected, rel=1e-12)


def test_separate_columns_share_no_row():
    strategy = choose("banded", 40, 8)
    matrix = dense(strategy.column(40))
    overlap = np.abs(matrix.T @ matrix)
    assert all(overlap[i, j] == 0 for i in range(40) for j in range(40) if abs(i - j) >= 8)
    assert overlap[0, 7] > 0, "and they have as many bands as they may"


def test_the_tree_is_bounded_and_exact_for_one_participation():
    for rounds, separation, participations in SCHEMAS:
        found = Strategy("tree", rounds, separation, participations).sens
        expected = brute(nodes(rounds), separation, participations)
        assert found >= expected * (1 - 1e-12), (rounds, separation, participations)
        assert found <= expected * 1.35, "no bound that costs a third more noise"
        if participations == 1:
            assert found**2 == pytest.approx(math.ceil(math.log2(rounds + 1)))


@pytest.mark.parametrize(("rounds", "separation"), [(8, 1), (8, 2), (8, 4), (16, 4), (16, 8)])
def test_the_tree_is_exact_in_powers_of_two(rounds, separation):
    often = rounds // separation
    expected = brute(nodes(rounds), separation, often)
    assert Strategy("tree", rounds, separation, often).sens == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("vector", TREES, ids=str)
def test_the_tree_is_as_tight_as_the_general_bound(vector):
    """The bound of Choquette-Choo et al. for any matrix, by jax-privacy: within one percent."""
    found = Strategy("tree", *(vector[word] for word in ("rounds", "separation", "participations")))
    assert found.sens <= vector["bound"] * 1.01


@pytest.mark.parametrize("vector", TOEPLITZ, ids=lambda v: f"{v['kind']}-{v['rounds']}")
def test_toeplitz_as_jax_privacy(vector):
    rounds, schema = vector["rounds"], (vector["separation"], vector["participations"])
    if vector["kind"] == "blt":
        strategy = Strategy(
            "blt", rounds, *schema, tuple(vector["scales"]), tuple(vector["decays"])
        )
    else:
        strategy = Strategy("banded", rounds, *schema, toeplitz.square_root(rounds))
    column = strategy.column(rounds)
    assert column[:6].tolist() == pytest.approx(vector["coefficients"], rel=1e-12)
    assert toeplitz.inverse(column)[:6].tolist() == pytest.approx(vector["inverse"], rel=1e-9)
    assert strategy.sens == pytest.approx(vector["sens"], rel=1e-9)
    error = prefix_error(strategy)
    assert error.mean == pytest.approx(vector["mean_error"], rel=1e-9)
    assert error.max == pytest.approx(vector["max_error"], rel=1e-9)


def test_no_other_directions_move_it_further():
    """Entries are not negative, so a client does most by doing the same in all its rounds."""
    matrix, rng = dense(falling("blt", 9)), np.random.default_rng(2)
    bound = of_decreasing(falling("blt", 9), 3, 3)
    for _ in range(200):
        changes = np.zeros((9, 4))
        changes[[0, 3, 6]] = rng.normal(size=(3, 4))
        changes[[0, 3, 6]] /= np.linalg.norm(changes[[0, 3, 6]], axis=1, keepdims=True)
        assert np.linalg.norm(matrix @ changes) <= bound


def test_square_roots_multiply_to_prefix_sums():
    """Of Fractions: C C = A, so C(2n, n) / 4^n is right to the last digit."""
    root = toeplitz.square_root(30)
    assert root[:4] == (1.0, 0.5, 0.375, 0.3125)
    assert root[29] == pytest.approx(math.comb(58, 29) / 4**29, rel=1e-13)
    assert np.allclose(dense(np.array(root)) @ dense(np.array(root)), np.tril(np.ones((30, 30))))


def test_other_schemas_can_be_asked_for():
    strategy = choose("blt", 100, 10)
    assert sensitivity(strategy, 100, 10, 1) < strategy.sens
    assert sensitivity(strategy, 100, 100, 1) == sensitivity(strategy, 100, 10, 1)
    assert sensitivity(strategy, 100, 5, 10) > strategy.sens


@pytest.mark.parametrize(
    ("given", "because"),
    [
        (("banded", 8, 1, 2, (1.0, 0.5, 0.6)), "do not fall"),
        (("banded", 8, 1, 2, (1.0, -0.1)), "negative"),
        (("blt", 8, 2, 2, (1.1,), (0.5,)), "do not fall"),
        (("blt", 8, 2, 2, (0.5,), (1.1,)), "do not fall"),
        (("blt", 8, 2, 2, (0.5, 0.4), (0.5,)), "not the coefficients"),
        (("banded", 8, 2, 2), "not the coefficients"),
        (("banded", 8, 2, 2, (0.0, 1.0)), "not the coefficients"),
        (("banded", 8, 2, 2, (1.0, math.nan)), "not the coefficients"),
        (("tree", 8, 2, 2, (1.0,)), "not the coefficients"),
        (("identity", 8, 2, 2, (), (0.5,)), "not the coefficients"),
        (("tree", 8, 2, 5), "nobody can take part 5 times"),
        (("tree", 0, 1, 1), "no schema"),
        (("identity", 8, 0, 1), "no schema"),
        (("identity", 8, 1, 0), "no schema"),
    ],
)
def test_what_has_no_known_sensitivity_is_refused(given, because):
    with pytest.raises(HansaError, match=because) as caught:
        Strategy(*given)
    assert caught.value.fix


def test_the_tree_costs_what_the_accountant_of_trees_says():
    """T = 1024, z = 10 for each node: 1.3785 at delta 1e-5."""
    strategy = choose("tree", 1024, 1024)
    ours = epsilon(Gaussian(10 / strategy.sens), 1e-5, "rdp")
    accountant = rdp.RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
    theirs = accountant.compose(SingleEpochTreeAggregationDpEvent(10.0, 1024)).get_epsilon(1e-5)
    assert ours == pytest.approx(1.3785, abs=1e-4)
    assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("kind", ["identity", "tree", "banded", "blt"])
def test_the_run_costs_as_much_as_its_participations(kind):
    """Noise of z sens / sqrt(k) on C X is zCDP with rho = k / (2 z^2)."""
    z, strategy = 2.5, choose(kind, 64, 8)
    often = strategy.participations
    sigma = z * strategy.sens / math.sqrt(often)
    rho = strategy.sens**2 / (2 * sigma**2)
    run = epsilon(SelfComposed(Gaussian(z), often), 1e-6, "rdp")
    assert run == pytest.approx(epsilon(ZCDp(rho), 1e-6, "rdp"), rel=1e-9)


@pytest.mark.parametrize(
    ("rho", "delta", "expected"),
    [(0.81, 1e-10, 8.9223), (0.25, 1e-10, 4.6969), (1.0, 1e-10, 10.0344), (0.5, 1e-5, 4.7285)],
)
def test_concentrated_privacy_of_deployed_models(rho, delta, expected):
    """The first was published as 8.9, for a Spanish keyboard trained with a tree."""
    strategy = choose("tree", 1000, 250)
    z = math.sqrt(strategy.participations / (2 * rho))
    run = SelfComposed(Gaussian(z), strategy.participations)
    assert epsilon(run, delta, "rdp") == pytest.approx(expected, abs=1e-3)
