"""Canary examples: rows that nobody has, found in what leaves without noise and not with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hansa.core.job import Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.privacy.audits.examples import canary_examples, canary_rows
from hansa.privacy.audits.one_run import bound
from hansa.work.sgd import FullGradient
from tests.privacy.audits import wide_jobs as jobs

KEY = ReplayKey.of_seed(5)


@dataclass(frozen=True, slots=True)
class NoisyGradient(FullGradient):
    """The sum of examples' gradients, each cut to norm 1, with noise: the Gaussian mechanism."""

    noise: float = 0.0

    def batches(self, examples, ctx):
        for place in range(examples):
            yield np.array([place])

    def step(self, state, batch, ctx):
        slope = ctx.model.gradient(state.shared, batch)[1]
        state.gradient += slope / max(1.0, float(np.linalg.norm(slope)))
        state.examples += 1
        return state

    def finish(self, shared, state):
        rng = np.random.default_rng()
        return -state.gradient - self.noise * rng.standard_normal(len(shared)), 0.0


def shown(noise: float, count: int = 1000) -> float:
    plan, task = jobs.planned(jobs.plain(rounds=Rounds(count=1)))
    algorithm = replace(plan.parts.algorithm, work=NoisyGradient(noise=noise))
    plan = replace(plan, parts=replace(plan.parts, algorithm=algorithm))
    found = canary_examples(plan, task, count, KEY)
    return bound(found.scores, found.coins, 1e-5).epsilon


def test_without_noise_every_canary_is_found_and_with_noise_not():
    assert shown(0.0) > 5
    assert shown(5.0) < 1.3  # epsilon of this Gaussian mechanism at delta 1e-5 is 0.73


@pytest.mark.parametrize("kind", ["foreign", "mislabelled"])
def test_canaries_are_rows_that_nobody_has(kind):
    _, task = jobs.planned(jobs.plain())
    rows = task.data(Site("client-0001", {})).train
    made = canary_rows(rows, 50, kind, KEY)
    assert len(made) == 50
    assert made.inputs.dtype == rows.inputs.dtype
    assert set(made.targets) <= set(rows.targets)
    known = {(x.tobytes(), int(y)) for x, y in zip(rows.inputs, rows.targets, strict=True)}
    assert not any(
        (x.tobytes(), int(y)) in known for x, y in zip(made.inputs, made.targets, strict=True)
    )


def test_ordinary_client_work_shows_its_examples_too():
    plan, task = jobs.planned(jobs.job(rounds=Rounds(count=1)))
    found = canary_examples(plan, task, 300, KEY, kind="mislabelled")
    assert bound(found.scores, found.coins, 1e-5).epsilon > 1
