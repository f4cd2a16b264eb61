"""The randomized Hadamard rotation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import hadamard as matrix

from hansa.core.parts import Update
from hansa.core.spec import Domain
from hansa.core.vector import Layout, Segment
from hansa.errors import PlanError
from hansa.stages.clip import Clip
from hansa.stages.rotate import SLACK, Rotate, hadamard, largest_power, reach
from hansa.stages.weight import Weight
from tests.support.toy import context, facts_after

SIZES = [1, 2, 3, 5, 8, 31, 32, 33, 1000, 1023, 1025, 70_000]


def layout(size: int) -> Layout:
    return Layout((Segment("delta", size), Segment("weight", 1), Segment("metrics", 2)))


def turned(values: np.ndarray, stage: Rotate) -> np.ndarray:
    """The rotated delta, float64."""
    where = layout(len(values))
    raw = np.concatenate([values, [3.0, 5.0, 6.0]]).astype(np.float32)
    sent = stage.encode(Update(raw, where), context())
    assert sent.vector[len(values) :].tolist() == [3.0, 5.0, 6.0], "other segments stay"
    return where.slice(sent.vector, "delta").astype(np.float64)


def back(values: np.ndarray, stage: Rotate) -> np.ndarray:
    where = layout(len(values))
    total = np.concatenate([values, [0.0, 0.0, 0.0]])
    return where.slice(stage.decode(total, where), "delta")


@pytest.mark.parametrize("power", range(13))
def test_the_transform_is_the_matrix(power):
    values = np.random.default_rng(power).standard_normal(2**power)
    expected = matrix(2**power) @ values / math.sqrt(2**power)
    hadamard(values)
    assert values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 45])
def test_the_rotation_is_orthonormal(size):
    """As a matrix, column by column; but for the slack, which decoding takes out."""
    stage = Rotate(9)
    columns = np.array([turned(row, stage) for row in np.eye(size)]) / SLACK
    assert columns @ columns.T == pytest.approx(np.eye(size), abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("one", [False, True], ids=["dense", "one coordinate"])
def test_the_norm_is_kept_and_never_exceeded(size, one):
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    if one:
        values[1:] = 0
    norm, found = (
        np.linalg.norm(values.astype(np.float64)),
        np.linalg.norm(turned(values, Rotate(1))),
    )
    assert found <= norm
    assert found == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_decoding_is_the_inverse(size):
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    stage = Rotate(4)
    assert back(turned(values, stage), stage) == pytest.approx(values, abs=1e-6)


def test_decoding_the_sum_decodes_all():
    rng, stage = np.random.default_rng(0), Rotate(4)
    all_of_them = [rng.standard_normal(1000).astype(np.float32) for _ in range(20)]
    total = np.sum([turned(values, stage) for values in all_of_them], axis=0)
    assert back(total, stage) == pytest.approx(np.sum(all_of_them, axis=0), abs=1e-5)


@pytest.mark.parametrize("size", [1000, 1024, 1025, 2047])
@pytest.mark.parametrize("place", [0, 500, -1])
def test_one_coordinate_is_spread_over_all(size, place):
    """None stays where it is, in a block of its own."""
    values = np.zeros(size)
    values[place] = 1.0
    found = turned(values, Rotate(2))
    power = largest_power(size)
    assert power > size / 2
    assert np.abs(found).max() <= 6 / math.sqrt(power)
    assert np.count_nonzero(found) >= 0.9 * power
    if size == power:
        assert np.abs(found) / SLACK == pytest.approx(np.full(size, size**-0.5), rel=1e-6)


@pytest.mark.parametrize("size", [1025, 1500, 4096])
def test_coordinates_are_cut_next_to_never(size):
    edge = reach(1.0, size, 10)
    assert edge < 1.0
    worst = max(
        np.abs(turned(np.eye(1, size, place)[0], Rotate(seed))).max()
        for seed, place in enumerate(range(0, size, size // 20))
    )
    assert worst < edge
    assert edge < 14 / math.sqrt(largest_power(size)), "and the edge is near"


def test_what_is_cut_only_gets_shorter():
    values = np.random.default_rng(0).standard_normal(100)
    free, cut = turned(values, Rotate(2)), turned(values, Rotate(2, reach=0.5))
    assert np.abs(cut).max() <= 0.5
    assert (np.abs(cut) <= np.abs(free)).all()
    inside = np.abs(free) < 0.49
    assert (cut[inside] == free[inside]).all()


def test_signs_are_those_of_the_seed():
    values = np.random.default_rng(0).standard_normal(1000)
    one, again, other = (turned(values, Rotate(seed)) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).mean() > 0.9


def test_the_same_bits_on_every_machine():
    """Computed once; additions in a fixed order leave nothing to the machine."""
    found = turned(np.arange(1, 8), Rotate(7))
    assert found.tolist() == turned(np.arange(1, 8), Rotate(7)).tolist()
    exact = np.round(found / SLACK * 4)
    assert found / SLACK * 4 == pytest.approx(exact, abs=1e-5), "quarters of whole numbers"


def test_what_is_not_finite_stays_so():
    assert not np.isfinite(turned(np.array([1.0, math.nan, 2.0]), Rotate(1))).any()
    assert not np.isfinite(turned(np.array([1.0, math.inf, 2.0, 3.0]), Rotate(1))).all()


# ------------------------------------------------------------------ facts


BEFORE = (Weight("uniform"), Clip(2.0))


def test_the_norm_stays_and_the_peak_is_the_norm():
    before = replace(facts_after(BEFORE)["delta"], peak=0.1, quantum=0.5)
    after = Rotate(1).infer(before)
    assert after == replace(before, peak=2.0, quantum=0.0)
    assert Rotate(1, reach=0.3).infer(before).peak == 0.3
    assert Rotate(1, reach=9.0).infer(before).peak == 2.0


def test_other_segments_are_left_alone():
    for name in ("weight", "metrics"):
        spec = facts_after(BEFORE)[name]
        assert Rotate(1).infer(spec) == spec


@pytest.mark.parametrize(
    ("stage", "changed", "because"),
    [
        (Rotate(1), {"domain": Domain.RING, "bits": 32}, "cannot rotate integers"),
        (Rotate(1, reach=0.0), {}, "cut all to nothing"),
        (Rotate(1, reach=math.nan), {}, "cut all to nothing"),
    ],
)
def test_what_cannot_be_rotated_is_refused(stage, changed, because):
    with pytest.raises(PlanError, match=because) as caught:
        stage.infer(replace(facts_after(BEFORE)["delta"], **changed))
    assert caught.value.fix


def test_a_reach_is_never_beyond_the_norm():
    assert reach(2.0, 1, 1) == 2.0
    assert reach(2.0, 50, 10) == 2.0
    assert reach(2.0, 2**20, 10) == pytest.approx(2 * math.sqrt(2 * math.log(2**61 * 10) / 2**20))
