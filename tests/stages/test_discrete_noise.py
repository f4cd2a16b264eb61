"""Conditional rounding, and each client's own share of noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hansa.core.keys import NoiseSource, Words
from hansa.core.parts import Context, Stage, Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.privacy.distributed import rounded_norm
from hansa.stages.clip import Clip
from hansa.stages.discrete_noise import (
    DiscreteGaussian,
    _squares,
    noise_reach,
    smallest_noisy_step,
)
from hansa.stages.quantize import Quantize
from hansa.stages.rotate import Rotate
from hansa.stages.weight import Weight
from tests.privacy.test_discrete import chi_square
from tests.support.toy import context, encode, facts_after, update

BOUNDED: tuple[Stage, ...] = (Weight("uniform"), Clip(1.0), Clip(9.0, "metrics"))
NOISY = DiscreteGaussian(norm=1.0, step=2.0**-14, sigma=0.01)
STILL = 0.05
"""Noise of so few steps is none: another integer than 0 has probability e**-200."""


def still(norm: float, step: float, **more) -> DiscreteGaussian:
    """The stage's rounding alone."""
    return DiscreteGaussian(norm=norm, step=step, sigma=STILL * step, **more)


def layout(size: int) -> Layout:
    return Layout((Segment("delta", size), Segment("weight", 1), Segment("metrics", 0)))


def steps(stage: DiscreteGaussian, values: np.ndarray, ctx: Context | None = None) -> np.ndarray:
    """What a client sends for its delta, in integer steps."""
    where = layout(len(values))
    raw = np.append(values, 1.0).astype(np.float32)
    sent = stage.encode(Update(raw, where), ctx or context())
    real = where.slice(stage.decode(sent.vector, where), "delta") / stage.step
    whole = np.rint(real).astype(np.int64)
    assert real == pytest.approx(whole, abs=1e-6)
    return whole


# ------------------------------------------------------------------ rounding


def test_no_rounding_exceeds_its_bound():
    """Halves, which plain rounding takes beyond the bound every hundredth time."""
    size, values = 16, np.full(16, 0.5)
    bound = rounded_norm(2.0, size)
    stage = still(2.0, 1.0)
    norms = [
        np.linalg.norm(steps(stage, values, context(number=i)).astype(float)) for i in range(2000)
    ]
    assert max(norms) <= bound
    plain = np.sqrt(np.random.default_rng(0).binomial(size, 0.5, 2000))
    assert (plain > bound).sum() > 5, "the test has no power"
    assert bound < 2.0 + math.sqrt(size)


def test_rounding_goes_to_a_neighbour_without_bias():
    values = np.full(100_000, 0.3)
    values[::2] = -1.75
    found = steps(still(1e6, 1.0), values)
    assert np.abs(found - values.astype(np.float32)).max() < 1
    assert abs(found[1::2].mean() - 0.3) < 5 * math.sqrt(0.21 / 50_000)
    assert abs(found[::2].mean() + 1.75) < 5 * math.sqrt(0.1875 / 50_000)


def test_a_vector_on_the_grid_stays_as_it_is():
    values = np.array([1.0, -2.0, 0.0, 5.0])
    assert steps(still(6.0, 0.25), values).tolist() == [4, -8, 0, 20]


@pytest.mark.parametrize("exponent", [20, 30, 42])
def test_a_bound_is_met_however_fine_the_grid(exponent):
    """All of the norm in one coordinate: B_r is half a step more than it, and no float's width."""
    found = steps(still(1.0, 2.0**-exponent, bits=32), np.array([1.0, 0.0, 0.0]))
    assert found.tolist() == [2**exponent if exponent < 31 else 0, 0, 0]


def test_squares_are_added_up_exactly():
    rng = np.random.default_rng(0)
    for most in (3, 2**21, 2**42):
        whole = rng.integers(-most, most, 65_536)
        assert _squares(whole) == sum(int(x) ** 2 for x in whole)
    edge = np.full(65_536, -(2**43) + 1)
    assert _squares(edge) == 65_536 * (2**43 - 1) ** 2


def test_a_rounding_that_never_fits_is_an_error_and_no_endless_loop(monkeypatch):
    monkeypatch.setattr("hansa.stages.discrete_noise.rounded_norm", lambda *_: 0.5)
    with pytest.raises(HansaError, match="cannot be rounded within"):
        steps(still(2.0, 1.0), np.full(4, 1.0))


