"""The rows of C^-1 Z, one at a time, against dense linear algebra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from hansa.privacy.matrices import Strategy, prefix_error, toeplitz, tree
from hansa.privacy.matrices.stream import Memory, advance
from tests.privacy.matrices.test_matrices_sensitivity import dense, nodes

ROUNDS = 21

STRATEGIES = {
    "identity": Strategy("identity", ROUNDS, 1, ROUNDS),
    "tree": Strategy("tree", ROUNDS, 4, 3),
    "banded": Strategy("banded", ROUNDS, 5, 4, (0.8, 0.3, -0.2, 0.1, 0.05)),
    "one band": Strategy("banded", ROUNDS, 5, 4, (2.0,)),
    "root": Strategy("banded", ROUNDS, 2, 3, toeplitz.square_root(ROUNDS)),
    "blt": Strategy("blt", ROUNDS, 4, 3, (0.3, 0.2, 0.1), (0.99, 0.6, 0.1)),
    "no buffers": Strategy("blt", ROUNDS, 4, 3),
}


def completed(rounds: int) -> list[tuple[int, int]]:
    """(row, level) of each draw, in the order of the rows of `nodes`: by level, then by row."""
    return [
        (start + 2**level - 1, level)
        for level in range(rounds.bit_length())
        for start in range(0, rounds - 2**level + 1, 2**level)
    ]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Samples that are given: for each row and level the line that `index` names."""

    samples: np.ndarray
    index: Mapping[tuple[int, int], int]
    row: int

    def __call__(self, level: int) -> np.ndarray:
        return np.array(self.samples[self.index[self.row, level]])


def linear(strategy: Strategy) -> np.ndarray:
    """The matrix that the stream multiplies Z by: each draw is a unit vector of its own."""
    places = completed(strategy.rounds)
    if strategy.kind != "tree":
        places = [place for place in places if place[1] == 0]
    index, memory, rows = {place: n for n, place in enumerate(places)}, Memory(), []
    for row in range(strategy.rounds):
        memory, noise = advance(strategy, memory, Drawn(np.eye(len(places)), index, row))
        rows.append(noise.copy())
        assert len(memory.kept) <= strategy.kept
    return np.array(rows)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "tree"])
def test_rows_are_those_of_the_inverse(name):
    strategy = STRATEGIES[name]
    expected = np.linalg.inv(dense(strategy.column(ROUNDS)))
    assert linear(strategy) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rounds", [1, 2, 7, 16, 21])
def test_what_the_tree_releases_is_a_function_of_the_noisy_tree(rounds):
    """Prefix sums B (C X + s Z) with B C = A: so only the sensitivity of C counts."""
    strategy = Strategy("tree", rounds, rounds, 1)
    noise = np.cumsum(linear(strategy), axis=0)
    assert noise @ nodes(rounds) == pytest.approx(np.tril(np.ones((rounds, rounds))), abs=1e-12)


@pytest.mark.parametrize("rounds", [2, 4, 8, 16])
def test_the_tree_has_the_best_estimates(rounds):
    """Least squares on the subtree of a node, which is what an estimate from below is."""
    noise = np.cumsum(linear(Strategy("tree", rounds, rounds, 1)), axis=0)[-1]
    best = np.ones(rounds) @ np.linalg.pinv(nodes(rounds))
    assert noise == pytest.approx(best, abs=1e-12)
    assert tree.variances(tree.levels(rounds))[-1] == pytest.approx(best @ best, rel=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_the_errors_are_those_of_the_rows(strategy):
    rows = linear(strategy)
    squares = (np.cumsum(rows, axis=0) ** 2).sum(axis=1) * strategy.sens**2
    error = prefix_error(strategy)
    assert error.mean == pytest.approx(squares.mean(), rel=1e-12)
    assert error.max == pytest.approx(squares.max(), rel=1e-12)
    deviations = np.sqrt((rows**2).sum(axis=1))
    assert strategy.spread == pytest.approx(deviations.max(), rel=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_long_vectors_are_worked_on_in_blocks(strategy):
    """More than one block, and the last one shorter: each coordinate by itself."""
    size, rng = 65_536 + 7, np.random.default_rng(5)
    keep = np.r_[0:3, 65_530:size]
    levels = {(0, level): level for level in range(3)}
    long, short = Memory(), Memory()
    for _ in range(7):
        drawn = rng.normal(size=(3, size))
        long, noise = advance(strategy, long, Drawn(drawn, levels, 0))
        short, part = advance(strategy, short, Drawn(drawn[:, keep], levels, 0))
        assert (noise[keep] == part).all()
        assert noise.dtype == np.float64


def test_memories_keep_no_more_than_is_said():
    assert {name: s.kept for name, s in STRATEGIES.items()} == {
        "identity": 0,
        "tree": 5,
        "banded": 4,
        "one band": 0,
        "root": ROUNDS - 1,
        "blt": 3,
        "no buffers": 0,
    }


def test_noise_does_not_show_where_a_memory_is_printed():
    memory, _ = advance(STRATEGIES["blt"], Memory(), lambda level: np.full(3, 0.123456))
    assert "0.12" not in repr(memory)
