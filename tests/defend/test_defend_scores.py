"""Scores of a round: what each sign shows, recomputed from the updates; who must not stand out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hansa.aggregators.robust import geometric_median
from hansa.defend.scores import MOST, Score, scores_of
from hansa.errors import HansaError

HONEST, BAD, SIZE = 16, 4, 4000
NAMES = tuple(f"client-{i:02d}" for i in range(HONEST + BAD))


def honest(seed: int = 0, alike: float = 0.5) -> NDArray[np.float64]:
    """(16, d) updates with a common part and one of their own, of different lengths."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(SIZE)
    own = rng.standard_normal((HONEST, SIZE))
    kin = own + 0.5 * np.roll(own, 1, axis=0)  # each has something in common with two others
    lengths = np.exp(0.2 * rng.standard_normal(HONEST))
    return np.asarray((alike * common + kin) * lengths[:, None])


def scored(updates: Any, refused: tuple[str, ...] = ()) -> dict[str, Score]:
    rows = np.asarray(updates, np.float64)
    return dict(scores_of(NAMES[: len(rows)], rows @ rows.T, refused))


def totals(updates: Any) -> tuple[list[float], list[float]]:
    """Of the honest ones, and of the bad ones behind them."""
    found = scored(updates)
    values = [found[name].total for name in NAMES[: len(updates)]]
    return values[:HONEST], values[HONEST:]


def attacked(kind: str, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, d) updates of bad clients, written down here once more."""
    mean, rng = rows.mean(axis=0), np.random.default_rng(7)
    size = float(np.median(np.linalg.norm(rows, axis=1)))
    noise = rng.standard_normal((BAD, SIZE)) * (size / math.sqrt(SIZE))
    return {
        "flipped": np.tile(-mean, (BAD, 1)),
        "three times the other way": np.tile(-3 * mean, (BAD, 1)),
        "scaled": 50 * rows[:BAD],
        "noise as long as the others": noise,
        "loud noise": 5 * noise,
    }[kind]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "kind",
    ["flipped", "three times the other way", "scaled", "loud noise", "noise as long as the others"],
)
def test_bad_updates_stand_out_and_honest_ones_do_not(kind: str, seed: int) -> None:
    rows = honest(seed)
    good, bad = totals(np.concatenate([rows, attacked(kind, rows)]))
    assert min(bad) > 4
    assert np.median(good) < 1.5
    assert sum(score >= 4 for score in good) == 0


@pytest.mark.parametrize("seed", range(10))
def test_nobody_stands_out_among_honest_clients(seed: int) -> None:
    assert max(totals(honest(seed))[0]) < 4


def test_signs_are_what_their_table_says() -> None:
    """Recomputed from the updates themselves, which the scores never see."""
    rows = honest(3)
    found = scored(rows)
    lengths = np.linalg.norm(rows, axis=1)
    centre = geometric_median(rows.astype(np.float32)).astype(np.float64)
    unit = rows / lengths[:, None]
    like = unit @ unit.T - 2 * np.eye(HONEST)
    off = rows - centre
    direction = np.linalg.svd(off, full_matrices=False)[2][0]
    for i, name in enumerate(NAMES[:HONEST]):
        score = found[name]
        cosine = rows[i] @ centre / lengths[i] / np.linalg.norm(centre)
        projection = abs(off[i] @ direction) / np.median(lengths)
        assert score.norm.value == pytest.approx(lengths[i] / np.median(lengths), abs=1e-4)
        assert score.cosine.value == pytest.approx(cosine, abs=1e-3)
        assert score.closest.value == pytest.approx(like[i].max(), abs=1e-4)
        assert score.spectral.value == pytest.approx(projection, abs=1e-3)


def test_a_norm_is_judged_by_the_spread_of_the_others() -> None:
    lengths = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, math.e**2])
    rows = np.diag(lengths) + 3.0  # alike in direction
    rows *= (lengths / np.linalg.norm(rows, axis=1))[:, None]
    found = scored(rows)[NAMES[6]]
    assert found.norm.value == pytest.approx(math.e**2, abs=1e-3)
    assert found.norm.z == pytest.approx(2 / 0.25, abs=0.01)  # the least spread: the rest is alike
    assert all(scored(rows)[name].norm.z < 0.5 for name in NAMES[:6])


def test_short_updates_are_not_held_against_anybody() -> None:
    rows = honest()
    rows[0] *= 1e-6
    assert scored(rows)[NAMES[0]].norm.z == 0


def test_the_score_is_the_length_of_its_signs_and_no_more_than_the_most() -> None:
    rows = honest()
    bad = np.concatenate([rows, attacked("scaled", rows)])
    for score in scored(bad).values():
        signs = [score.norm, score.cosine, score.closest, score.spectral]
        expected = min(math.hypot(*(sign.z for sign in signs)), MOST)
        assert score.total == pytest.approx(expected, abs=1e-4)
    assert scored(bad)[NAMES[-1]].total == MOST


def test_the_order_of_updates_changes_nothing() -> None:
    rows = np.concatenate([honest(), attacked("flipped", honest())])
    gram, order = rows @ rows.T, np.random.default_rng(1).permutation(len(rows))
    one = scores_of(NAMES, gram)
    other = scores_of([NAMES[i] for i in order], gram[np.ix_(order, order)])
    assert dict(one) == dict(other)
    assert list(one) == list(other) == sorted(one)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_unit_of_updates_changes_nothing(scale: float) -> None:
    rows = honest()
    assert scored(rows * scale) == scored(rows)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((8, 5)), np.ones((8, 5)), np.eye(8)[:, :5] * 0],
    ids=["zeros", "the same", "nothing"],
)
def test_ok_where_all_are_alike_nobody_stands_out(rows: NDArray[np.float64]) -> None:
    assert all(score.total == 0 for score in scored(rows).values())


def test_ok_one_of_zeros_among_others_shows_nothing() -> None:
    rows = honest()
    rows[3] = 0
    score = scored(rows)[NAMES[3]]
    assert (score.norm.value, score.cosine, score.closest.z) == (0, Score().cosine, 0)
    assert score.total < 1


def test_four_updates_have_no_scores() -> None:
    assert scored(honest()[:4]) == {}
    assert len(scored(honest()[:5])) == 5


def test_who_was_refused_has_the_worst_score_with_any_number_of_updates() -> None:
    found = scored(honest()[:4], refused=("zoe",))
    assert found == {"zoe": Score(refused=True)}
    assert found["zoe"].total == MOST
    both = scored(honest(), refused=(NAMES[0],))
    assert both[NAMES[0]].refused


@pytest.mark.parametrize(
    ("names", "products"),
    [
        (NAMES[:6], np.eye(5)),
        (("a",) * 5, np.eye(5)),
        (NAMES[:5], np.full((5, 5), np.nan)),
        (NAMES[:5], np.eye(5)[:, :4]),
    ],
    ids=["fail/lengths", "fail/names", "fail/nan", "fail/shape"],
)
def test_fail_products_that_are_none(names: tuple[str, ...], products: Any) -> None:
    with pytest.raises(HansaError, match="finite"):
        scores_of(names, products)
