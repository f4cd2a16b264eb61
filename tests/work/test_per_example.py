"""Sums of per-example clipped gradients: for certain, whatever the examples are."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hansa.core.metrics import Outputs
from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Schema, Tensor, Vector
from hansa.errors import HansaError
from hansa.work.numpy_task import Array, NumpyTask, Parameters
from hansa.work.per_example import PerExample, Piece, clipped_sum, pieces

FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Alone:
    """A model whose examples are their own gradients; each one's loss is its target."""

    size: int
    metrics: tuple[()] = ()

    @property
    def schema(self) -> Schema:
        return Schema((Tensor("all", (self.size,)),))

    def initial(self, seed: int) -> Vector:
        return np.zeros(self.size, np.float32)

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        assert len(batch) == 1
        return float(batch.targets[0]), batch.inputs[0]

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        raise AssertionError("nobody asks")


@dataclass(frozen=True)
class InPieces(Alone):
    """The same, some examples at a time in memory that is reused."""

    at_once: int = 3

    def per_example(self, params: Vector, batch: Examples) -> Iterator[Piece]:
        room = np.empty((self.at_once, self.size), np.float32)
        for start in range(0, len(batch), self.at_once):
            part = batch.inputs[start : start + self.at_once]
            room[: len(part)] = part
            yield batch.targets[start : start + self.at_once], room[: len(part)]
            room.fill(np.nan)


def rows(gradients: NDArray[np.float32], losses: NDArray[np.float64] | None = None) -> Examples:
    return Examples(gradients, np.zeros(len(gradients)) if losses is None else losses)


def total(gradients: NDArray[np.float32], clip: float, grid: float) -> Vector:
    size = gradients.shape[1]
    return clipped_sum(InPieces(size), np.zeros(size, np.float32), rows(gradients), clip, grid)[1]


def random(n: int, size: int, seed: int = 1) -> NDArray[np.float32]:
    """Gradients with norms from far below to far above 1."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 2, (n, 1))) / math.sqrt(size)
    return (rng.normal(size=(n, size)) * scale).astype(np.float32)


@pytest.mark.parametrize(("n", "size"), [(1, 1), (8, 5), (700, 200), (5, 200_000)])
@pytest.mark.parametrize("kind", [Alone, InPieces])
def test_the_sum_is_that_of_the_formula(n: int, size: int, kind: type[Alone]):
    """One example after the other, one number after the other, in Python's own float64."""
    gradients, clip, grid = random(n, size), 0.75, 2.0**-16
    losses = np.linspace(0, 1, n)
    expected, clipped = np.zeros(size), 0
    for gradient in gradients.astype(np.float64):
        norm = math.sqrt(math.fsum(x * x for x in gradient.tolist()))
        clipped += norm > clip
        expected += np.rint(gradient * min(1.0, clip / norm) / grid) * grid
    params = np.zeros(size, np.float32)
    loss, found = clipped_sum(kind(size), params, rows(gradients, losses), clip, grid)
    assert n < 5 or 0 < clipped < n
    assert found.dtype == np.float64
    # A coordinate of a clipped gradient may fall on the other side of a half: one step of its sum.
    assert np.abs(found - expected).max() <= 3 * grid
    assert (found != expected).mean() < 0.05
    assert loss == pytest.approx(math.fsum(losses))
    np.testing.assert_array_equal(found / grid, np.rint(found / grid))


@pytest.mark.parametrize(("n", "bits"), [(500, 40), (12, 48)])
def test_the_sum_is_exact_so_that_neither_order_nor_pieces_matter(n: int, bits: int):
    gradients, grid = random(n, 40), 2.0**-bits
    one = total(gradients, 1.0, grid)
    shuffled = np.random.default_rng(2).permutation(gradients)
    np.testing.assert_array_equal(one, total(shuffled, 1.0, grid))
    for model in (Alone(40), InPieces(40, at_once=500), InPieces(40, at_once=7)):
        _, other = clipped_sum(model, model.initial(0), rows(gradients), 1.0, grid)
        np.testing.assert_array_equal(one, other)


numbers = st.one_of(
    st.floats(width=32),  # NaN, infinities and denormals are among them
    st.floats(-2, 2, width=32),
    st.sampled_from([0.0, FLOAT32.max, FLOAT32.smallest_subnormal, math.nan, math.inf]),
)
gradients_of_four = st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=6)


