"""The distributed discrete Gaussian mechanism: what it accounts for, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hansa.aggregators.linear import Mean
from hansa.core.events import DiscreteGaussianSum, NoOp, PoissonSampled, SelfComposed
from hansa.core.job import Cohort, Privacy, Rounds
from hansa.core.keys import NoiseSource
from hansa.core.parts import Context, Facts, Parts, Relation, Role, Stage, Update
from hansa.core.plan import Plan, check
from hansa.core.spec import Divisor, Domain, Reader, UpdateSpec
from hansa.core.vector import Layout, Segment, Vector
from hansa.errors import PlanError, PlanRefused
from hansa.mechanisms.distributed import DistributedGaussian
from hansa.privacy.accountants import DpAccounting, epsilon
from hansa.privacy.distributed import Setting, rounded_norm, smallest_sigma
from hansa.samplers import Everyone, FixedSize, Poisson
from hansa.stages.clip import Clip
from hansa.stages.discrete_noise import DiscreteGaussian, smallest_noisy_step
from hansa.stages.quantize import Quantize
from hansa.stages.rotate import Rotate
from hansa.stages.weight import Weight
from tests.support.toy import FACTS, context, facts_after, job

ONE = DistributedGaussian(colluding=2)


def noisy(segment: str = "delta", **changed) -> UpdateSpec:
    """What a masked sum of ten or more clients with noise is known for."""
    usual = UpdateSpec(
        segment=segment,
        size=100,
        cohort=20,
        domain=Domain.RING,
        bits=32,
        l2=3.0,
        peak=3.0,
        quantum=0.25,
        weight=1.0,
        divisor=Divisor.FIXED,
        reader=Reader.SUM,
        quorum=10,
        noise=2.0,
    )
    return replace(usual, **changed)


SILENT = {"noise": 0.0, "l2": 0.0, "peak": 0.0, "size": 1}
EVENT = DiscreteGaussianSum(noise_parameter=8.0, shares=8, sensitivity=12.0, size=100)


@pytest.mark.parametrize(
    ("facts", "event", "released"),
    [
        (noisy(), EVENT, True),
        (noisy("metrics", size=4), replace(EVENT, size=4), True),
        (noisy("metrics", size=0), NoOp(), False),
        (noisy("weight", **SILENT), NoOp(), False),
        (noisy("metrics", divisor=Divisor.REALISED), EVENT, True),
    ],
)
def test_the_table(facts, event, released):
    assert ONE.infer(facts) == event
    assert ONE.releases(facts) is released


@pytest.mark.parametrize(
    ("mechanism", "facts", "because", "fix"),
    [
        (ONE, noisy(reader=Reader.EACH), "can read each", "secure_aggregation.enabled = true"),
        (ONE, noisy(noise=0.0), "without noise", "DiscreteGaussian"),
        (ONE, noisy("metrics", noise=0.0), "metrics without noise", "no metrics"),
        (ONE, noisy("weight", noise=0.0, size=1), "weight without noise", "no weights"),
        (ONE, noisy("weight", reader=Reader.EACH, **SILENT), "can read each", "enabled = true"),
        (ONE, noisy(divisor=Divisor.REALISED), "realised count", "fixed divisor"),
        (ONE, noisy(l2=math.inf), "arbitrarily far", "privacy.clip"),
        (ONE, noisy(l2=0.0), "arbitrarily far", "privacy.clip"),
        (ONE, noisy(domain=Domain.REAL), "not on a grid", "quantization.step"),
        (ONE, noisy(quorum=2), "hides nobody", "rounds.quorum to at least 3"),
        (DistributedGaussian(0), noisy(quorum=1), "hides nobody", "rounds.quorum to at least 2"),
        (DistributedGaussian(9), noisy(quorum=9), "hides nobody", "rounds.quorum to at least 10"),
        (DistributedGaussian(-1), noisy(), "hides nobody", "rounds.quorum"),
    ],
)
def test_what_is_not_covered_is_refused_with_a_fix(mechanism, facts, because, fix):
    with pytest.raises(PlanError, match=because) as caught:
        mechanism.infer(facts)
    assert fix in caught.value.fix


@pytest.mark.parametrize(("colluding", "quorum", "shares"), [(0, 2, 2), (0, 10, 10), (4, 10, 6)])
def test_only_noise_that_is_sure_to_be_there_is_counted(colluding, quorum, shares):
    """Not the cohort of 20: the fewest survivors, without those who tell."""
    event = DistributedGaussian(colluding).infer(noisy(quorum=quorum))
    assert isinstance(event, DiscreteGaussianSum)
    assert event.shares == shares


def test_a_replaced_client_moves_the_sum_twice_as_far():
    event = DistributedGaussian(2, Relation.REPLACE_ONE).infer(noisy())
    assert event == replace(EVENT, sensitivity=24.0)


def test_the_sum_is_released_as_it_is():
    total = np.linspace(-1, 1, 100)
    assert ONE.apply(total, noisy(), NoiseSource()) is total


def test_the_claim_names_who_need_not_be_trusted():
    words = str(ONE)
    assert "no single party" in words
    assert "2 colluding clients" in words
    assert "only the noisy sum" in words


# ------------------------------------------------------------------ a whole plan


@dataclass(frozen=True, slots=True)
class Hidden:
    """Stands for masks: the coordinator reads the sum only."""

    @property
    def role(self) -> Role:
        return Role.HIDE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        return replace(spec, reader=Reader.SUM)

    def encode(self, update: Update, ctx: Context) -> Update:
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        pass

    def decode(self, total: Vector, layout: Layout) -> Vector:
        return total


CLIENTS, QUORUM, CLIP = 60, 40, 0.5
SIZE = FACTS.schema.size


def plan(sampler=None, noise: Stage | None = None, mask: Stage | None = None) -> Plan:
    words = job(
        rounds=Rounds(count=5, quorum=QUORUM),
        cohort=Cohort(population=CLIENTS),
        privacy=Privacy(mechanism="gaussian", clip=CLIP, delta=1e-5),
    )
    step = smallest_noisy_step(CLIENTS, CLIP, 1.0, SIZE, 32)
    stages: list[Stage] = [
        Weight("uniform"),
        Clip(CLIP),
        Rotate(0),
        noise or DiscreteGaussian(norm=CLIP, step=step, sigma=1.0),
        mask or Hidden(),
    ]
    parts = Parts(
        algorithm=words.algorithm,
        sampler=sampler or Everyone(CLIENTS),
        stages=tuple(stages),
        aggregator=Mean(Divisor.FIXED),
        mechanism=DistributedGaussian(colluding=5),
    )
    return check(words, parts, FACTS, DpAccounting("rdp"))


def test_a_plan_is_proved_and_counted():
    found = plan()
    assert found.private
    assert isinstance(found.event, SelfComposed)
    step = found.facts["delta"].quantum
    event = found.round_event
    assert isinstance(event, DiscreteGaussianSum)
    assert (event.noise_parameter, event.shares, event.size) == (1 / step, 35, SIZE)
    assert event.sensitivity == pytest.approx(rounded_norm(CLIP / step, SIZE), rel=1e-12)
    assert found.epsilon == pytest.approx(epsilon(SelfComposed(event, 5), 1e-5, "rdp"))
    assert 0.1 < found.epsilon < 3


def test_a_sampler_amplifies():
    found = plan(Poisson(0.9, CLIENTS))
    assert isinstance(found.round_event, PoissonSampled)
    assert found.epsilon <= plan().epsilon


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"sampler": FixedSize(50, CLIENTS)}, "relation"),
        ({"sampler": Poisson(0.9, CLIENTS, 59)}, "no amplification is known"),
        ({"noise": Quantize(2.0**-20)}, "without noise"),
        ({"mask": Rotate(1)}, "cannot rotate"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(changed, because):
    with pytest.raises(PlanRefused, match=because):
        plan(**changed)


def test_the_solver_the_stages_and_the_mechanism_agree():
    """What is solved for is what the plan's own facts account for."""
    setting = Setting(norm=CLIP, size=SIZE, cohort=CLIENTS, shares=35, bits=24, rounds=5)

    def step_of(sigma: float) -> float:
        return smallest_noisy_step(CLIENTS, CLIP, sigma, SIZE, 24)

    def by_rdp(event, delta):
        return epsilon(event, delta, "rdp")

    sigma = smallest_sigma(setting, 2.0, 1e-5, by_rdp, step_of)
    stage = DiscreteGaussian(norm=CLIP, step=step_of(sigma), sigma=sigma, bits=24)
    found = plan(noise=stage)
    assert found.epsilon == pytest.approx(2.0, rel=1e-3)
    assert found.epsilon <= 2.0 * (1 + 1e-9)


