"""Signs of some jobs only: beside a trusted client, and where updates arrive late."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hansa.core.contribute import contribute
from hansa.core.job import Aggregation, Rounds
from hansa.core.standing import Likeness, Seen
from hansa.defend import Standings, Transition, scores_of
from hansa.defend.judge import Judge
from hansa.defend.replay import History, Observation, replay
from hansa.defend.scores import MOST, NOTHING, TRUSTED, Sign
from hansa.defend.standing import SUSPICIOUS
from hansa.defend.text import score_of, score_words, scores_of_words, scores_words
from tests.defend.test_defend_rounds import BAD, NAMES, WORDS, attacked, defended
from tests.defend.test_defend_scores import HONEST, honest
from tests.defend.test_defend_scores import NAMES as CLIENTS
from tests.support.toy import TOY, data, plan, round_task, start

CLIENTS = CLIENTS[:HONEST]
KIEL = CLIENTS[3]


def scored(rows: Any, **words: Any) -> dict[str, Any]:
    return dict(scores_of(CLIENTS, rows @ rows.T, **words))


def apart() -> Any:
    """Honest updates of which some point against the third one's."""
    rows = honest()
    rows[:3] -= 4 * rows[3]
    return rows


def test_trusted_is_the_cosine_to_one_update_and_speaks_only_to_the_bad_side() -> None:
    rows = apart()
    found = scored(rows, trusted=KIEL)
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    cosines = unit @ unit[3]
    assert (cosines[:3] < -0.5).all()
    assert set(found) == set(CLIENTS) - {KIEL}
    for place, name in enumerate(CLIENTS):
        if name != KIEL:
            sign = found[name].trusted
            assert sign.value == pytest.approx(cosines[place], abs=1e-4)
            assert sign.z == pytest.approx(2.0 * max(-cosines[place], 0), abs=1e-3)


def test_the_other_signs_are_as_without_a_trusted_client() -> None:
    rows = apart()
    beside, alone = scored(rows, trusted=KIEL), scored(rows)
    for name, score in beside.items():
        assert replace(score, trusted=NOTHING) == alone[name]
        expected = np.hypot(alone[name].total, score.trusted.z)
        assert score.total == pytest.approx(min(expected, MOST), abs=1e-3)


def test_a_trusted_client_that_sent_nothing_is_no_sign() -> None:
    assert scored(apart(), trusted="nobody") == scored(apart())


def test_it_does_not_speak_against_a_client_by_itself() -> None:
    assert TRUSTED < SUSPICIOUS


def test_a_trusted_client_whose_update_was_refused_is_told() -> None:
    found = scores_of(CLIENTS, honest() @ honest().T, ["zoe"], trusted="zoe")
    assert found["zoe"].refused


def test_the_scalar_product_is_the_change_of_the_trusted_clients_loss_to_first_order() -> None:
    """One step of size h along an update changes the loss by -h <u, t> / rate, t = -rate * slope.

    Measured on the trusted client's own examples, with the error of the second order.
    """
    trusted, rate = data(NAMES[0]).train, 0.1
    begin = start()
    loss, slope = TOY.gradient(begin, trusted)
    sent = -rate * slope.astype(np.float64)
    rises = []
    for name in NAMES[1:]:
        update = -rate * TOY.gradient(begin, data(name).train)[1].astype(np.float64)
        for sign in (1.0, -1.0):
            changes = []
            for h in (0.5, 0.05):
                moved = (begin + h * sign * update).astype(np.float32)
                changes.append((TOY.gradient(moved, trusted)[0] - loss) / h)
            first = -sign * float(update @ sent) / rate
            assert abs(changes[1] - first) < max(0.2 * abs(changes[0] - first), 2e-5)
            rises.append(first > 0)
    assert any(rises)
    assert not all(rises)


@pytest.mark.parametrize("age", [1, 7, 500])
def test_age_is_told_and_counts_nothing(age: int) -> None:
    rows = apart()
    found, fresh = scored(rows, late={CLIENTS[5]: age}), scored(rows)
    assert found[CLIENTS[5]].staleness == Sign(float(age), 0.0)
    assert [s.total for s in found.values()] == [s.total for s in fresh.values()]
    assert {**found, CLIENTS[5]: fresh[CLIENTS[5]]} == fresh


def test_age_is_told_where_all_updates_are_zero() -> None:
    found = scored(np.zeros((HONEST, 5)), late={KIEL: 2})
    assert found[KIEL].staleness.value == 2
    assert found[KIEL].total == 0


