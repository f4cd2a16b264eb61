"""One client's standing: each arrow of the drawing, and the arithmetic behind it."""

from __future__ import annotations

import pytest

from hansa.defend.scores import REFUSED, Score, Sign
from hansa.defend.standing import (
    ALLOWANCE,
    DRIFTED,
    HALF_LIFE,
    SUSPICIOUS,
    Standing,
    State,
    expelled,
    observe,
    released,
)

CALM, LOUD = 1.0, 6.0


def score(total: float) -> Score:
    """A score of this total, from one sign."""
    return Score(norm=Sign(1.0, total))


def after(*totals: float, start: Standing | None = None) -> Standing:
    standing = start or Standing()
    for total in totals:
        standing = observe(standing, score(total))
    return standing


@pytest.mark.parametrize(
    ("totals", "state"),
    [
        ((), State.TRUSTED),
        ((LOUD, LOUD), State.TRUSTED),
        ((LOUD, LOUD, LOUD), State.WATCH),
        ((LOUD, *[CALM] * 7, LOUD, LOUD), State.WATCH),
        ((LOUD, *[CALM] * 8, LOUD, LOUD), State.TRUSTED),  # the first is forgotten
        ((LOUD, LOUD, LOUD, LOUD), State.WATCH),
        ((LOUD,) * 5, State.QUARANTINED),
        ((SUSPICIOUS,) * 5, State.QUARANTINED),
        ((SUSPICIOUS - 0.001,) * 5, State.TRUSTED),
        ((CALM,) * 100, State.TRUSTED),
    ],
)
def test_rounds_that_speak_against_a_client_move_it(
    totals: tuple[float, ...], state: State
) -> None:
    assert after(*totals).state is state


def test_five_of_ten_are_not_enough_while_the_mean_is_low() -> None:
    alternating = (4.5, 0.0) * 5
    assert after(*alternating).against == 5
    assert after(*alternating).mean < SUSPICIOUS
    assert after(*alternating).state is State.WATCH


def test_a_refused_update_speaks_against_its_client() -> None:
    standing = Standing()
    for _ in range(5):
        standing = observe(standing, REFUSED)
    assert standing.state is State.QUARANTINED
    assert standing.mean == pytest.approx(10)


def test_ten_calm_rounds_end_the_watch_and_nine_do_not() -> None:
    watched = after(LOUD, LOUD, LOUD)
    assert after(*[CALM] * 9, start=watched).state is State.WATCH
    assert after(*[CALM] * 10, start=watched).state is State.TRUSTED


def test_the_mean_has_a_half_life_of_ten_rounds() -> None:
    """Against the definition: weights 2^(-age / 10), divided by their sum."""
    totals = [0.5, 3.0, 9.0, 0.0, 2.5, 7.0]
    weights = [2 ** (-(len(totals) - 1 - i) / HALF_LIFE) for i in range(len(totals))]
    expected = sum(w * t for w, t in zip(weights, totals, strict=True)) / sum(weights)
    assert after(*totals).mean == pytest.approx(expected)
    assert after(3.7).mean == pytest.approx(3.7)
    long = after(*[8.0] * 200)
    assert long.state is State.QUARANTINED
    assert after(*[2.0] * 200).mean == pytest.approx(2.0)
    dropped = after(*[2.0] * 400, *[0.0] * 10)
    assert dropped.mean == pytest.approx(1.0, abs=1e-6)


def test_a_slow_drift_is_watched_and_never_silenced() -> None:
    below = SUSPICIOUS - 0.1
    needed = int(DRIFTED / (below - ALLOWANCE)) + 1
    assert after(*[below] * (needed - 1)).state is State.TRUSTED
    assert after(*[below] * needed).state is State.WATCH
    assert after(*[below] * 500).state is State.WATCH
    assert after(*[ALLOWANCE] * 500).state is State.TRUSTED


def test_one_huge_score_is_no_drift() -> None:
    assert after(10.0).drift == SUSPICIOUS - ALLOWANCE


def test_calm_rounds_wear_a_drift_off() -> None:
    drifted = after(*[3.9] * 17)
    assert drifted.state is State.WATCH
    calm = after(*[0.0] * 10, start=drifted)
    assert (calm.drift, calm.state) == (0.0, State.TRUSTED)


def test_quarantine_waits_where_it_may_not_be() -> None:
    standing = Standing()
    for _ in range(8):
        standing = observe(standing, score(LOUD), quarantine=False)
    assert standing.state is State.WATCH
    assert standing.due
    assert observe(standing, score(LOUD)).state is State.QUARANTINED


@pytest.mark.parametrize("state", [State.QUARANTINED, State.EXPELLED])
def test_nothing_is_observed_of_who_does_not_take_part(state: State) -> None:
    standing = Standing(state, 5, (LOUD,) * 5, 3.0, 5.0)
    assert observe(standing, score(0)) is standing


def test_who_is_released_starts_anew_under_watch() -> None:
    again = released(Standing(), 0)
    assert (again.state, again.recent, again.mean, again.drift) == (State.WATCH, (), 0.0, 0.0)
    assert after(*[CALM] * 10, start=again).state is State.TRUSTED
    assert after(*[LOUD] * 5, start=again).state is State.QUARANTINED


def test_who_is_expelled_keeps_what_was_held_against_it() -> None:
    before = after(*[LOUD] * 5)
    gone = expelled(before)
    assert (gone.state, gone.recent, gone.weight) == (State.EXPELLED, before.recent, 0.0)


def test_weights_are_one_half_and_nothing() -> None:
    assert [state.weight for state in State] == [1.0, 0.5, 0.0, 0.0]
