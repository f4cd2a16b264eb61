"""Audits of jobs whose clients hide single examples: what breaks their claim is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.core.job import Job, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Relation, Site
from hansa.core.vector import Schema, Tensor
from hansa.privacy.audits import audit, opinions
from hansa.privacy.audits.audit import claimed, shortened
from hansa.privacy.audits.example_runs import Zeroing, at_once, canary_examples
from hansa.privacy.audits.one_run import bound
from hansa.privacy.audits.scores import Scores
from hansa.privacy.audits.silence import silent_work
from hansa.work import dpsgd
from hansa.work.dpsgd import DpSgd
from hansa.work.per_example import clipped_sum
from hansa.work.poisson import poisson_batches
from tests.privacy.audits import wide_jobs as jobs

KEY, DELTA = ReplayKey.of_seed(5), 1e-5


def attacked(job: Job, count: int = 1500) -> tuple[Scores, float]:
    plan, task = jobs.planned(job)
    return canary_examples(plan, task, count, KEY), claimed(plan)


def shown(scores: Scores) -> float:
    return bound(scores.scores, scores.coins, DELTA).epsilon


# ------------------------------------------------------------------ planted faults


def test_half_the_noise_is_found_where_all_examples_are_in_each_step(monkeypatch):
    """The bound by rates is close enough to the claim of Gaussian noise."""
    job = jobs.dpsgd(batch_size=20, steps=1)
    real = DpSgd.pace

    def halved(self: DpSgd, examples: int) -> dpsgd.Pace:
        pace = real(self, examples)
        return replace(pace, noise=pace.noise / 2)

    def closer(count: int) -> tuple[float, float]:
        found, claim = attacked(job, count)
        return opinions.gaussian_dp(found.scores, found.coins, DELTA), claim

    sound, claim = closer(1500)
    assert sound < claim
    monkeypatch.setattr(DpSgd, "pace", halved)
    assert closer(4000)[0] > claim


def test_gradients_that_are_not_cut_are_found(monkeypatch):

    def uncut(model: Any, params: Any, batch: Any, clip: float, grid: float) -> Any:
        return clipped_sum(model, params, batch, 1000 * clip, grid)

    found, claim = attacked(jobs.dpsgd())
    assert shown(found) < claim
    monkeypatch.setattr("hansa.work.dpsgd.clipped_sum", uncut)
    assert shown(attacked(jobs.dpsgd())[0]) > claim


def test_sampling_that_takes_everybody_is_found(monkeypatch):
    job = jobs.dpsgd(batch_size=2, steps=10)

    def all_of_them(examples: int, rate: float, steps: int, noise: Any) -> Any:
        return poisson_batches(examples, 1.0, steps, noise)

    found, claim = attacked(job, 1000)
    assert shown(found) < claim
    monkeypatch.setattr("hansa.work.dpsgd.poisson_batches", all_of_them)
    assert shown(attacked(job, 1000)[0]) > claim


def test_steps_without_noise_show_everything(monkeypatch):
    monkeypatch.setattr(DpSgd, "pace", lambda self, n: dpsgd.Pace(1.0, 1, 1e-6))
    assert shown(attacked(jobs.dpsgd())[0]) > 5


# ------------------------------------------------------------------ what is attacked


def test_the_claim_is_that_of_the_client_with_the_fewest_examples():
    """A plan's epsilon is kept by everybody, so it does not fall with the attacked rounds."""
    plan, _ = jobs.planned(jobs.dpsgd())
    assert claimed(plan) == pytest.approx(plan.epsilon, rel=0.01)
    short = shortened(plan, 1)
    assert 0 < claimed(short) < 0.8 * plan.epsilon <= short.epsilon
    others, _ = jobs.planned(jobs.gaussian())
    assert claimed(others) == others.epsilon


def test_a_report_is_of_examples(monkeypatch):
    report = audit(jobs.dpsgd(), canaries=64, rounds=1)
    assert (report.unit, report.relation) == ("example", Relation.ZERO_OUT.value)
    assert report.epsilon_claimed < report.epsilon_of_job == 2.0
    assert "DP-SGD" in report.mechanism


def test_canaries_fit_into_the_smallest_client_and_can_be_told_apart():
    plan, _ = jobs.planned(jobs.dpsgd())
    assert at_once(plan) == 20
    few = replace(plan.job, privacy=replace(plan.job.privacy, examples=7))
    assert at_once(replace(plan, job=few)) == 7
    many = replace(plan.job, privacy=replace(plan.job.privacy, examples=700))
    assert at_once(replace(plan, job=many)) == 32
    assert at_once(jobs.planned(jobs.plain())[0]) == 32


def test_the_middle_of_scores_does_not_come_from_the_coins():
    """Also where each run has one canary: a middle of each run by itself would tell nothing."""
    rng = np.random.default_rng(0)
    coins = rng.integers(0, 2, 4000).astype(bool)
    scores = Scores(7.0 + 5.0 * coins + rng.standard_normal(4000), coins)
    assert ((scores.centred().scores > 0) == coins).mean() > 0.98
    plan, task = jobs.planned(jobs.dpsgd(batch_size=20, steps=1, rounds=Rounds(count=1)))
    few = replace(plan.task, schema=Schema((Tensor("w", (4,)),)))
    assert at_once(replace(plan, task=few)) == 1
    alone = replace(plan.job, privacy=replace(plan.job.privacy, examples=1))
    assert at_once(replace(plan, job=alone)) == 1
    one, _ = jobs.planned(jobs.dpsgd(examples=1, batch_size=1, steps=1, rounds=Rounds(count=1)))
    found = canary_examples(one, task, 200, KEY, noise=False)
    assert ((found.scores > 0) == found.coins).all()


def test_a_canary_that_is_out_is_drawn_and_contributes_nothing():
    """The number of examples stays, and with it how often each is drawn and what a step is."""
    plan, task = jobs.planned(jobs.dpsgd(batch_size=20, steps=1, rounds=Rounds(count=1)))
    work = silent_work(plan.parts.algorithm.work)
    rows = task.data(Site("client-0001", {})).train
    absent = np.arange(len(rows)) % 3 == 0
    shared = task.initial(0)

    def moved(absent: Any) -> Any:
        of, ctx = Zeroing(work, absent), Context("a", 0, KEY, task, examples=len(rows))
        state = of.init(shared, ctx)
        for drawn in of.batches(len(rows), ctx):
            state = of.step(state, rows.take(drawn), ctx)
        return of.finish(shared, state)[0].astype(np.float64)

    alone = [moved(np.arange(len(rows)) != i) for i in range(len(rows))]
    wanted = sum(one for one, out in zip(alone, absent, strict=True) if not out)
    np.testing.assert_allclose(moved(absent), wanted, atol=1e-5)
    assert float(np.linalg.norm(alone[0])) == pytest.approx(0.1 / 20, rel=1e-3)
    assert np.abs(moved(np.ones(len(rows), np.bool_))).max() < 1e-6


def test_without_noise_batches_are_drawn_as_before():
    plan, _ = jobs.planned(jobs.dpsgd())
    work = plan.parts.algorithm.work
    quiet = silent_work(work)
    assert isinstance(work, DpSgd)
    assert isinstance(quiet, DpSgd)
    assert quiet.pace(20).noise < 1e-5 < work.pace(20).noise
    assert (quiet.pace(50).rate, quiet.pace(50).steps) == (work.pace(50).rate, work.pace(50).steps)
    assert quiet.pace(50).noise < 1e-5
    plain = jobs.planned(jobs.plain())[0].parts.algorithm.work
    assert silent_work(plain) is plain