def test_what_exceeds_the_norm_is_scaled_down_to_it():
    values = np.array([3.0, 4.0]) * 1000
    found = steps(still(5.0, 2.0**-16), values) * 2.0**-16
    assert found == pytest.approx([3.0, 4.0], abs=2.0**-15)


def test_a_client_without_data_adds_its_noise_all_the_same():
    found = steps(replace(NOISY, sigma=1.0), np.zeros(10_000))
    assert found.std() * NOISY.step == pytest.approx(1.0, rel=0.05)


# ------------------------------------------------------------------ noise


@pytest.mark.parametrize("source", [None, NoiseSource()], ids=["key", "fresh"])
@pytest.mark.parametrize(("sigma", "step"), [(1.0, 1.0), (2.0, 0.25), (0.5, 2.0**-10)])
def test_the_noise_is_a_discrete_gaussian_of_the_promised_scale(source, sigma, step):
    stage = DiscreteGaussian(norm=1.0, step=step, sigma=sigma)
    found = steps(stage, np.zeros(200_000), replace(context(), noise=source))
    assert chi_square(found, sigma / step) > 1e-6
    assert chi_square(found, 1.03 * sigma / step) < 1e-6, "the test has no power"
    assert chi_square(found, 0.97 * sigma / step) < 1e-6, "the test has no power"


def test_the_shares_of_a_cohort_add_up():
    """The noise on the sum of n clients has sqrt(n) times the deviation of one."""
    clients, size = 9, 20_000
    values = np.zeros(size)
    total = np.sum([steps(NOISY, values, context(str(i))) for i in range(clients)], axis=0)
    sigma = 0.01 * math.sqrt(clients)
    assert total.std() * NOISY.step == pytest.approx(sigma, rel=5 / math.sqrt(2 * size))


def test_clients_rounds_and_segments_have_noise_of_their_own():
    stage = DiscreteGaussian(norm=1.0, step=1e-3, sigma=1.0, metrics_norm=9.0, metrics_sigma=1e3)
    where = Layout((Segment("delta", 5000), Segment("weight", 1), Segment("metrics", 5000)))
    zeros = np.zeros(where.size, np.float32)

    def noise(ctx: Context) -> list[np.ndarray]:
        real = stage.decode(stage.encode(Update(zeros.copy(), where), ctx).vector, where)
        return [where.slice(real, "delta"), where.slice(real, "metrics")]

    drawn = [*noise(context("a")), *noise(context("b")), *noise(context("a", number=1))]
    related = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(related).max() < 6 / math.sqrt(5000)


def test_the_noise_source_of_the_context_is_the_one_that_is_used():
    values = np.zeros(1000)
    keyed = [steps(NOISY, values) for _ in range(2)]
    assert (keyed[0] == keyed[1]).all()
    fresh = [steps(NOISY, values, replace(context(), noise=NoiseSource())) for _ in range(2)]
    assert (fresh[0] != fresh[1]).mean() > 0.9
    assert (fresh[0] != keyed[0]).mean() > 0.9


class Counted:
    """Fresh noise that says what it was asked for."""

    replayable = False

    def __init__(self) -> None:
        self.asked: list[tuple[str | int, ...]] = []

    def normal(self, size: int) -> np.ndarray:
        raise AssertionError

    def words(self, *path: str | int) -> Words:
        self.asked.append(path)
        return NoiseSource().words(*path)


def test_all_that_must_be_secret_comes_from_the_noise_source():
    source = Counted()
    steps(NOISY, np.zeros(100), replace(context(), noise=source))
    assert source.asked == [("round", "delta"), ("noise", "delta")]


# ------------------------------------------------------------------ the ring


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_integers_are_twos_complement_modulo_the_ring(bits):
    stage = still(20.0, 1.0, bits=bits)
    sent = stage.encode(update([0, 1, -1, 5, -7], 1.0), context())
    assert sent.vector.dtype == np.uint32
    modulus = 2**bits
    assert sent.segment("delta").tolist() == [0, 1, modulus - 1, 5, modulus - 7]


