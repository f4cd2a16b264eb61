"""Every implementation of every seam, against its contract."""

from __future__ import annotations

import math

import numpy as np

from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import Median, TrimmedMean
from hansa.algorithms import ALGORITHMS
from hansa.core.parts import Relation, Update
from hansa.core.spec import Divisor
from hansa.engines.inline import InlineEngine
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.ledger import MemoryLedger
from hansa.samplers import Everyone, FixedSize, Poisson
from hansa.stages.clip import Clip
from hansa.stages.quantize import Quantize
from hansa.stages.weight import Weight
from tests.laws.aggregators import AggregatorLaws, RealAggregatorLaws
from tests.laws.engines import EngineLaws
from tests.laws.mechanisms import MechanismLaws
from tests.laws.privacy import AccountantLaws, LedgerLaws
from tests.laws.samplers import SamplerLaws
from tests.laws.stages import StageLaws
from tests.laws.work import ClientWorkLaws, ServerOptimizerLaws
from tests.support.toy import LAYOUT, encode, update

# ------------------------------------------------------------------ stages


class TestUniformWeight(StageLaws):
    stage = Weight("uniform")

    def forged(self):
        return [update([1.0] * 5, w) for w in (2.0, 0.5, -1.0, math.nan, math.inf, 0.0)]


class TestWeightByExamples(StageLaws):
    stage = Weight("examples")

    def forged(self):
        return [update([1.0] * 5, w) for w in (0.5, -3.0, math.nan, math.inf, 0.0)]


class TestCappedWeight(StageLaws):
    stage = Weight("examples", cap=0.1)

    def forged(self):
        return [update([1.0] * 5, w) for w in (0.11, 0.05, -0.1, math.nan, 0.0)]


class TestClip(StageLaws):
    before = (Weight("examples", cap=100),)
    stage = Clip(0.7)

    def forged(self):
        return [
            update([0.7 * 3, 0.001, 0, 0, 0], 3.0),
            update([math.nan, 0, 0, 0, 0], 3.0),
            update([math.inf, 0, 0, 0, 0], 3.0),
        ]


class TestMetricsClip(StageLaws):
    before = (Weight("uniform"),)
    stage = Clip(10.0, "metrics")

    def forged(self):
        return [
            update([0.0] * 5, 1.0, [8.0, 8.0, 0, 0]),
            update([0.0] * 5, 1.0, [math.nan] * 4),
        ]


class QuantizeForgeries(StageLaws):
    stage: Quantize

    def forged(self):
        good = encode(self.chain, update([0.5] * 5, 3, [1.0] * 4))
        found = [Update(good.vector.astype(np.float32), good.layout)]
        for place in range(LAYOUT.size):
            one = good.vector.copy()
            one[place] = 2 ** (self.stage.bits - 1) - 1
            found.append(Update(one, good.layout))
        negative = good.vector.copy()
        LAYOUT.slice(negative, "weight")[0] = 2**self.stage.bits - 1
        found.append(Update(negative, good.layout))
        if self.stage.bits < 32:
            wide = good.vector.copy()
            wide[0] += np.uint32(2**self.stage.bits)
            found.append(Update(wide, good.layout))
        return found


class TestQuantize32(QuantizeForgeries):
    before = (Weight("uniform"), Clip(2.0), Clip(50.0, "metrics"))
    stage = Quantize(step=1e-5, metrics_step=1e-3)


class TestQuantize24(QuantizeForgeries):
    before = (Weight("examples", cap=9), Clip(2.0), Clip(50.0, "metrics"))
    stage = Quantize(step=0.001, metrics_step=0.01, bits=24)


class TestQuantize16(QuantizeForgeries):
    before = (Weight("examples", cap=2.5), Clip(2.0), Clip(50.0, "metrics"))
    stage = Quantize(step=0.01, weight_step=0.01, metrics_step=0.3, bits=16)


# ------------------------------------------------------------------ aggregators


class TestMean(RealAggregatorLaws):
    aggregator = Mean(Divisor.REALISED)
    stages = (Weight("examples"),)


class TestFixedMean(RealAggregatorLaws):
    aggregator = Mean(Divisor.FIXED)
    stages = (Weight("uniform"), Clip(0.5))


class TestRingMean(AggregatorLaws):
    aggregator = Mean(Divisor.REALISED)
    stages = (*TestQuantize24.before, TestQuantize24.stage)


class TestMedian(RealAggregatorLaws):
    aggregator = Median()
    stages = (Weight("examples"),)


class TestTrimmedMean(RealAggregatorLaws):
    aggregator = TrimmedMean(0.34)
    stages = (Weight("uniform"),)


# ------------------------------------------------------------------ mechanisms


class TestNoNoise(MechanismLaws):
    mechanism = NoNoise()

    def sigma(self, of):
        return 0.0

    def test_twice_the_bound_is_twice_the_noise(self):
        """There is none."""


class TestGaussianAddOrRemove(MechanismLaws):
    mechanism = CentralGaussian(0.8, 0.5)

    def sigma(self, of):
        return (0.8 if of.segment == "delta" else 0.5) * of.l2


class TestGaussianReplaceOne(MechanismLaws):
    mechanism = CentralGaussian(0.8, 0.5, Relation.REPLACE_ONE)

    def sigma(self, of):
        return 2 * (0.8 if of.segment == "delta" else 0.5) * of.l2


# ------------------------------------------------------------------ samplers


class TestEveryone(SamplerLaws):
    sampler = Everyone(12)


class TestPoisson(SamplerLaws):
    sampler = Poisson(0.3, 40)


class TestPoissonWithLimit(SamplerLaws):
    sampler = Poisson(0.3, 40, limit=30)


class TestFixedSize(SamplerLaws):
    sampler = FixedSize(9, 30)
    accountant = "rdp"


# ------------------------------------------------------------------ accountants and ledgers


class TestPld(AccountantLaws):
    accountant = DpAccounting("pld")
    slack = 1e-3


class TestRdp(AccountantLaws):
    accountant = DpAccounting("rdp")
    slack = 0.15


class TestMemoryLedger(LedgerLaws):
    def ledger(self, allowance):
        return MemoryLedger(allowance)


# ------------------------------------------------------------------ engines


class TestInline(EngineLaws):
    def engine(self, model, source):
        return InlineEngine(model, source)


# ------------------------------------------------------------------ algorithms

for _name, _make in ALGORITHMS.items():
    _algorithm = _make()
    globals()[f"TestWorkOf{_name.title()}"] = type(
        f"TestWorkOf{_name.title()}", (ClientWorkLaws,), {"work": _algorithm.work}
    )
    globals()[f"TestServerOf{_name.title()}"] = type(
        f"TestServerOf{_name.title()}", (ServerOptimizerLaws,), {"server": _algorithm.server}
    )
