"""Local noise: its scale, its grid, its bounds, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hansa.core.keys import NoiseSource, ReplayKey, Words
from hansa.core.parts import Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.stages.clip import Clip
from hansa.stages.local_noise import LocalNoise
from hansa.stages.quantize import Quantize
from hansa.stages.weight import Weight
from tests.support.toy import admit, context, encode, facts_after, update

SIZE = 20_000
LAYOUT = Layout((Segment("delta", SIZE), Segment("weight", 1), Segment("metrics", 0)))
NOISE = LocalNoise(norm=2.0, noise_multiplier=1.5)
CHAIN = (Weight("uniform"), Clip(2.0), NOISE)


class Still:
    """No noise at all: shows what is done to the data."""

    replayable = True

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)

    def words(self, *path: str | int) -> Words:
        return lambda size: np.zeros(size, np.uint64)


def sent(
    delta: Sequence[float] | np.ndarray, examples: int = 7, noise=None, number: int = 0, chain=CHAIN
) -> Update:
    ctx = replace(context(number=number), noise=noise)
    return encode(chain, update(list(delta), examples, layout=LAYOUT), ctx)


def deviates(samples: np.ndarray, sigma: float) -> bool:
    return bool(abs(samples.std() / sigma - 1) > 5 / math.sqrt(2 * len(samples)))


@pytest.mark.parametrize("noise", [None, NoiseSource()], ids=["key", "fresh"])
@pytest.mark.parametrize("examples", [7, 0])
def test_one_update_has_noise_of_twice_the_bound_times_the_multiplier(noise, examples):
    """The oracle: 1.5 * 2 * 2.0, whatever the data, also where there are none."""
    delta = np.full(SIZE, 1e-3 if examples else 0.0)
    out = sent(delta, examples, noise)
    drawn = out.segment("delta") - (delta if examples else 0)
    assert not deviates(drawn, 6.0)
    assert deviates(drawn * 1.06, 6.0), "the test has no power"
    assert deviates(drawn * 0.94, 6.0), "the test has no power"
    assert stats.kstest(drawn[::4], "norm", args=(0, 6.0)).pvalue > 1e-6
    assert abs(drawn.mean()) < 5 * 6.0 / math.sqrt(SIZE)
    assert out.segment("weight")[0] == 1.0


def test_noise_differs_by_client_round_and_draw():
    zeros = np.zeros(SIZE)
    one = sent(zeros).vector
    assert (one == sent(zeros).vector).all(), "a simulation repeats"
    assert (one != sent(zeros, number=1).vector).mean() > 0.9
    other = encode(CHAIN, update(list(zeros), 7, layout=LAYOUT), context("bremen")).vector
    assert (one != other).mean() > 0.9
    fresh = [sent(zeros, noise=NoiseSource()).vector for _ in range(2)]
    assert (fresh[0] != fresh[1]).mean() > 0.9


@pytest.mark.parametrize("z", [0.1, 1.5, 40.0])
@pytest.mark.parametrize("norm", [1e-6, 2.0, 1e6])
def test_what_is_sent_is_whole_steps_that_float32_holds(z, norm):
    chain = (Weight("uniform"), Clip(norm), LocalNoise(norm, z))
    scale = chain[-1].scale(SIZE)
    out = sent(np.linspace(-norm, norm, SIZE), noise=NoiseSource(), chain=chain).segment("delta")
    assert math.log2(scale.grid).is_integer()
    assert scale.peak / scale.grid <= 2**24
    assert scale.sensitivity >= 2 * norm
    steps = [Fraction(float(x)) / Fraction(scale.grid) for x in out[::97]]
    assert all(step.denominator == 1 for step in steps)


def test_two_datasets_lie_within_the_sensitivity_on_the_grid():
    """Opposite deltas at the bound, in the worst place between two steps."""
    scale = NOISE.scale(SIZE)
    delta = np.full(SIZE, 2.0 / math.sqrt(SIZE) * (1 - 1e-6))
    up, down = (sent(sign * delta, noise=Still()).segment("delta") for sign in (1, -1))
    apart = np.linalg.norm(up.astype(float) - down)
    assert 4.0 * (1 - 1e-4) < apart <= scale.sensitivity


class Huge(Still):
    """Samples that do not occur: in all coordinates, or in one, which leaves the norm small."""

    def __init__(self, coordinates: int) -> None:
        self.coordinates = coordinates

    def normal(self, size: int) -> np.ndarray:
        return np.where(np.arange(size) < self.coordinates, 50.0, 0.0)


@pytest.mark.parametrize("coordinates", [1, SIZE])
def test_bounds_hold_for_certain_whatever_the_noise(coordinates):
    scale, facts = NOISE.scale(SIZE), facts_after(CHAIN, LAYOUT)
    out = sent(np.ones(SIZE), noise=Huge(coordinates))
    assert np.abs(out.segment("delta")).max() <= scale.peak == facts["delta"].peak
    assert np.linalg.norm(out.segment("delta").astype(float)) <= scale.l2 == facts["delta"].l2
    admit(CHAIN, out, facts)


def test_honest_noise_is_hardly_ever_cut():
    scale = NOISE.scale(SIZE)
    out = sent(np.zeros(SIZE), noise=NoiseSource()).segment("delta").astype(float)
    assert np.abs(out).max() < 0.8 * scale.peak
    assert np.linalg.norm(out) < 0.99 * scale.l2


def test_facts():
    facts = facts_after(CHAIN, LAYOUT)
    delta, scale = facts["delta"], NOISE.scale(SIZE)
    assert (delta.noise, delta.quantum, delta.held) == (scale.sigma, scale.grid, Held.CHECKED)
    assert delta.domain is Domain.REAL
    assert (facts["weight"].l2, facts["weight"].peak) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "weight"),
    [([1e6, 0, 0], 1.0), ([math.nan, 0, 0], 1.0), ([0.0] * 3, 0.0), ([0.0] * 3, 0.5)],
)
def test_what_no_honest_client_sends_is_rejected(values, weight):
    bad = sent(np.zeros(SIZE))
    bad.segment("delta")[:3] = values
    bad.segment("weight")[:] = weight
    with pytest.raises(UpdateRejected):
        admit(CHAIN, bad, facts_after(CHAIN, LAYOUT))


def test_it_looks_at_nothing_that_it_cannot_read():
    hidden = {k: replace(s, reader=Reader.SUM) for k, s in facts_after(CHAIN, LAYOUT).items()}
    bad = sent(np.zeros(SIZE))
    bad.segment("delta")[0] = 1e9
    NOISE.admit(bad, hidden)


@pytest.mark.parametrize("step", [1e-3, 0.5])
def test_a_ring_holds_the_noisy_updates_and_their_sum(step):
    chain = (*CHAIN, Quantize(step))
    facts = facts_after(chain, LAYOUT, cohort=20)
    outs = [sent(np.ones(SIZE), noise=NoiseSource(), chain=chain) for _ in range(5)]
    for out in outs:
        admit(chain, out, facts)
    total = sum((out.vector for out in outs), np.zeros(LAYOUT.size, np.uint32))
    real = LAYOUT.slice(chain[-1].decode(total, LAYOUT), "delta")
    assert not deviates(real, 6.0 * math.sqrt(5))
    assert real.mean() == pytest.approx(5 * 2.0 / math.sqrt(SIZE), abs=5 * 13.5 / math.sqrt(SIZE))


def test_a_ring_that_the_noise_can_overflow_is_refused():
    with pytest.raises(PlanError, match="overflow"):
        facts_after((*CHAIN, Quantize(1e-3, bits=16)), LAYOUT, cohort=20)


DELTA = UpdateSpec(size=5, cohort=4, l2=2.0, peak=2.0, weight=1.0)


@pytest.mark.parametrize(
    ("stage", "spec", "because", "fix"),
    [
        (NOISE, replace(DELTA, l2=math.inf), "the bound is inf", "clip to 2"),
        (NOISE, replace(DELTA, l2=2.1), "the bound is 2.1", "clip to 2"),
        (NOISE, replace(DELTA, reader=Reader.SUM), "too late", "before"),
        (NOISE, replace(DELTA, domain=Domain.RING), "too late", "before rounding"),
        (NOISE, replace(DELTA, segment="metrics"), "without noise", "metrics_clip"),
        (NOISE, replace(DELTA, segment="within"), "without noise", "clip_quantile"),
        (NOISE, replace(DELTA, segment="weight", weight=9.0), "how many examples", "uniform"),
        (LocalNoise(0.0, 1.0), DELTA, "protects nobody", "privacy.clip"),
        (LocalNoise(2.0, 0.0), DELTA, "protects nobody", "noise_multiplier"),
        (LocalNoise(2.0, math.nan), DELTA, "protects nobody", "noise_multiplier"),
        (LocalNoise(2.0, 1e5), replace(DELTA, size=10**8), "float32", "larger epsilon"),
        (LocalNoise(1e-36, 1.0), replace(DELTA, l2=1e-36), "float32", "privacy.clip"),
    ],
)
def test_refusals(stage, spec, because, fix):
    with pytest.raises(PlanError, match=because) as caught:
        stage.infer(spec)
    assert fix in caught.value.fix


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_that_diverged_sends_nothing(value):
    with pytest.raises(HansaError, match="not finite"):
        NOISE.encode(update([value, 0], 1, layout=LAYOUT), context())


def test_a_delta_beyond_the_norm_gets_no_noise_that_is_too_small():
    with pytest.raises(HansaError, match="beyond the norm"):
        NOISE.encode(update([2.1, 0], 1, layout=LAYOUT), context())


def test_a_replay_key_is_named_by_purpose():
    key = ReplayKey.of_seed(3)
    assert (key.derive("noise").normal(5) != key.normal(5)).all()
