"""The contract of every mechanism: what it releases, and noise of the scale that it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hansa.core import events
from hansa.core.keys import Noise, NoiseSource, ReplayKey
from hansa.core.parts import Mechanism, Relation
from hansa.core.spec import Divisor, UpdateSpec
from hansa.errors import PlanError

SIZE = 40_000


def spec(segment: str = "delta", **known) -> UpdateSpec:
    """A segment that can be released privately."""
    usual = {
        "size": SIZE,
        "cohort": 20,
        "l2": 3.0,
        "peak": 3.0,
        "weight": 1.0,
        "divisor": Divisor.FIXED,
        "quantum": 2.0**-50,
    }
    return UpdateSpec(segment=segment, **{**usual, **known})


def deviates(samples: np.ndarray, sigma: float) -> bool:
    """Whether the sample deviation is more than five standard errors from sigma."""
    return bool(abs(samples.std() / sigma - 1) > 5 / math.sqrt(2 * len(samples)))


class MechanismLaws:
    """Subclass it as `Test...`; `sigma` is the oracle for the noise's standard deviation."""

    mechanism: Mechanism

    def sigma(self, of: UpdateSpec) -> float:
        raise NotImplementedError

    @pytest.mark.parametrize("noise", [ReplayKey.of_seed(1), NoiseSource()], ids=["key", "fresh"])
    @pytest.mark.parametrize("segment", ["delta", "metrics"])
    def test_the_noise_has_the_promised_scale(self, noise: Noise, segment: str):
        facts = spec(segment)
        total = np.linspace(-3, 3, SIZE)
        public = self.mechanism.apply(total.copy(), facts, noise)
        sigma, drawn = self.sigma(facts), public - total
        if sigma == 0:
            assert (public == total).all()
            return
        assert not deviates(drawn, sigma)
        assert deviates(drawn * 0.95, sigma), "the test has no power"
        assert deviates(drawn * 1.05, sigma), "the test has no power"
        assert abs(drawn.mean()) < 5 * sigma / math.sqrt(SIZE)
        assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / math.sqrt(SIZE)

    @pytest.mark.parametrize("segment", ["delta", "weight", "metrics"])
    def test_what_reveals_nothing_is_not_released(self, segment: str):
        for facts in (spec(segment), spec(segment, size=0)):
            nothing = self.mechanism.infer(facts) == events.NoOp()
            assert self.mechanism.releases(facts) is not nothing

    def test_an_event_is_private_only_under_a_norm_bound(self):
        unbounded = spec(l2=math.inf, peak=math.inf)
        try:
            event = self.mechanism.infer(unbounded)
        except PlanError:
            return
        assert not events.is_private(event)

    def test_fresh_noise_differs_and_replayed_noise_does_not(self):
        facts, zeros = spec(), np.zeros(SIZE)
        key = ReplayKey.of_seed(2)
        first, second = (self.mechanism.apply(zeros.copy(), facts, key) for _ in range(2))
        assert (first == second).all()
        if self.sigma(facts):
            fresh = [self.mechanism.apply(zeros.copy(), facts, NoiseSource()) for _ in range(2)]
            assert (fresh[0] != fresh[1]).mean() > 0.99

    def test_twice_the_bound_is_twice_the_noise(self):
        key, facts = ReplayKey.of_seed(3), spec()
        once = self.mechanism.apply(np.zeros(SIZE), facts, key)
        twice = self.mechanism.apply(np.zeros(SIZE), replace(facts, l2=6.0, peak=6.0), key)
        assert twice == pytest.approx(2 * once, rel=1e-6, abs=1e-6)

    def test_its_relation_is_one(self):
        assert isinstance(self.mechanism.relation, Relation)

    def test_it_reads_well(self):
        assert str(self.mechanism) != repr(self.mechanism)