# ------------------------------------------------------------------ what was recorded before

BEFORE = json.loads(
    '{"total": 2.5, "norm": [1.2, 1.5], "cosine": [-0.25, 2.0], "closest": [0.4, 0.0], '
    '"spectral": [0.1, 0.0]}'
)
"""A score as it was written before there were these signs."""


def test_a_score_that_was_recorded_before_is_read_and_written_as_it_was() -> None:
    score = score_of(BEFORE)
    assert (score.trusted, score.staleness) == (NOTHING, NOTHING)
    assert score.total == 2.5
    assert score_words(score) == BEFORE


def test_scores_of_a_job_without_these_signs_have_the_words_that_they_had() -> None:
    for words in scores_words(scored(honest())).values():
        assert isinstance(words, dict)
        assert list(words) == ["total", "norm", "cosine", "closest", "spectral"]


def test_scores_with_these_signs_come_back() -> None:
    found = scored(apart(), trusted=KIEL, late={CLIENTS[5]: 3})
    again = scores_of_words(json.loads(json.dumps(scores_words(found))))
    assert dict(again) == found
    assert again[CLIENTS[5]].staleness.value == 3
    assert again[CLIENTS[0]].trusted.z > 1


def test_a_history_of_old_and_new_scores_is_counted_again() -> None:
    standings, entries = Standings(4), []
    changes: list[Transition] = []
    old = {name: score_of({**BEFORE, "norm": [9.0, 6.0]}) for name in CLIENTS[:1]}
    new = scored(apart(), trusted=KIEL, late={CLIENTS[5]: 3})
    for number, scores in enumerate([old, old, old, new, old, old, new]):
        text = json.dumps(scores_words(scores))
        standings, since = standings.observe(number, scores)
        entries.append(Observation(number, scores_of_words(json.loads(text))))
        changes += since
    verdict = replay(History(entries, changes, standings))
    assert verdict.differences == ()
    assert len(verdict.changes) == len(changes) >= 2


# ------------------------------------------------------------------ in a job

TRUSTING: dict[str, Any] = {
    "aggregation": Aggregation(
        rule="geometric_median", clip=1.0, weighting="uniform", trusted=NAMES[-1]
    )
}


@pytest.mark.parametrize("rule", ["geometric_median", "fltrust"])
def test_a_job_names_whom_it_trusts_under_any_rule(rule: str) -> None:
    words = {"aggregation": replace(TRUSTING["aggregation"], rule=rule)}
    state, _ = attacked(defended(**words), "sign_flip")
    assert state.standing.standings.quarantined == BAD
    scores = state.standing.scores
    assert set(scores) == set(NAMES) - BAD - {NAMES[-1]}
    assert NAMES[-1] not in state.standing.standings.clients
    assert all(score.trusted.value for score in scores.values())


def test_the_sign_is_of_the_updates_of_the_round() -> None:
    of = defended(rounds=Rounds(count=1, quorum=6), **TRUSTING)
    state, _ = attacked(of, "none")
    rows = {c: contribute(round_task(of), c, TOY, data(c)).segment("delta") for c in NAMES}
    there = rows[NAMES[-1]].astype(np.float64)
    for client, score in state.standing.scores.items():
        here = rows[client].astype(np.float64)
        cosine = here @ there / np.linalg.norm(here) / np.linalg.norm(there)
        assert score.trusted.value == pytest.approx(cosine, abs=2e-4)


def test_a_plan_says_who_is_trusted() -> None:
    told = [claim for claim in defended(**TRUSTING).claims if claim.startswith("Standing:")]
    assert f"against that of '{NAMES[-1]}', which is trusted and has no score" in told[0]
    assert "trusted" not in next(c for c in defended().claims if c.startswith("Standing:"))


def test_trust_changes_the_plan_and_nothing_of_a_plan_without() -> None:
    digests = [defended(**TRUSTING).digest, defended().digest, plan(**WORDS).digest]
    assert digests[1] == digests[2]
    assert all(a != b for a, b in pairwise(digests[:2]))


def test_a_judge_shows_ages_to_nobody_but_the_scores() -> None:
    rows = honest()
    seen = Seen(4, 0, Likeness(CLIENTS, rows @ rows.T), (), {KIEL: 6})
    after = Judge(2).observe(None, seen)
    assert {c: s.staleness.value for c, s in after.scores.items() if s.staleness.value} == {KIEL: 6}
    fresh = Judge(2).observe(None, replace(seen, late={}))
    assert after.standings == fresh.standings