def test_a_whole_round_has_noise_of_all_and_the_right_mean():
    """From clipping to the sum that is turned back, with two clients that drop out."""
    size, clients, sigma = 3000, 12, 0.02
    layout = Layout((Segment("delta", size), Segment("weight", 1), Segment("metrics", 0)))
    step = smallest_noisy_step(clients, 1.0, sigma, size, 24)
    stages: tuple[Stage, ...] = (
        Weight("uniform"),
        Clip(1.0),
        Rotate(3),
        DiscreteGaussian(norm=1.0, step=step, sigma=sigma, bits=24),
        Hidden(),
    )
    facts = facts_after((*stages, Mean(Divisor.FIXED)), layout, cohort=clients, quorum=10)
    rng, aggregator, truth = np.random.default_rng(0), Mean(Divisor.FIXED), np.zeros(size)
    partial = aggregator.zero(layout, facts)
    for i in range(clients - 2):
        vector = np.append(0.01 * rng.standard_normal(size), 5.0).astype(np.float32)
        truth += vector[:size]
        update = Update(vector, layout)
        for stage in stages:
            update = stage.encode(update, context(str(i)))
        for stage in stages:
            stage.admit(update, facts)
        partial = aggregator.add(partial, str(i), update, facts)
    total = aggregator.finish(partial, layout, facts)
    for stage in reversed(stages):
        total = stage.decode(total, layout)
    error = layout.slice(total, "delta") - truth
    assert layout.slice(total, "weight").tolist() == [0.0]
    assert error.std() == pytest.approx(sigma * math.sqrt(10), rel=5 / math.sqrt(2 * size))
    assert abs(error.mean()) < 5 * error.std() / math.sqrt(size)
