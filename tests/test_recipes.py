"""From words to parts."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import FLTrust, Median, Robust, TrimmedMean
from hansa.assembly import METRICS_PER_EXAMPLE, build
from hansa.core.job import (
    Aggregation,
    Cohort,
    Privacy,
    Quantization,
    SecureAggregation,
    TaskFacts,
)
from hansa.core.parts import Relation, Role
from hansa.core.spec import Divisor
from hansa.core.vector import Schema, Tensor
from hansa.errors import PlanRefused
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from hansa.recipes import compile_plan, resolve
from hansa.samplers import Everyone, FixedSize, Poisson
from hansa.simulation import simulate
from hansa.stages.clip import Clip
from hansa.stages.quantize import Quantize, fits
from hansa.stages.weight import Weight
from hansa.work.bundle import facts_of, load_task
from tests.support.toy import FACTS, job, plan

PRIVATE = Privacy(mechanism="gaussian", clip=0.5, noise_multiplier=2.0, delta=1e-5)
UNIFORM = Aggregation(weighting="uniform")


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        ({}, (Weight("examples"),)),
        ({"aggregation": UNIFORM}, (Weight("uniform"),)),
        ({"aggregation": Aggregation(max_weight=9.0)}, (Weight("examples", 9.0),)),
        (
            {"aggregation": Aggregation(weighting="uniform", clip=2.0)},
            (Weight("uniform"), Clip(2.0)),
        ),
        (
            {"aggregation": UNIFORM, "privacy": PRIVATE},
            (Weight("uniform"), Clip(0.5)),
        ),
        (
            {
                "aggregation": UNIFORM,
                "privacy": replace(PRIVATE, metrics_clip=7.0, metrics_noise_multiplier=1.0),
            },
            (Weight("uniform"), Clip(0.5), Clip(7.0, "metrics")),
        ),
    ],
)
def test_stages(words, stages):
    assert build(job(**words)).stages == stages


def test_a_ring_has_steps_that_fit_its_cohort():
    built = build(
        job(
            aggregation=Aggregation(clip=1.0, max_weight=500.0),
            quantization=Quantization(step=0.1, bits=16),
            cohort=Cohort(population=50),
        )
    )
    *_, clip, quantize = built.stages
    assert clip == Clip(500 * METRICS_PER_EXAMPLE, "metrics")
    assert isinstance(quantize, Quantize)
    assert (quantize.step, quantize.bits) == (0.1, 16)
    for step, peak in ((quantize.weight_step, 500), (quantize.metrics_step, 500 * 16)):
        assert fits(50, peak, step, 16)
        assert not fits(50, peak, step / 2, 16)
        assert math.log2(step).is_integer()


def test_whole_weights_have_whole_steps_where_they_fit():
    built = build(
        job(
            aggregation=Aggregation(clip=1.0, max_weight=500.0),
            quantization=Quantization(step=1e-5),
        )
    )
    quantize = built.stages[-1]
    assert isinstance(quantize, Quantize)
    assert quantize.weight_step == 1.0
    assert quantize.metrics_step < 1e-3


@pytest.mark.parametrize(
    ("cohort", "sampler"),
    [
        (Cohort(population=9), Everyone(9)),
        (Cohort(population=9, sampler="poisson", rate=0.5), Poisson(0.5, 9)),
        (Cohort(population=9, sampler="poisson", rate=0.5, cap=9), Poisson(0.5, 9, 9)),
        (Cohort(population=9, sampler="fixed", size=4), FixedSize(4, 9)),
        (
            Cohort(population=9, sampler="fixed", size=4, over_selection=1.5),
            FixedSize(4, 9, 1.5),
        ),
    ],
)
def test_samplers(cohort, sampler):
    assert build(job(cohort=cohort)).sampler == sampler


@pytest.mark.parametrize(
    ("words", "aggregator"),
    [
        ({}, Mean(Divisor.REALISED)),
        ({"privacy": PRIVATE}, Mean(Divisor.FIXED)),
        ({"aggregation": Aggregation(rule="median")}, Median()),
        ({"aggregation": Aggregation(rule="trimmed_mean", trim=0.3)}, TrimmedMean(0.3)),
        ({"aggregation": Aggregation(rule="krum", bad=0.3)}, Robust("krum", 0.3)),
        (
            {"aggregation": Aggregation(rule="trimmed_mean", trim=0.3, mixing="nearest")},
            Robust("trimmed_mean", 0.3, "nearest"),
        ),
        ({"aggregation": Aggregation(rule="fltrust", trusted="kiel")}, FLTrust("kiel")),
    ],
)
def test_aggregators(words, aggregator):
    assert build(job(**words)).aggregator == aggregator


@pytest.mark.parametrize(
    ("words", "mechanism"),
    [
        ({}, NoNoise()),
        ({"privacy": PRIVATE}, CentralGaussian(2.0)),
        (
            {"privacy": PRIVATE, "cohort": Cohort(population=9, sampler="fixed", size=4)},
            CentralGaussian(2.0, relation=Relation.REPLACE_ONE),
        ),
    ],
)
def test_mechanisms(words, mechanism):
    assert build(job(**words)).mechanism == mechanism


def test_parts_stand_in_the_order_of_their_roles():
    everything = plan(
        aggregation=UNIFORM,
        privacy=replace(PRIVATE, metrics_clip=7.0, metrics_noise_multiplier=1.0),
        quantization=Quantization(step=1e-6),
        cohort=Cohort(population=9),
    )
    assert [s.role for s in everything.parts.stages] == [
        Role.WEIGHT,
        Role.BOUND,
        Role.BOUND,
        Role.ENCODE,
    ]
    assert everything.facts["delta"].l2 > 0.5, "rounding is counted in"


# ------------------------------------------------------------------ resolving


@pytest.mark.parametrize(
    "cohort",
    [
        Cohort(population=50),
        Cohort(population=50, sampler="poisson", rate=0.2),
        Cohort(population=50, sampler="fixed", size=10),
    ],
)
def test_the_noise_is_found_from_epsilon_and_keeps_it(cohort):
    of = job(aggregation=UNIFORM, cohort=cohort,
             privacy=replace(PRIVATE, noise_multiplier=0.0, epsilon=4.0))  # fmt: skip
    compiled = compile_plan(of, FACTS)
    assert 3.9 < compiled.epsilon <= 4.0
    less = replace(
        compiled.job.privacy, noise_multiplier=compiled.job.privacy.noise_multiplier * 0.99
    )
    with pytest.raises(PlanRefused, match="the job promises 4"):
        compile_plan(replace(of, privacy=less), FACTS)


def test_the_noise_of_the_metrics_is_counted_in():
    words = replace(PRIVATE, noise_multiplier=0.0, epsilon=4.0)
    alone = resolve(job(aggregation=UNIFORM, privacy=words)).privacy.noise_multiplier
    beside = resolve(
        job(
            aggregation=UNIFORM,
            privacy=replace(words, metrics_clip=5.0, metrics_noise_multiplier=9.0),
        )
    ).privacy.noise_multiplier
    assert beside > alone * 1.05


def test_an_epsilon_that_the_metrics_use_up_alone_is_refused():
    with pytest.raises(PlanRefused, match="no noise brings epsilon down") as caught:
        resolve(
            job(
                aggregation=UNIFORM,
                privacy=replace(
                    PRIVATE,
                    noise_multiplier=0.0,
                    epsilon=0.5,
                    metrics_clip=5.0,
                    metrics_noise_multiplier=1.0,
                ),
            )
        )
    assert "privacy.epsilon" in str(caught.value)


def test_a_noise_that_is_given_is_kept():
    of = job(aggregation=UNIFORM, privacy=replace(PRIVATE, epsilon=50.0))
    assert resolve(of) == of


def test_a_job_without_privacy_resolves_to_itself():
    assert resolve(job()) == job()


def test_resolving_refuses_what_contradicts_itself():
    with pytest.raises(PlanRefused, match="neither epsilon nor noise_multiplier"):
        resolve(job(privacy=replace(PRIVATE, noise_multiplier=0.0)))


def test_a_refused_job_is_not_refused_for_a_noise_that_it_could_not_have():
    with pytest.raises(PlanRefused) as caught:
        compile_plan(
            job(
                aggregation=UNIFORM,
                risk_tier="high",
                privacy=replace(PRIVATE, delta=0.0, noise_multiplier=0.0, epsilon=2.0),
            ),
            FACTS,
        )
    assert [e.part for e in caught.value.errors] == ["privacy.delta"]


# ------------------------------------------------------------------ facts and speed


def test_the_facts_of_the_task_are_found_if_they_are_not_given():
    of = job()
    found = compile_plan(of)
    assert found.task == facts_of(of, load_task(of))
    assert found.task.schema == FACTS.schema
    assert found.digest == compile_plan(of, found.task).digest


def test_compiling_is_fast():
    compile_plan(job(), FACTS)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        compile_plan(job(), FACTS)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.02


def test_a_job_without_privacy_needs_no_accountant():
    code = (
        "import sys; from tests.support.toy import plan; plan(); "
        "sys.exit('dp_accounting' in sys.modules or 'scipy' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=True)


def wide(size: int) -> TaskFacts:
    return replace(FACTS, schema=Schema((Tensor("w", (size,)),)))


def test_a_rotation_lets_a_small_ring_hold_a_large_model():
    """Spread over its coordinates, a norm needs steps that are some hundred times smaller."""
    words = {
        "aggregation": Aggregation(clip=1.0, weighting="uniform", max_weight=1.0),
        "secure_aggregation": SecureAggregation(enabled=True),
    }
    with pytest.raises(PlanRefused, match="overflow"):
        compile_plan(job(**words, quantization=Quantization(step=1e-5, bits=16)), wide(10**6))
    rotated = Quantization(step=1e-5, bits=16, rotate=True)
    of = compile_plan(job(**words, quantization=rotated), wide(10**6))
    assert [type(stage).__name__ for stage in of.parts.stages][-3:] == [
        "Rotate",
        "Quantize",
        "Mask",
    ]
    assert of.facts["delta"].l2 < 1.02


def test_a_rotated_job_trains_like_another():
    words = {
        "aggregation": Aggregation(clip=1.0, weighting="uniform", max_weight=64.0),
        "secure_aggregation": SecureAggregation(enabled=True),
    }
    plain, rotated = (
        simulate(job(**words, quantization=Quantization(step=1e-6, rotate=rotate)))
        for rotate in (False, True)
    )
    assert plain.model_sha256 != rotated.model_sha256
    assert np.abs(plain.state.params - rotated.state.params).max() < 1e-3


@pytest.mark.parametrize(
    "words",
    [
        {"quantization": Quantization(rotate=True)},
        {"quantization": Quantization(step=1e-4, rotate=True)},
    ],
)
def test_a_rotation_without_a_ring_or_a_bound_is_refused(words):
    with pytest.raises(PlanRefused, match="no ring or no norm bound"):
        plan(**words)
