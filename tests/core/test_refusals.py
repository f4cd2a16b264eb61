"""What a plan must refuse: each row is a job, the part that is named, and words of the reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import Median, Robust, TrimmedMean
from hansa.assembly import build
from hansa.core.events import Laplace, PoissonSampled, compose
from hansa.core.job import (
    Aggregation,
    Cohort,
    Defend,
    Job,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.core.parts import Parts, Relation, Role
from hansa.core.plan import check
from hansa.core.spec import Divisor
from hansa.errors import PlanError, PlanRefused
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.accountants import DpAccounting
from hansa.recipes import compile_plan
from hansa.stages.clip import Clip
from hansa.stages.quantize import Quantize
from hansa.stages.weight import Weight
from tests.support.odd import Hide, Odd
from tests.support.toy import FACTS, job

GAUSSIAN = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5)
UNIFORM = Aggregation(weighting="uniform")
PRIVATE: dict[str, Any] = {"privacy": GAUSSIAN, "aggregation": UNIFORM}
RDP = DpAccounting("rdp")
FIVE = Rounds(count=3, quorum=5)


def parts(of: Job, **changed) -> Parts:
    return replace(build(of), **changed)


def refusal(of: Job, its: Parts | None = None, accountant=RDP) -> list[PlanError]:
    """All reasons why a job is refused, compiled or checked with other parts."""
    with pytest.raises(PlanRefused) as caught:
        compile_plan(of, FACTS) if its is None else check(of, its, FACTS, accountant)
    return list(caught.value.errors)


QUANTIZED: dict[str, Any] = {
    "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=50),
    "quantization": Quantization(step=1e-5),
}
CLIPPED = (Weight("uniform"), Clip(1.0))

ROWS: dict[str, tuple[Any, ...]] = {
    "median under masks": (
        job(), {"stages": (Weight("examples"), Hide()), "aggregator": Median()},
        "Median", "needs every update", "secure_aggregation.groups",
    ),
    "trimmed mean under masks": (
        job(), {"stages": (Weight("examples"), Hide()), "aggregator": TrimmedMean(0.3)},
        "TrimmedMean", "needs every update", "secure_aggregation.groups",
    ),
    "median over integers": (
        job(**QUANTIZED), {"aggregator": Median()}, "Median", "no order", "quantization.step",
    ),
    "median of four": (
        job(rounds=Rounds(count=1, quorum=4)), {"aggregator": Median()},
        "Median", "protects against nobody", "rounds.quorum to at least 5",
    ),
    "Krum of four": (
        job(aggregation=Aggregation(rule="krum", bad=0.3), rounds=Rounds(count=1, quorum=4)), None,
        "Robust", "protects against nobody", "rounds.quorum to at least 5",
    ),
    "a Bulyan of too few": (
        job(aggregation=Aggregation(rule="bulyan", bad=0.2), rounds=FIVE), None,
        "Robust", "needs 7 updates to bear 1 bad ones, and a round may have 5", "at least 11",
    ),
    "pairs that are too few": (
        job(aggregation=Aggregation(rule="krum", mixing="bucketing"), rounds=FIVE), None,
        "Robust", "needs 5 pairs to bear 1", "rounds.quorum",
    ),
    "a rule that bears nobody": (
        job(aggregation=Aggregation(rule="krum", bad=0.1), rounds=FIVE), None,
        "Robust", "bears nobody in a round of 5", "rounds.quorum to at least 10",
    ),
    "an impossible share of bad clients": (
        job(aggregation=Aggregation(rule="krum", bad=0.5), rounds=FIVE), None,
        "Robust", "cannot bear a share of 0.5", "aggregation.bad",
    ),
    "likeness after mixing": (
        job(aggregation=Aggregation(rule="flame", mixing="nearest"), rounds=FIVE), None,
        "Robust", "makes all alike", "aggregation.mixing",
    ),
    "mixing before a mean": (
        job(aggregation=Aggregation(mixing="nearest")), None,
        "aggregation.mixing", 'the rule is "mean"', "leave it out",
    ),
    "trust in nobody": (
        job(aggregation=Aggregation(rule="fltrust"), rounds=FIVE), None,
        "FLTrust", "nobody to compare with", "aggregation.trusted",
    ),
    "trust without a rule for it": (
        job(aggregation=Aggregation(trusted="kiel")), None,
        "aggregation.trusted", "nobody is compared with", "defend.standing = true",
    ),
    "a trusted client under masks": (
        job(
            aggregation=Aggregation(rule="median", trusted="kiel"),
            secure_aggregation=SecureAggregation(enabled=True, groups=5),
            defend=Defend(standing=True),
        ), None,
        "aggregation.trusted", "shows only sums", "leave it out",
    ),
    "a rule over whole updates that are hidden": (
        job(**QUANTIZED), {"stages": (*CLIPPED, Hide()), "aggregator": Robust("krum", 0.2)},
        "Robust", "needs every update", "secure_aggregation.groups",
    ),
    "noise after Krum": (
        job(
            privacy=GAUSSIAN, rounds=FIVE, aggregation=Aggregation(rule="krum", weighting="uniform")
        ), None,
        "CentralGaussian", "arbitrarily far", "mean",
    ),
    "a trimmed mean that trims nobody": (
        job(aggregation=Aggregation(rule="trimmed_mean", trim=0.1), rounds=FIVE), None,
        "TrimmedMean", "drops nobody", "rounds.quorum to at least 10",
    ),
    "an impossible trim": (
        job(aggregation=Aggregation(rule="trimmed_mean", trim=0.5)), None,
        "TrimmedMean", "cannot drop", "aggregation.trim",
    ),
    "noise without a clip": (
        job(**PRIVATE), {"stages": (Weight("uniform"),)},
        "CentralGaussian", "arbitrarily far", "privacy.clip",
    ),
    "noise that is none": (
        job(**PRIVATE), {"mechanism": CentralGaussian(0.0)},
        "CentralGaussian", "protects nobody", "privacy.noise_multiplier",
    ),
    "a clip after quantising": (
        job(**QUANTIZED), {"stages": (*build(job(**QUANTIZED)).stages, Clip(1.0))},
        "Clip", "stands after Quantize", "order stages",
    ),
    "a clip of integers": (
        job(**QUANTIZED), {"stages": (*build(job(**QUANTIZED)).stages, Clip(1.0))},
        "Clip", "cannot measure a norm", "before quantising",
    ),
    "a clip after masking": (
        job(), {"stages": (Weight("uniform"), Hide(), Clip(1.0))},
        "Clip", "comes too late", "before masking",
    ),
    "a clip that weights can undo": (
        job(aggregation=Aggregation(clip=1.0)), None,
        "Clip", "huge weight", 'weighting = "uniform"',
    ),
    "a private clip that weights can undo": (
        job(privacy=GAUSSIAN), None, "Clip", "huge weight", "max_weight",
    ),
    "an impossible clip": (
        job(aggregation=Aggregation(weighting="uniform", clip=-1.0)), None,
        "Clip", "cannot be bounded", "positive",
    ),
    "an impossible weight": (
        job(aggregation=Aggregation(max_weight=-1.0)), None,
        "Weight", "cannot count", "aggregation.max_weight",
    ),
    "noise after a median": (
        job(
            privacy=GAUSSIAN,
            aggregation=Aggregation(rule="median", weighting="uniform"),
            rounds=FIVE,
        ), None,
        "CentralGaussian", "arbitrarily far", "mean",
    ),
    "noise after a trimmed mean": (
        job(**PRIVATE, rounds=FIVE), {"aggregator": TrimmedMean(0.3)},
        "CentralGaussian", "arbitrarily far", "mean",
    ),
    "a private mean with a realised count": (
        job(**PRIVATE), {"aggregator": Mean(Divisor.REALISED)},
        "CentralGaussian", "realised count", "fixed divisor",
    ),
    "metrics without their own noise": (
        job(privacy=replace(GAUSSIAN, metrics_clip=5.0), aggregation=UNIFORM), None,
        "privacy.metrics_clip", "belong together", "both",
    ),
    "noisy metrics that nothing bounds": (
        job(privacy=replace(GAUSSIAN, metrics_clip=5.0, metrics_noise_multiplier=1.0),
            aggregation=UNIFORM),
        {"stages": CLIPPED}, "CentralGaussian", "metrics arbitrarily far", "metrics_clip",
    ),
    "a ring without a bound on the delta": (
        job(aggregation=Aggregation(weighting="uniform", max_weight=50),
            quantization=Quantization(step=1e-5)), None,
        "Quantize", "the delta may overflow", "aggregation.clip",
    ),
    "a ring without a bound on the metrics": (
        job(aggregation=Aggregation(weighting="uniform", clip=1.0),
            quantization=Quantization(step=1e-5)), None,
        "Quantize", "the metrics may overflow", "aggregation.max_weight",
    ),
    "a ring without a bound on the weight": (
        job(quantization=Quantization(step=1e-5)), None,
        "Quantize", "the weight may overflow", 'weighting = "uniform"',
    ),
    "a ring that overflows": (
        job(**{**QUANTIZED, "quantization": Quantization(step=1e-9)}), None,
        "Quantize", "overflow 2**31", "quantization.step >= 2.794e-09",
    ),
    "a ring that no step fits": (
        job(cohort=Cohort(population=40_000), aggregation=Aggregation(weighting="uniform", clip=1.0,
            max_weight=5), quantization=Quantization(step=0.1, bits=16)), None,
        "Quantize", "overflow 2**15", "more bits",
    ),
    "quantising twice": (
        job(**QUANTIZED), {"stages": (*build(job(**QUANTIZED)).stages, Quantize(1e-5))},
        "Quantize", "quantised already", "once",
    ),
    "a modulus that cannot be packed": (
        job(**{**QUANTIZED, "quantization": Quantization(step=1e-5, bits=20)}), None,
        "Quantize", "cannot pack 20 bits", "bits = 32",
    ),
    "a step that is none": (
        job(**QUANTIZED), {"stages": (*CLIPPED, Quantize(-1.0))},
        "Quantize", "cannot step", "positive",
    ),
    "noise for another relation": (
        job(**PRIVATE, cohort=Cohort(population=6, sampler="fixed", size=3)),
        {"mechanism": CentralGaussian(2.0, relation=Relation.ADD_OR_REMOVE_ONE)},
        "CentralGaussian", "one unit replaced", "sampler's relation",
    ),
    "amplification of an over-selected cohort": (
        job(**PRIVATE, cohort=Cohort(population=60, sampler="fixed", size=20, over_selection=1.3)),
        None, "FixedSize", "not random but slow", "over_selection = 1",
    ),
    "a cap that cuts often": (
        job(cohort=Cohort(population=10_000, sampler="poisson", rate=0.01, cap=149)), None,
        "Poisson", "too often", "cohort.cap to at least 150",
    ),
    "an accountant that does not know the event": (
        job(**PRIVATE, cohort=Cohort(population=60, sampler="fixed", size=20)), {},
        "PLD of dp-accounting", "does not know", "another sampler",
    ),
    "an epsilon that the noise does not keep": (
        job(privacy=replace(GAUSSIAN, epsilon=0.5), aggregation=UNIFORM), None,
        "CentralGaussian", "the job promises 0.5", "found from epsilon",
    ),
    "no delta": (
        job(privacy=replace(GAUSSIAN, delta=0.0), aggregation=UNIFORM), None,
        "privacy.delta", "no promise", "at most",
    ),
    "a delta of one client": (
        job(privacy=replace(GAUSSIAN, delta=1 / 6), aggregation=UNIFORM), None,
        "privacy.delta", "no promise", "at most",
    ),
    "no private clip": (
        job(privacy=replace(GAUSSIAN, clip=0.0), aggregation=UNIFORM), None,
        "privacy.clip", "missing", "norm bound",
    ),
    "neither noise nor epsilon": (
        job(privacy=replace(GAUSSIAN, noise_multiplier=0.0), aggregation=UNIFORM), None,
        "privacy", "neither epsilon nor noise_multiplier", "privacy.epsilon",
    ),
    "two clips": (
        job(privacy=GAUSSIAN, aggregation=replace(UNIFORM, clip=1.0)), None,
        "aggregation.clip", "second norm bound", "leave",
    ),
    "privacy in words only": (
        job(privacy=Privacy(epsilon=8.0, delta=1e-5)), None,
        "privacy", "epsilon and delta without a mechanism", 'mechanism = "gaussian"',
    ),
    "a word of another sampler": (
        job(cohort=Cohort(population=6, rate=0.5)), None,
        "cohort.rate", "means nothing", 'sampler = "poisson"',
    ),
    "an unknown word": (
        job(cohort=Cohort(population=6, sampler="possion")), None,  # type: ignore[arg-type]
        "cohort.sampler", "not known", "write poisson",
    ),
    "a quorum that nobody can reach": (
        job(rounds=Rounds(count=1, quorum=7)), None,
        "rounds.quorum", "never arrive", "at most 6",
    ),
    "a quorum below nothing": (
        job(rounds=Rounds(count=1, quorum=-1)), None, "rounds.quorum", "no round", "at least 1",
    ),
    "no rounds": (
        job(rounds=Rounds(count=0)), None, "rounds.count", "train nothing", "at least 1",
    ),
    "nobody": (
        job(cohort=Cohort(population=0)), None, "Everyone", "nobody to draw", "population",
    ),
    "more than everybody": (
        job(cohort=Cohort(population=6, sampler="fixed", size=7)), None,
        "FixedSize", "cannot be drawn", "cohort.size",
    ),
    "no probability": (
        job(cohort=Cohort(population=6, sampler="poisson")), None,
        "Poisson", "not the probability", "cohort.rate",
    ),
    "fewer than are counted": (
        job(cohort=Cohort(population=6, sampler="fixed", size=3, over_selection=0.5)), None,
        "FixedSize", "fewer than count", "over_selection",
    ),
    "masks": (
        job(secure_aggregation=SecureAggregation(enabled=True)), None,
        "Mask", "masks over floats", "quantization.step",
    ),
    "a watched metric that does not exist": (
        job(rounds=Rounds(count=9, patience=2, watch="accurracy")), None,
        "rounds.watch", "none of train_loss, loss, accuracy, auroc", "patience = 0",
    ),
    "a watched metric that stays at home": (
        job(**PRIVATE, rounds=Rounds(count=9, patience=2)), None,
        "rounds.watch", "no metrics leave", "patience = 0",
    ),
    "a high tier without privacy": (
        job(risk_tier="high"), None, 'risk_tier = "high"', "differential privacy", "gaussian",
    ),
    "a high tier with much epsilon": (
        job(privacy=replace(GAUSSIAN, noise_multiplier=0.5), aggregation=UNIFORM, risk_tier="high"),
        None, 'risk_tier = "high"', "demands epsilon <= 10", "privacy.epsilon",
    ),
    "a high tier with a quorum of two": (
        job(**PRIVATE, risk_tier="high", rounds=Rounds(count=3, quorum=2)), None,
        'risk_tier = "high"', "at least 3 updates", "rounds.quorum",
    ),
    "a medium tier with a quorum of one": (
        job(rounds=Rounds(count=3, quorum=1)), None,
        'risk_tier = "medium"', "at least 2 updates", "rounds.quorum",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_what_does_not_fit_is_refused_with_its_fix(row):
    of, changed, part, because, fix = ROWS[row]
    its = None if changed is None else parts(of, **changed)
    errors = refusal(of, its, DpAccounting("pld") if "accountant" in row else RDP)
    found = [e for e in errors if e.part.startswith(part) and because in e.because]
    assert found, [str(e) for e in errors]
    assert fix in found[0].fix
    assert found[0].exit_code == 2


@pytest.mark.parametrize("row", ROWS)
def test_the_fix_of_one_mistake_is_not_hidden_by_others(row):
    """Every row is at most two reasons away from a plan: nothing is refused for its neighbours."""
    of, changed, *_ = ROWS[row]
    its = None if changed is None else parts(of, **changed)
    errors = refusal(of, its, DpAccounting("pld") if "accountant" in row else RDP)
    assert len(errors) <= 4, [str(e) for e in errors]
    assert len({(e.part, e.because) for e in errors}) == len(errors)


def test_the_smallest_legal_step_that_is_named_is_legal():
    named = 2.794e-9
    compile_plan(job(**{**QUANTIZED, "quantization": Quantization(step=named)}), FACTS)
    with pytest.raises(PlanRefused):
        compile_plan(job(**{**QUANTIZED, "quantization": Quantization(step=2.793e-9)}), FACTS)


def test_the_smallest_legal_cap_that_is_named_is_legal():
    compile_plan(
        job(cohort=Cohort(population=10_000, sampler="poisson", rate=0.01, cap=150)), FACTS
    )


def test_all_reasons_are_told_at_once():
    errors = refusal(
        job(
            rounds=Rounds(count=0, quorum=9),
            cohort=Cohort(population=6, rate=0.1),
            privacy=Privacy(mechanism="gaussian", epsilon=1.0),
            aggregation=Aggregation(rule="median"),
            risk_tier="high",
        )
    )
    assert {e.part.split("(")[0] for e in errors} >= {
        "rounds.count",
        "rounds.quorum",
        "cohort.rate",
        "privacy.clip",
        "privacy.delta",
        "CentralGaussian",
    }
    text = str(PlanRefused(errors))
    assert all(e.fix in text for e in errors)
    assert f"{len(errors)} reasons" in text


def test_a_robust_rule_says_what_it_tolerates():
    claims = compile_plan(job(aggregation=Aggregation(rule="median"), rounds=FIVE), FACTS).claims
    assert any("fewer than half" in c for c in claims)


def test_a_bound_that_nobody_checks_is_not_claimed_as_checked():
    """Under masks the coordinator cannot check a clip, whatever the clip said before."""
    of = job(aggregation=Aggregation(weighting="uniform", clip=1.0))
    open_plan = check(of, parts(of), FACTS, RDP)
    hidden = check(of, parts(of, stages=(*CLIPPED, Hide())), FACTS, RDP)
    assert any("the coordinator checks the bound" in c for c in open_plan.claims)
    assert not any("the coordinator checks the bound" in c for c in hidden.claims)
    assert any("a bad client can exceed it" in c for c in hidden.claims)
    assert any("only the sum" in c for c in hidden.claims)


def test_an_event_that_no_accountant_knows_is_refused_by_both():
    class Strange(CentralGaussian):
        def infer(self, spec):
            return compose(super().infer(spec), PoissonSampled(0.5, Laplace(1.0)))

    of = job(**PRIVATE, cohort=Cohort(population=6, sampler="poisson", rate=0.9))
    its = parts(of, mechanism=Strange(2.0))
    for method in ("rdp", "pld"):
        errors = refusal(of, its, DpAccounting(method))
        assert any("does not know" in e.because for e in errors)


def test_a_stage_in_the_wrong_place_is_named_with_its_neighbour():
    errors = refusal(job(), parts(job(), stages=(Odd(Role.ENCODE), Odd(Role.NOISE))))
    assert "NOISE comes before ENCODE" in errors[0].because


def test_epsilon_is_infinite_without_a_mechanism():
    assert math.isinf(compile_plan(job(), FACTS).epsilon)