def test_a_legal_ring_does_not_overflow_with_noise():
    """Everyone at the edge, at the smallest legal step, with noise that fills what is left."""
    cohort, size, bits, sigma = 9, 20_000, 16, 3.0
    step = smallest_noisy_step(cohort, 1.0, sigma, size, bits)
    stage = DiscreteGaussian(norm=1.0, step=step, sigma=sigma, bits=bits)
    where, total = layout(size), np.zeros(size + 1, np.uint32)
    values = np.zeros(size + 1, np.float32)
    values[0] = 1.0
    for i in range(cohort):
        total += stage.encode(Update(values.copy(), where), context(str(i))).vector
    total &= np.uint32(2**bits - 1)
    found = where.slice(stage.decode(total, where), "delta")
    assert np.abs(found[1:]).max() < 6 * sigma * math.sqrt(cohort)
    assert found.std() == pytest.approx(sigma * math.sqrt(cohort), rel=0.05)


def test_the_weight_is_not_sent():
    sent = encode([*BOUNDED, NOISY], update([0.1] * 5, 77, [1.0] * 4))
    assert sent.segment("weight").tolist() == [0]
    after = facts_after([*BOUNDED, NOISY])["weight"]
    assert (after.l2, after.peak, after.domain) == (0.0, 0.0, Domain.RING)


def test_metrics_without_noise_are_rounded_like_everywhere():
    stage = replace(NOISY, metrics_step=0.25)
    raw = update([0.1] * 5, 7, [1.25, 7.0, 0.5, 7.1])
    found = encode([*BOUNDED[:2], stage], raw)
    plain = encode([*BOUNDED[:2], Quantize(1.0, metrics_step=0.25)], raw)
    real = stage.decode(found.vector, found.layout)[6:]
    assert real[:3].tolist() == [1.25, 7.0, 0.5]
    assert real[3] in (7.0, 7.25)
    facts = facts_after([*BOUNDED, stage])["metrics"]
    assert facts == facts_after([*BOUNDED, Quantize(1.0, metrics_step=0.25)])["metrics"]
    assert facts.noise == 0
    assert plain.segment("metrics")[:3].tolist() == found.segment("metrics")[:3].tolist()


def test_metrics_with_noise_are_treated_like_the_delta():
    stage = replace(NOISY, metrics_norm=9.0, metrics_step=2.0**-10, metrics_sigma=2.0)
    facts = facts_after([*BOUNDED, stage])["metrics"]
    assert facts.noise == 2.0
    assert facts.quantum == 2.0**-10
    assert facts.l2 == pytest.approx(rounded_norm(9.0 * 2**10, 4) / 2**10)
    drawn = [
        encode([*BOUNDED, stage], update([0.1] * 5, 7), context(number=i)).segment("metrics")
        for i in range(500)
    ]
    assert (np.array(drawn).view(np.int32) * 2.0**-10).std() == pytest.approx(2.0, rel=0.1)


# ------------------------------------------------------------------ facts and refusals


def known(**changed) -> UpdateSpec:
    return replace(facts_after(BOUNDED)["delta"], **changed)


def test_the_facts_of_the_delta():
    after = NOISY.infer(known())
    bound = rounded_norm(2.0**14, 5)
    assert after.l2 == pytest.approx(bound * 2.0**-14, rel=1e-15)
    assert after.l2 < 1.0 + 2.0**-14 * math.sqrt(5)
    assert after.peak == min(1.0 + 2.0**-14, after.l2)
    assert (after.quantum, after.bits, after.domain) == (2.0**-14, 32, Domain.RING)
    assert after.noise == 0.01
    assert after.held is Held.HONEST


def test_a_norm_that_differs_by_rounding_only_is_the_same():
    assert NOISY.infer(known(l2=1 + 2.0**-23)).l2 == NOISY.infer(known()).l2