@given(
    gradients_of_four,
    st.data(),
    st.sampled_from([1e-30, 2.0**-10, 0.3, 1.0, 1e6]),
    st.integers(1, 45),
)
@settings(max_examples=400, deadline=None)
def test_no_example_moves_the_sum_further_than_promised(values, data, clip, bits):
    """In whole fractions, with sqrt(d) = 2: not even the last bit goes beyond the bound."""
    gradients = np.array(values, np.float32)
    grid = 2.0 ** (math.frexp(clip)[1] - bits)
    at = data.draw(st.integers(0, len(gradients) - 1))
    without = gradients.copy()
    without[at] = 0
    pairs = zip(total(gradients, clip, grid), total(without, clip, grid), strict=True)
    moved = [Fraction(float(a)) - Fraction(float(b)) for a, b in pairs]
    assert sum(m * m for m in moved) <= (Fraction(clip) + Fraction(grid)) ** 2
    if not np.isfinite(gradients[at]).all():
        assert not any(moved)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9), st.integers(0, 1000))
@example([3.0], 0)
@settings(max_examples=300, deadline=None)
def test_the_norm_before_rounding_is_at_most_the_bound(values, seed):
    """On a grid so fine that rounding is nothing: the norm is below the bound, and hardly so."""
    gradient = np.array([values], np.float32)
    gradient[0] *= np.float32(np.random.default_rng(seed).uniform(1, 2))
    clip, grid = 0.5, 2.0**-51
    exact = sum(Fraction(float(x)) ** 2 for x in gradient[0])
    found = sum(Fraction(float(x)) ** 2 for x in total(gradient, clip, grid))
    slack = Fraction(grid) * 3  # sqrt(9)
    assert found <= (Fraction(clip) * (1 - Fraction(1, 10**10)) + slack) ** 2
    if exact > Fraction(clip) ** 2:
        assert found >= (Fraction(clip) * (1 - Fraction(2, 10**9)) - slack) ** 2


