"""What every robust rule must be: independent of order and threads, equivariant, careful."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hansa.aggregators import robust
from hansa.errors import HansaError
from tests.support.robust_cases import ALL, CENTRES, KEY, RADIUS, F, N, clipping, cohort

MOST = float(np.finfo(np.float32).max)
CALM = settings(derandomize=True, deadline=None, max_examples=60)
grid = arrays(np.int64, (N, 4), elements=st.integers(-128, 128)).map(
    lambda table: (table / 16).astype(np.float32)
)
"""Multiples of 1/16: sums, squares and shifts of them are exact, and there are ties."""
anything = arrays(np.float32, (N, 4), elements=st.floats(-1e6, 1e6, width=32))
rules = pytest.mark.parametrize("name", ALL)
centres = pytest.mark.parametrize("name", CENTRES)


@rules
@given(st.one_of(grid, anything), st.permutations(range(N)))
@CALM
def test_any_order_gives_the_same_bits(name, x, order):
    found, again = ALL[name](x, F), ALL[name](x[order], F)
    if name == "nearest_neighbor_mixing":
        found = found[order]
    assert found.tobytes() == again.tobytes()


@rules
def test_any_order_of_zeros_of_both_signs_gives_the_same_bits(name):
    x = np.zeros((N, 4), np.float32)
    x[::2] = -0.0
    assert ALL[name](x, F).tobytes() == ALL[name](x[::-1], F).tobytes()
    assert ALL[name](-np.abs(x), F).tobytes() == ALL[name](np.abs(x), F).tobytes()


@rules
def test_threads_lists_and_strides_change_no_bit(name):
    """More columns than any block has."""
    x = cohort(d=250_001)
    found = ALL[name](x, F, threads=1).tobytes()
    assert ALL[name](x, F, threads=2).tobytes() == found
    assert ALL[name](x, F, threads=5).tobytes() == found
    assert ALL[name](x, F).tobytes() == found
    assert ALL[name](list(x), F).tobytes() == found
    assert ALL[name](np.asfortranarray(x), F).tobytes() == found


DIGESTS = """
import hashlib
from tests.support.robust_cases import ALL, F, cohort
for name, rule in ALL.items():
    print(name, hashlib.sha256(rule(cohort(n=23, d=60_001), F).tobytes()).hexdigest())
