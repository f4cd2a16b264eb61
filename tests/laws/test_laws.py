"""Every implementation of every seam, against its contract."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given

from hansa.aggregators.agnostic import Agnostic
from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import FLTrust, Median, Robust, TrimmedMean
from hansa.algorithms import ALGORITHMS
from hansa.core.arrival import Buffer
from hansa.core.events import NoOp
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation, Update
from hansa.core.spec import Divisor, Domain, Reader
from hansa.engines.auto import AutoEngine
from hansa.engines.buffered import BufferedEngine, HalfNormal
from hansa.engines.inline import InlineEngine
from hansa.engines.vector import VectorEngine
from hansa.engines.workers import WorkersEngine
from hansa.mechanisms.discrete import CentralDiscrete
from hansa.mechanisms.distributed import DistributedGaussian
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.ledger import MemoryLedger
from hansa.samplers import Arrival, Cyclic, Everyone, FixedSize, Known, Poisson
from hansa.stages.adaptive_clip import AdaptiveClip
from hansa.stages.clip import Clip
from hansa.stages.discrete_noise import DiscreteGaussian
from hansa.stages.fair_weight import FairWeight
from hansa.stages.loss_weight import LossWeight
from hansa.stages.mask import Mask
from hansa.stages.norm import TOLERANCE
from hansa.stages.quantize import Quantize
from hansa.stages.rotate import Rotate
from hansa.stages.weight import Weight
from tests.laws.aggregators import AggregatorLaws, RealAggregatorLaws
from tests.laws.engines import EngineLaws
from tests.laws.mechanisms import MechanismLaws, spec
from tests.laws.privacy import AccountantLaws, LedgerLaws
from tests.laws.samplers import SamplerLaws
from tests.laws.settings import LAW
from tests.laws.stages import StageLaws, clients, raw
from tests.laws.work import ClientWorkLaws, ServerOptimizerLaws
from tests.support.sources import Both
from tests.support.toy import LAYOUT, context, encode, facts_after, update

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


class TestFairWeight(StageLaws):
    stage: FairWeight | LossWeight = FairWeight(Weight("examples", cap=100), 1.5, 2.0, 100)

    def forged(self):
        return [update([1.0] * 5, w) for w in (101.0, -3.0, math.nan, math.inf, 0.0)]

    @pytest.mark.parametrize("name", ["delta", "metrics"])
    def test_it_works_without_a_segment(self, name):
        if name == "metrics":
            super().test_it_works_without_a_segment(name)
            return
        sent = encode(self.chain, raw([], 6, [2.0] * 4, LAYOUT.without(name)))  # it measures only
        assert sent.segment("weight").tolist() == [6.0]


class TestLossWeight(TestFairWeight):
    stage = LossWeight(Weight("examples", cap=100), 100)


class TestClip(StageLaws):
    before = (Weight("examples", cap=100),)
    stage = Clip(0.7)

    def forged(self):
        return [
            update([0.7 * 3, 0.001, 0, 0, 0], 3.0),
            update([math.nan, 0, 0, 0, 0], 3.0),
            update([math.inf, 0, 0, 0, 0], 3.0),
        ]


class TestAdaptiveClip(StageLaws):
    before = (Weight("uniform"),)
    stage = AdaptiveClip(2.0, 0.5)

    def forged(self):
        return [
            update([1.1, 0, 0, 0, 0], 1.0, [0.0] * 4),
            update([np.nan, 0, 0, 0, 0], 1.0, [0.0] * 4),
        ]


class TestMetricsClip(StageLaws):
    before = (Weight("uniform"),)
    stage = Clip(10.0, "metrics")

    def forged(self):
        return [
            update([0.0] * 5, 1.0, [8.0, 8.0, 0, 0]),
            update([0.0] * 5, 1.0, [math.nan] * 4),
        ]


class TestRotate(StageLaws):
    before = (Weight("examples", cap=100), Clip(0.7))
    stage = Rotate(1)

    def forged(self):
        return [
            update([0.7 * 3, 0.001, 0, 0, 0], 3.0),
            update([math.nan, 0, 0, 0, 0], 3.0),
            update([0.1, 0, 0, 0, 0], 0.0),
        ]

    @given(clients)
    @LAW
    def test_decoding_the_sum_is_the_sum_of_decoding(self, them):
        """Every coordinate depends on all, so rounding is relative to the norm."""
        sent = [encode(self.chain, raw(*it), context(str(i))) for i, it in enumerate(them)]
        total = np.sum([one.vector.astype(np.float64) for one in sent], axis=0)
        together = self.stage.decode(total, LAYOUT)
        each = [self.decoded(one).astype(np.float64) for one in sent]
        scale = np.sum([np.linalg.norm(one) for one in each])
        assert np.abs(together - np.sum(each, axis=0)).max() <= 4 * 2.0**-23 * scale


class QuantizeForgeries(StageLaws):
    stage: Quantize | DiscreteGaussian

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


class TestDiscreteGaussianThatIsStill(QuantizeForgeries):
    """Noise of a twentieth of a step is none, so that the laws can see the rounding."""

    before = (Weight("uniform"), Clip(2.0), Clip(50.0, "metrics"), Rotate(1))
    stage = DiscreteGaussian(norm=2.0, step=0.001, sigma=5e-5, metrics_step=0.01, bits=24)


class TestDiscreteGaussian(QuantizeForgeries):
    before = (Weight("examples", cap=9), Clip(2.0), Clip(50.0, "metrics"), Rotate(1))
    stage = DiscreteGaussian(
        norm=18.0, step=1e-5, sigma=0.3, metrics_norm=50.0, metrics_step=1e-5, metrics_sigma=2.0
    )

    def stays_within(self, update):
        """The facts bound what the data contribute; the noise comes on top."""
        sent = encode(self.chain, update)
        silent = encode((*self.before, replace(self.stage, sigma=1e-7, metrics_sigma=1e-7)), update)
        for name, facts in self.facts.items():
            real, data = (LAYOUT.slice(self.decoded(one), name) for one in (sent, silent))
            assert np.linalg.norm(data) <= facts.l2 * (1 + TOLERANCE), name
            assert np.abs(data).max() <= facts.peak * (1 + TOLERANCE), name
            assert np.abs(real - data).max() <= 9 * facts.noise, name


class TestMask(StageLaws):
    """The protocol masks the sum; the stage itself changes what is known and nothing else."""

    before = (*TestQuantize24.before, TestQuantize24.stage)
    stage = Mask()
    hides = True

    @property
    def facts(self):
        return facts_after(self.chain, cohort=10, quorum=6)

    def decode(self, total, layout=LAYOUT):
        return TestQuantize24.stage.decode(self.stage.decode(total, layout), layout)

    def forged(self):
        """Nothing: it sees no single update, and checks none."""
        return []


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


class TestMultiKrum(RealAggregatorLaws):
    aggregator = Robust("multi_krum", 0.2)
    stages = (Weight("examples"),)


class TestTrimmedMeanOverNearest(RealAggregatorLaws):
    aggregator = Robust("trimmed_mean", 0.2, "nearest")
    stages = (Weight("uniform"),)


class TestGeometricMedianOverPairs(RealAggregatorLaws):
    aggregator = Robust("geometric_median", 0.2, "bucketing")
    stages = (Weight("examples"),)


class TestAgnostic(RealAggregatorLaws):
    aggregator = Agnostic(0.5)
    stages = (Weight("examples"),)


class TestCentredClipping(RealAggregatorLaws):
    aggregator = Robust("centered_clipping", 0.2)
    stages = (Weight("examples"),)


class TestDnC(RealAggregatorLaws):
    aggregator = Robust("dnc", 0.2)
    stages = (Weight("uniform"),)


class TestFLAME(RealAggregatorLaws):
    aggregator = Robust("flame", 0.2)
    stages = (Weight("examples"),)


class TestFoolsGold(RealAggregatorLaws):
    aggregator = Robust("foolsgold", 0.2)
    stages = (Weight("examples"),)


class TestFLTrust(RealAggregatorLaws):
    aggregator = FLTrust("c0")
    stages = (Weight("examples"),)


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


class TestDiscreteAddOrRemove(MechanismLaws):
    mechanism = CentralDiscrete(0.8, 0.5)

    def sigma(self, of):
        return (0.8 if of.segment == "delta" else 0.5) * of.l2


class TestDiscreteReplaceOne(MechanismLaws):
    mechanism = CentralDiscrete(0.8, 0.5, Relation.REPLACE_ONE)

    def sigma(self, of):
        return 2 * (0.8 if of.segment == "delta" else 0.5) * of.l2


class TestDistributedGaussian(MechanismLaws):
    """The sum that it is given is noisy already."""

    mechanism = DistributedGaussian(colluding=2)

    def sigma(self, of):
        return 0.0

    @pytest.mark.parametrize("segment", ["delta", "weight", "metrics"])
    def test_what_reveals_nothing_is_not_released(self, segment):
        noisy = {
            "domain": Domain.RING,
            "bits": 32,
            "reader": Reader.SUM,
            "quorum": 5,
            "noise": 0.5,
            **({"noise": 0.0, "l2": 0.0, "peak": 0.0} if segment == "weight" else {}),
        }
        for facts in (spec(segment, **noisy), spec(segment, **{**noisy, "size": 0})):
            nothing = self.mechanism.infer(facts) == NoOp()
            assert self.mechanism.releases(facts) is not nothing


# ------------------------------------------------------------------ samplers


class TestEveryone(SamplerLaws):
    sampler = Everyone(12)


class TestArrival(SamplerLaws):
    """Of a measurement; who is in a round of training is not drawn."""

    sampler = Arrival(Buffer(9, 20), 30)


class TestPoisson(SamplerLaws):
    sampler = Poisson(0.3, 40)


class TestPoissonWithLimit(SamplerLaws):
    sampler = Poisson(0.3, 40, limit=30)


class TestFixedSize(SamplerLaws):
    sampler = FixedSize(9, 30)
    accountant = "rdp"


class TestCyclic(SamplerLaws):
    sampler = Cyclic(4, 20)


class TestCyclicPoisson(SamplerLaws):
    sampler = Cyclic(4, 60, rate=0.5)


class TestKnown(SamplerLaws):
    sampler = Known(Poisson(0.3, 40))


class TestKnownTurns(SamplerLaws):
    sampler = Known(Cyclic(4, 20))


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


class TestBuffered(EngineLaws):
    """With plans that wait, it is the engine inside."""

    def engine(self, model, source):
        return BufferedEngine(InlineEngine(model, source), HalfNormal(ReplayKey.of_seed(0)))


@pytest.fixture(scope="class")
def pools():
    """Engines with processes, one for each source, ended at the end."""
    with ExitStack() as held:

        @cache
        def engine(model, source):
            return held.enter_context(WorkersEngine(Both(model, source), 2))

        yield engine


class TestWorkers(EngineLaws):
    @pytest.fixture(autouse=True)
    def _pools(self, pools):
        self.pools = pools

    def engine(self, model, source):
        return self.pools(model, source)


class TestVector(EngineLaws):
    """Of a task without PyTorch, whose clients it trains as inline does."""

    def engine(self, model, source):
        return VectorEngine(model, source)


class TestAuto(EngineLaws):
    """From the third client on with workers, as if it had taken long."""

    @pytest.fixture(autouse=True)
    def _pools(self, pools):
        self.pools = pools

    def engine(self, model, source):
        ticks = itertools.count(step=100.0)
        workers = self.pools(model, source)
        workers.start()
        while not workers.ready():
            time.sleep(0.01)
        return AutoEngine(InlineEngine(model, source), workers, ticks.__next__)


# ------------------------------------------------------------------ algorithms

for _name, _make in ALGORITHMS.items():
    _algorithm = _make()
    globals()[f"TestWorkOf{_name.title()}"] = type(
        f"TestWorkOf{_name.title()}", (ClientWorkLaws,), {"work": _algorithm.work}
    )
    globals()[f"TestServerOf{_name.title()}"] = type(
        f"TestServerOf{_name.title()}", (ServerOptimizerLaws,), {"server": _algorithm.server}
    )
