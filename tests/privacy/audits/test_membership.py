"""Membership inference: it finds what was learnt by heart, and nothing where nothing was learnt."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Rounds
from hansa.errors import HansaError
from hansa.privacy.audits.membership import lira, membership, rmia, tpr
from tests.privacy.audits import wide_jobs as jobs

RNG = np.random.default_rng(0)


def fitted(steps: int, rate: float) -> Job:
    """The target holds about 150 examples and has 512 weights: it learns some by heart."""
    return jobs.job(
        rounds=Rounds(count=3),
        cohort=Cohort(population=20),
        algorithm=fedavg(client_lr=rate, local_steps=steps, batch_size=4),
    )


@pytest.mark.parametrize(("attack", "models"), [("lira", 4), ("rmia", 2)])
def test_what_was_learnt_by_heart_is_found(attack, models):
    """Guessing finds about 1.4 % of the members here, with a deviation of 0.5 % over three runs."""
    runs = [membership(fitted(20, 1.0), attack=attack, models=models, seed=s) for s in range(3)]
    assert all(found.members + found.others == 300 for found in runs)
    assert all(found.tpr_at_1_per_mille is None for found in runs)  # too few to say
    assert np.mean([found.tpr_at_1_percent for found in runs]) > 0.04


def test_confidences_that_do_not_depend_on_membership_give_nothing_away():
    members = RNG.random(20_000) < 0.5
    p, others = RNG.uniform(0.05, 0.95, (5, 20_000)), RNG.uniform(0.05, 0.95, (5, 20_000))
    for scores in (lira(p[0], p[1:]), rmia(p[0], p[1:], others[0], others[1:])):
        assert tpr(scores, members, 0.01) == pytest.approx(0.01, abs=0.005)


def test_scores_of_lira_are_standard_normal_for_what_was_not_trained_on():
    logits = RNG.standard_normal((33, 2000)) * 0.7 + 1.0
    p = 1 / (1 + np.exp(-logits))
    scores = lira(p[0], p[1:])
    assert scores.mean() == pytest.approx(0, abs=0.1)
    assert scores.std() == pytest.approx(np.sqrt(1 + 1 / 32), abs=0.06)


def test_scores_of_rmia_are_shares_of_the_others():
    others = np.array([0.2, 0.4, 0.8])
    scores = rmia(np.array([0.1, 0.5, 0.9]), np.full((1, 3), 0.5), others, np.full((1, 3), 0.5))
    np.testing.assert_allclose(scores, [0, 2 / 3, 1])


def test_true_positives_at_a_share_of_false_alarms():
    scores = np.concatenate([np.arange(100.0), [97.5, 98.5, 200.0, -1.0]])
    members = np.arange(104) >= 100
    assert tpr(scores, members, 0.01) == 0.5  # above 98: one false alarm of a hundred
    assert tpr(scores, members, 0.0) == 0.25


def test_too_few_models_are_refused():
    with pytest.raises(HansaError, match="cannot work"):
        membership(fitted(1, 0.1), attack="lira", models=2)