"""


def test_threads_of_the_linear_algebra_change_no_bit():
    said = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for threads in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == len(ALL)


@rules
@given(grid, arrays(np.int64, 4, elements=st.integers(-64, 64)))
@CALM
def test_a_shift_of_all_shifts_the_result(name, x, shift):
    offset = shift.astype(np.float32)
    if name == "dnc":  # equal scores are ordered by rounding: no ties, please
        x = x + cohort(d=4)
    options = {"center": offset} if name == "centered_clipping" else {}
    expected = ALL[name](x, F) + offset
    assert ALL[name](x + offset, F, **options) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@rules
@given(st.one_of(grid, anything), st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
@CALM
def test_a_scale_of_all_scales_the_result(name, x, scale):
    if name == "dnc":
        x = cohort(d=4)
    options = {"radius": RADIUS * scale} if name == "centered_clipping" else {}
    scaled = ALL[name](x * np.float32(scale), F, **options)
    expected = ALL[name](x, F).astype(np.float64) * scale
    assert scaled == pytest.approx(expected, rel=1e-6, abs=1e-7 * scale)


@rules
@pytest.mark.parametrize("size", [1.0, 1e-45, 3e-39, 0.0, 12345.678, MOST])
def test_all_the_same_give_that_one(name, size):
    row = np.float32(size) * np.array([1, -1, 0, 0.5], np.float32)
    options = {"center": row} if name == "centered_clipping" else {}
    for found in np.atleast_2d(ALL[name](np.tile(row, (N, 1)), F, **options)):
        assert found.tobytes() == (row + np.float32(0)).tobytes()


@rules
def test_updates_are_only_read(name):
    x = cohort()
    before = x.copy()
    x.setflags(write=False)
    found = ALL[name](x, F)
    assert (x == before).all()
    assert found.dtype == np.float32
    assert found.flags.writeable
    assert not np.shares_memory(found, x)


@rules
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0), (N - 1, 5), (4, 3)])
def test_fail_not_finite(name, value, where):
    x = cohort()
    x[where] = value
    with pytest.raises(HansaError, match=r"not finite\. Fix: reject"):
        ALL[name](x, F)


FORMS = {
    "fail/none": np.zeros((0, 5), np.float32),
    "fail/no coordinates": np.zeros((N, 0), np.float32),
    "fail/float64": np.zeros((N, 5)),
    "fail/integers": np.zeros((N, 5), np.int32),
    "fail/three axes": np.zeros((N, 5, 5), np.float32),
    "fail/one axis": np.zeros(N, np.float32),
    "fail/other lengths": [np.zeros(5, np.float32)] * 10 + [np.zeros(4, np.float32)],
    "fail/lists": [[1.0, 2.0]] * N,
}


@rules
@pytest.mark.parametrize("x", FORMS.values(), ids=FORMS.keys())
def test_fail_not_vectors_of_float32(name, x):
    options = {"center": np.zeros(5, np.float32)} if name == "centered_clipping" else {}
    with pytest.raises(HansaError, match="something else than n vectors of d float32"):
        ALL[name](x, F, **options)


NEEDS = {"trimmed_mean": 5, "krum": 7, "multi_krum": 7, "bulyan": 11, "dnc": 7}
NEEDS |= {"nearest_neighbor_mixing": 5}


@pytest.mark.parametrize("name", NEEDS)
def test_fewer_updates_than_f_needs_are_refused(name):
    assert np.isfinite(ALL[name](cohort(NEEDS[name]), F)).all()
    with pytest.raises(HansaError, match=rf"needs at least {NEEDS[name]}: .*Fix: "):
        ALL[name](cohort(NEEDS[name] - 1), F)


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("bad", [-1, 1.5, True, "2"])
def test_fail_a_count_of_bad_updates_that_is_none(name, bad):
    with pytest.raises(HansaError, match="was told to bear"):
        ALL[name](cohort(), bad)


@pytest.mark.parametrize("name", NEEDS)
def test_no_bad_updates_need_no_more_than_three(name):
    assert np.isfinite(ALL[name](cohort(3), 0)).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: robust.geometric_median(x, smoothing=0),
        lambda x: clipping(x, 0, radius=0.0),
        lambda x: clipping(x, 0, radius=np.inf),
        lambda x: clipping(x, 0, radius=np.nan),
        lambda x: clipping(x, 0, iterations=0),
        lambda x: clipping(x, 0, center=np.zeros(5, np.float32)),
        lambda x: clipping(x, 0, center=np.full(6, np.nan, np.float32)),
        lambda x: robust.dnc(x, 1, KEY, iterations=0),
        lambda x: robust.dnc(x, 1, KEY, sample=0),
        lambda x: robust.dnc(x, 4, KEY, iterations=3),
        lambda x: robust.bucketing(x, 0, KEY),
        lambda x: ALL["nearest_neighbor_mixing"](x, 1, out=np.empty((N, 6))),
        lambda x: robust.nearest_neighbor_mixing(x, 1, out=np.empty((N, 5), np.float32)),
    ],
)
def test_fail_options(call):
    with pytest.raises(HansaError) as caught:
        call(cohort())
    assert caught.value.fix


def test_mixing_can_take_the_place_of_the_updates():
    x = cohort(d=100_001)
    expected = robust.nearest_neighbor_mixing(x, F)
    assert robust.nearest_neighbor_mixing(x, F, out=x) is x
    assert x.tobytes() == expected.tobytes()


@rules
def test_updates_are_never_copied_as_a_whole(name):
    """Beside the updates and the result, a rule needs less than three tenths of them."""
    x = cohort(50, 500_000)
    options = {"out": x} if name == "nearest_neighbor_mixing" else {}
    ALL[name](cohort(), F)  # what is made once
    tracemalloc.start()
    try:
        found = ALL[name](x, 10, threads=2, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = found.nbytes if name == "bucketing" else 0
    assert peak - result < 0.3 * x.nbytes


def test_digests_differ_where_updates_do():
    """The comparisons of bits above compare something."""
    seen = {hashlib.sha256(rule(cohort(), F).tobytes()).digest() for rule in ALL.values()}
    assert len(seen) == len(ALL)