@pytest.mark.parametrize(
    ("stage", "changed", "because", "fix"),
    [
        (NOISY, {"l2": math.inf}, "arbitrarily far", "privacy.clip"),
        (NOISY, {"l2": 1.1}, "would cut", "1.1"),
        (NOISY, {"domain": Domain.RING}, "quantised already", "instead of Quantize"),
        (NOISY, {"reader": Reader.SUM}, "too late", "before masks"),
        (replace(NOISY, bits=20), {}, "cannot pack", "bits = 32"),
        (replace(NOISY, step=0.0), {}, "cannot step", "quantization.step"),
        (replace(NOISY, step=math.nan), {}, "cannot step", "quantization.step"),
        (replace(NOISY, sigma=0.0), {}, "cannot be added", "above 0"),
        (replace(NOISY, sigma=math.nan), {}, "cannot be added", "above 0"),
        (replace(NOISY, sigma=1e30), {}, "cannot be added", "quantization.step >="),
        (replace(NOISY, norm=0.0), {}, "bounds no delta", "privacy.clip"),
        (replace(NOISY, norm=math.inf), {}, "bounds no delta", "privacy.clip"),
        (replace(NOISY, bits=16), {}, "may overflow", "quantization.step >="),
        (replace(NOISY, bits=16), {"cohort": 40_000}, "may overflow", "smaller cohort"),
    ],
)
def test_what_cannot_be_is_refused_with_a_fix(stage, changed, because, fix):
    with pytest.raises(PlanError, match=because) as caught:
        stage.infer(known(**changed))
    assert fix in caught.value.fix


def test_metrics_need_a_bound_too():
    stage = replace(NOISY, metrics_norm=9.0, metrics_sigma=1.0)
    with pytest.raises(PlanError, match="metrics arbitrarily far") as caught:
        stage.infer(facts_after(BOUNDED[:2])["metrics"])
    assert "privacy.metrics_clip" in caught.value.fix


@pytest.mark.parametrize("cohort", [1, 20, 1000])
@pytest.mark.parametrize("sigma", [1e-3, 1.0])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_step_that_the_refusal_names_is_the_smallest_legal_one(cohort, sigma, bits):
    size = 100_000
    spec = known(size=size, cohort=cohort)
    needed = smallest_noisy_step(cohort, 1.0, sigma, size, bits)
    good = DiscreteGaussian(norm=1.0, step=needed, sigma=sigma, bits=bits)
    good.infer(spec)
    with pytest.raises(PlanError) as caught:
        replace(good, step=needed * 0.999).infer(spec)
    assert repr(needed) in caught.value.fix


def test_the_room_for_noise_covers_its_tail():
    """2**-40 for all coordinates together, by the tail of a normal distribution of that size."""
    for clients, size in ((1, 1), (20, 10**6)):
        far = noise_reach(clients, 1.5, size) / (1.5 * math.sqrt(clients))
        tail = size * math.erfc(far / math.sqrt(2))
        assert tail < 2.0**-40
        assert tail > 2.0**-45, "and is not wasteful"


def test_a_rotation_saves_bits():
    """Behind it, the ring need not hold all of everybody's norm in one coordinate."""
    size, cohort = 2**20, 100
    flat = facts_after([*BOUNDED, Rotate(1, reach=0.02)], layout(size), cohort=cohort)["delta"]
    wide = facts_after(BOUNDED, layout(size), cohort=cohort)["delta"]
    assert (flat.peak, wide.peak) == (0.02, 1.0)
    step = smallest_noisy_step(cohort, flat.peak, 0.001, size, 16)
    stage = DiscreteGaussian(norm=1.0, step=step, sigma=0.001, bits=16)
    assert stage.infer(flat).peak == pytest.approx(0.02 + step)
    with pytest.raises(PlanError, match="may overflow"):
        stage.infer(wide)


# ------------------------------------------------------------------ what is not right


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(HansaError, match="not finite"):
        NOISY.encode(update([bad, 0, 0, 0, 0], 1.0), context())


def test_a_readable_update_is_checked_as_far_as_the_noise_allows():
    stage = DiscreteGaussian(norm=1.0, step=2.0**-14, sigma=0.1)
    facts = facts_after([*BOUNDED, stage])
    sent = encode([*BOUNDED, stage], update([9.0] * 5, 1.0, [0.0] * 4))
    stage.admit(sent, facts)
    sent.segment("delta")[:] = 10 * 2**14
    with pytest.raises(UpdateRejected, match="even with noise"):
        stage.admit(sent, facts)
    hidden = {name: replace(spec, reader=Reader.SUM) for name, spec in facts.items()}
    stage.admit(sent, hidden)
