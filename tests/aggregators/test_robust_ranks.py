"""Networks that sort and part rows: against sorted columns, by the 0-1 principle, by their size.

A network of comparators that is right for all columns of zeros and ones is right for all columns
(Knuth, volume 3, 5.3.4); that holds for parting, too, of which sorting is the finest.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hansa.aggregators import robust
from hansa.aggregators.robust import network, ranks
from hansa.aggregators.robust.rows import ordered
from hansa.errors import HansaError
from tests.support.robust_cases import cohort

CALM = settings(derandomize=True, deadline=None, max_examples=100)
MOST = float(np.finfo(np.float32).max)
SIZES = [*range(3, 20), 25, 31, 32, 33, 47, 49, 50, 63, 64, 65, 66, 80, 99, 100]
odd = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3e-39, 1.0, -1.0, 1.5, MOST, -MOST])
mixed = st.integers(1, 70).flatmap(
    lambda n: arrays(np.float32, (n, 3), elements=st.one_of(odd, st.floats(-1e3, 1e3, width=32)))
)


def drops(n: int) -> list[int]:
    """None, few, about a quarter, where another network is used, and as many as there may be."""
    most = (n - 1) // 2
    return sorted({f for f in (0, 1, 2, n // 5, n // 4, n // 4 + 1, n // 3, most) if f <= most})


def zeros_and_ones(n: int) -> np.ndarray:
    """(n, 2^n): every column of zeros and ones."""
    return np.array(list(itertools.product([0, 1], repeat=n)), np.float32).T.copy()


def assert_inner(x: np.ndarray, drop: int) -> None:
    """Against sorted columns: the same values are left in each, and the ends are found."""
    before = x.copy()
    found = ranks.inner(list(x), drop)
    expected = np.sort(x, axis=0)
    assert len(found.rows) == len(x) - 2 * drop
    left = np.sort(np.array(found.rows), axis=0)
    np.testing.assert_array_equal(left, expected[drop : len(x) - drop])
    np.testing.assert_array_equal(found.lowest, expected[0])
    np.testing.assert_array_equal(found.highest, expected[-1])
    assert found.finite
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("n", range(1, 14))
def test_columns_of_zeros_and_ones_are_sorted_and_parted_hence_all(n):
    x = zeros_and_ones(n)
    np.testing.assert_array_equal(np.array(ranks.ascending(list(x))), np.sort(x, axis=0))
    for drop in range((n + 1) // 2):
        assert_inner(x, drop)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_steps_and_slopes_of_every_height_are_sorted_and_parted(n, kind):
    """Columns with k ones for each k, shuffled, and columns of numbers, of any length."""
    rng = np.random.default_rng(n)
    steps = (np.arange(n)[:, None] < np.arange(n + 1)).astype(kind).repeat(20, axis=1)
    x = np.concatenate([rng.permuted(steps, axis=0), rng.standard_normal((n, 301))], axis=1)
    x = x.astype(kind)
    np.testing.assert_array_equal(np.array(ranks.ascending(list(x))), np.sort(x, axis=0))
    for drop in drops(n):
        assert_inner(x, drop)


@given(mixed, st.data())
@CALM
def test_ties_zeros_of_both_signs_denormal_and_huge_numbers_are_parted(x, data):
    assert_inner(x, data.draw(st.sampled_from(drops(len(x)))))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 11, 20, 50, 64, 70])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_wherever_it_is(n, value):
    """In any row, also where it would be left out, and whatever else is as large."""
    for drop in drops(n):
        for row in range(n):
            x = cohort(n, 5)
            x[n // 2 :] = MOST
            x[row, 3] = value
            assert not ranks.inner(list(x), drop).finite
            with pytest.raises(HansaError, match="not finite"):
                robust.trimmed_mean(x, drop)
            with pytest.raises(HansaError, match="not finite"):
                robust.median(x)


def test_sorting_networks_are_as_small_as_batchers():
    """n (log^2 n - log n + 4) / 4 - 1 comparators where n is a power of two (Knuth, 5.2.2)."""
    for power in range(1, 8):
        n = 2**power
        assert len(network.sorting(n).pairs) == n * (power * power - power + 4) // 4 - 1
    assert len(network.sorting(50).pairs) == 395


@pytest.mark.parametrize(("drop", "steps"), [(10, 560), (24, 610)])
def test_what_nothing_wanted_depends_on_is_not_computed(drop, steps):
    """Sorting fifty takes 790 steps, two of each comparator."""
    assert len(ranks.in_order(50).steps) == 790
    assert len(ranks.leaving_out(50, drop).steps) == steps


@pytest.mark.parametrize("n", SIZES)
def test_rules_by_coordinate_are_numpys_in_float64(n):
    """Of an odd number of coordinates; means differ by the rounding of a float32 at most."""
    x = (cohort(n, 1_001) * 10.0 ** (3 * cohort(n, 1_001, 1))).astype(np.float32)
    exact = np.sort(x.astype(np.float64), axis=0)
    assert (robust.median(x) == np.median(exact, axis=0).astype(np.float32)).all()
    for f in drops(n):
        expected = exact[f : n - f].mean(axis=0)
        error = np.abs(robust.trimmed_mean(x, f) - expected)
        assert (error <= 2.0**-24 * np.abs(expected) + 1e-15 * np.abs(exact).max(axis=0)).all()


@pytest.mark.parametrize("n", [5, 50, 64, 100])
def test_a_network_and_sorted_columns_give_the_same_means(n, monkeypatch):
    x, f = cohort(n, 5_000), (n - 1) // 5
    found = []
    for most in (n, 0):
        monkeypatch.setattr(ranks, "MOST", most)
        found.append((robust.median(x), robust.trimmed_mean(x, f)))
    assert found[0][0].tobytes() == found[1][0].tobytes()
    np.testing.assert_array_max_ulp(found[0][1], found[1][1], maxulp=1)


@pytest.mark.parametrize("f", [0, 1, 4, 9])
def test_blocks_and_threads_leave_no_column_out(f, monkeypatch):
    """A few columns more or less than a whole number of blocks."""
    monkeypatch.setattr("hansa.aggregators.robust.by_coordinate.BLOCK", 20 * 256)
    for d in (1, 255, 256, 257, 512, 5 * 256 - 1, 5 * 256 + 1):
        x = cohort(20, d, f)
        expected = np.sort(x.astype(np.float64), axis=0)[f : 20 - f].mean(axis=0)
        for threads in (1, 2, 7):
            found = robust.trimmed_mean(x, f, threads=threads)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [12, 20, 36])
def test_the_order_of_updates_changes_no_bit_where_the_order_of_a_sum_would(n):
    """1 + 2^-24 is halfway between two float32; two of 2^-53 decide if they are added first."""
    rng = np.random.default_rng(n)
    left = np.zeros(n - 4)
    left[:4] = 1, 2.0**-24, 2.0**-53, 2.0**-53
    assert left.cumsum()[-1] < left[::-1].cumsum()[-1], "or the rest shows nothing"
    column = np.concatenate([left, [-1, -1, 5, 5]]).astype(np.float32)
    x = rng.permuted(np.tile(column[:, None], (1, 300)), axis=0)
    found = robust.trimmed_mean(x, 2).tobytes()
    for _ in range(5):
        assert robust.trimmed_mean(x[rng.permutation(n)], 2).tobytes() == found


@given(arrays(np.int64, (7, 5), elements=st.integers(-1, 1)), st.sampled_from([1, 40, 70_000]))
@CALM
def test_the_order_of_rows_is_lexicographic(table, wide):
    """Also where rows agree for long, or altogether."""
    x = np.repeat(table, wide, axis=1).astype(np.float32)
    assert table[ordered(list(x))].tolist() == sorted(table.tolist())