@given(st.lists(st.floats(-(2.0**-4), 2.0**-4, width=32), min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_what_is_within_the_bound_is_only_rounded(values):
    """Also halves and denormals: to a whole number of steps, half a step away at most."""
    grid = 2.0**-9
    found = total(np.array([values], np.float32), 1.0, grid)
    for x, rounded in zip(values, found.tolist(), strict=True):
        assert (Fraction(rounded) / Fraction(grid)).denominator == 1
        assert abs(Fraction(rounded) - Fraction(x)) <= Fraction(grid) / 2


def test_halves_do_not_lean_on_the_sum_of_the_others():
    """A half goes the same way whether the others add up to an odd or an even number of steps."""
    grid = 2.0**-9
    half = np.array([[grid / 2, 3 * grid / 2]], np.float32)
    alone = total(half, 1.0, grid)
    for steps in range(4):
        others = np.full((1, 2), steps * grid, np.float32)
        both = total(np.concatenate([others, half]), 1.0, grid)
        np.testing.assert_array_equal(both - total(others, 1.0, grid), alone)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [3, 70_000])
@pytest.mark.parametrize("kind", [Alone, InPieces])
def test_what_is_not_finite_counts_as_nothing(bad: float, size: int, kind: type[Alone]):
    gradients, losses = random(7, size), np.arange(7.0)
    model, params = kind(size), np.zeros(size, np.float32)
    finite = np.arange(7) != 4
    _, expected = clipped_sum(model, params, rows(gradients[finite]), 1.0, 2.0**-30)
    gradients[4, size // 2], losses[4] = bad, bad
    loss, found = clipped_sum(model, params, rows(gradients, losses), 1.0, 2.0**-30)
    np.testing.assert_array_equal(found, expected)
    assert loss == 0 + 1 + 2 + 3 + 5 + 6
    assert not total(np.full((5, size), bad, np.float32), 1.0, 2.0**-30).any()


def test_huge_and_tiny_gradients_have_norms():
    """Squares of both are out of float32's range: norms in float32 would be inf and 0."""
    huge = total(np.full((1, 4), FLOAT32.max), 1.0, 2.0**-40)
    np.testing.assert_allclose(huge, 0.5, rtol=1e-8)
    tiny = np.full((1, 4), 1e-30, np.float32)
    np.testing.assert_allclose(total(tiny, 1e-33, 2.0**-150), 0.5e-33, rtol=1e-8)


def test_an_empty_batch_gives_zeros():
    for model in (Alone(5), InPieces(5)):
        loss, found = clipped_sum(model, model.initial(0), rows(random(0, 5)), 1.0, 2.0**-30)
        assert loss == 0
        np.testing.assert_array_equal(found, np.zeros(5))
        assert list(pieces(model, model.initial(0), rows(random(0, 5)))) == []


def test_a_model_with_its_own_method_is_asked_for_it():
    assert isinstance(InPieces(5), PerExample)
    assert not isinstance(Alone(5), PerExample)
    sizes = [len(losses) for losses, _ in pieces(InPieces(5), np.zeros(5), rows(random(8, 5)))]
    assert sizes == [3, 3, 2]
    assert len(list(pieces(Alone(5), np.zeros(5), rows(random(8, 5))))) == 8


def test_memory_does_not_grow_with_the_batch():
    size = 500_000
    batch = Examples(np.broadcast_to(random(1, size), (60, size)), np.zeros(60))
    tracemalloc.start()
    clipped_sum(Alone(size), np.zeros(1, np.float32).repeat(size), batch, 1.0, 2.0**-30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (4 + 8) * size + 2**20  # parameters, the sum, and a little


@pytest.mark.parametrize(
    ("clip", "grid", "words"),
    [
        (0.0, 1.0, "norm of 0"),
        (-1.0, 1.0, "norm of -1"),
        (math.nan, 1.0, "norm of nan"),
        (math.inf, 1.0, "norm of inf"),
        (1.0, 0.1, "0.1 is no power of two"),
        (1.0, 0.0, "no power of two"),
        (1.0, -0.5, "no power of two"),
        (1.0, math.nan, "no power of two"),
        (1.0, math.inf, "no power of two"),
        (1.0, 2.0**-52, "float64 cannot hold"),
        (1.0, 2.0**-1074, "float64 cannot hold"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(clip: float, grid: float, words: str):
    with pytest.raises(HansaError, match=words):
        total(random(2, 3), clip, grid)


@pytest.mark.parametrize("kind", [Alone, InPieces])
def test_gradients_of_another_size_are_refused(kind: type[Alone]):
    """One column would be added to every coordinate: sqrt(d) times as much as promised."""
    for size in (1, 4, 6):
        with pytest.raises(HansaError, match=rf"{kind.__name__} gives gradients of shape"):
            clipped_sum(kind(size), np.zeros(5, np.float32), rows(random(3, size)), 1.0, 2.0**-30)


class Curve(NumpyTask):
    """Squared error of a small tanh network; its gradient by hand."""

    def parameters(self, rng: np.random.Generator):
        return {"inner": rng.normal(size=(3, 4)), "outer": rng.normal(size=4)}

    def loss_and_gradients(self, parameters: Parameters, inputs: Array, targets: Array):
        hidden = np.tanh(inputs @ parameters["inner"])
        error = (hidden @ parameters["outer"] - targets) / len(targets)
        back = np.outer(error, parameters["outer"]) * (1 - hidden**2)
        loss = (error**2).sum() * len(targets) / 2
        return loss, {"inner": inputs.T @ back, "outer": hidden.T @ error}

    def probabilities(self, parameters, inputs):
        raise AssertionError("nobody asks")

    def data(self, site: Site) -> Split:
        raise AssertionError("nobody asks")


def test_a_numpy_task_gives_the_slope_of_each_loss():
    """Central differences of each example's own loss, in float64."""
    task, rng = Curve(), np.random.default_rng(3)
    batch = Examples(rng.normal(size=(6, 3)), rng.integers(0, 3, 6))
    params = task.initial(1)

    def loss(params: NDArray[np.float64], at: int) -> float:
        inner, outer = params[:12].reshape(3, 4), params[12:]
        return float((np.tanh(batch.inputs[at] @ inner) @ outer - batch.targets[at]) ** 2 / 2)

    wide, step = params.astype(np.float64), 1e-5
    expected = np.zeros(16)
    for at, (losses, gradients) in enumerate(pieces(task, params, batch)):
        assert losses == pytest.approx([loss(wide, at)])
        slopes = [
            (loss(wide + move, at) - loss(wide - move, at)) / (2 * step)
            for move in step * np.eye(16)
        ]
        np.testing.assert_allclose(gradients, [slopes], rtol=1e-4, atol=1e-6)
        expected += np.array(slopes) * min(1, 0.8 / math.hypot(*slopes))
    _, found = clipped_sum(task, params, batch, 0.8, 2.0**-30)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


class Exploding(Curve):
    """A gradient that is too big for float32."""

    def loss_and_gradients(self, parameters: Parameters, inputs: Array, targets: Array):
        loss, gradients = super().loss_and_gradients(parameters, inputs, targets)
        return loss, {name: array * 1e300 for name, array in gradients.items()}


def test_an_overflow_on_the_way_tells_nothing():
    """Warnings are errors in these tests: an example that causes one would stop the run."""
    batch = Examples(np.ones((2, 3)), np.ones(2, np.int64))
    _, found = clipped_sum(Exploding(), Exploding().initial(1), batch, 1.0, 2.0**-30)
    assert not found.any()
