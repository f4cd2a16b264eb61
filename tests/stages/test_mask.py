"""The mask as a stage: what it needs, what it changes, what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hansa.core.job import Aggregation, Cohort, Job, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Role
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.errors import PlanError, PlanRefused
from hansa.stages.mask import Mask, mask_of
from tests.support.toy import job, plan

RING = UpdateSpec(
    size=9, cohort=10, domain=Domain.RING, bits=24, l2=5.0, peak=5.0, held=Held.CHECKED, quorum=6
)

HIDDEN = {
    "aggregation": Aggregation(clip=1.0, max_weight=64),
    "quantization": Quantization(step=1e-5),
    "secure_aggregation": SecureAggregation(enabled=True),
}


def hidden(**words: object) -> Job:
    return job(**{**HIDDEN, **words})


def test_only_the_sum_can_be_read_and_nobody_checks_a_bound() -> None:
    after = Mask().infer(RING)
    assert after == replace(RING, reader=Reader.SUM, held=Held.HONEST)
    assert Mask().role is Role.HIDE


@pytest.mark.parametrize(
    ("mask", "spec", "because", "fix"),
    [
        (Mask(), replace(RING, domain=Domain.REAL), "floats", "quantization.step"),
        (Mask(), replace(RING, quorum=1), "sum of one update", "rounds.quorum"),
        (Mask(corrupt=0.5, dropouts=0.5), RING, "need a threshold of 8", "fewer corrupt"),
        (Mask(corrupt=1.0), RING, "make no sense", "below 1"),
        (Mask(), replace(RING, cohort=2, quorum=2, size=1), None, None),
    ],
)
def test_what_it_needs(mask: Mask, spec: UpdateSpec, because: str | None, fix: str | None) -> None:
    if because is None or fix is None:
        mask.infer(spec)
        return
    with pytest.raises(PlanError) as caught:
        mask.infer(spec)
    assert because in caught.value.because
    assert fix in caught.value.fix


def test_a_ring_that_may_overflow_is_refused_with_the_smallest_legal_step() -> None:
    with pytest.raises(PlanRefused) as caught:
        plan(**{**HIDDEN, "quantization": Quantization(step=1e-9)})
    (error,) = [e for e in caught.value.errors if "overflow" in e.because]
    step = float(error.fix.split(">= ")[1].split(",")[0])
    plan(**{**HIDDEN, "quantization": Quantization(step=step)})


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_rules_that_need_each_update_are_refused(rule: str) -> None:
    with pytest.raises(PlanRefused) as caught:
        plan(**{**HIDDEN, "aggregation": Aggregation(rule=rule, clip=1.0, max_weight=64)})  # type: ignore[arg-type]
    assert any("only the sum" in e.because or "mask" in e.because for e in caught.value.errors)


def test_the_plan_says_who_learns_what_and_how_many_may_collude() -> None:
    made = plan(**HIDDEN, cohort=Cohort(population=4), rounds=Rounds(count=1, quorum=4))
    words = "\n".join(made.claims)
    assert "only the sum over the cohort" in words
    assert "also if it lies, and as long as at most 1 of the clients collude with it" in words
    assert "3 of each one's 4 holders" in words
    assert "no puppets" in words
    assert mask_of(made) == Mask()
    assert mask_of(plan()) is None


@pytest.mark.parametrize(
    ("population", "quorum", "active", "most"),
    [(4, 4, True, "at most 1 of"), (4, 3, True, "no clients"), (10, 10, True, "at most 1 of"),
     (10, 10, False, "at most 1 of"), (200, 100, True, "at most 10% of the cohort")],
)  # fmt: skip
def test_the_promise_is_that_of_the_worst_cohort(
    population: int, quorum: int, active: bool, most: str
) -> None:
    assert f"as long as {most}" in Mask(active=active).promises(population, quorum)[0]


def test_for_every_small_cohort_the_promised_collusion_is_safe() -> None:
    """Theorem 6.5 of Bonawitz et al.: 2 t > n + corrupt, and the honest survivors reach t."""
    for clients in range(2, 51):
        scheme = Mask().scheme(clients)
        corrupt = 2 * scheme.threshold - clients - 1
        assert 2 * scheme.threshold > clients + corrupt
        assert scheme.threshold <= clients


def test_the_words_of_the_job_are_those_of_the_stage() -> None:
    made = hidden(
        secure_aggregation=SecureAggregation(
            enabled=True, corrupt=0.2, dropouts=0.3, adversary="curious"
        )
    )
    assert mask_of(plan(**{**HIDDEN, "secure_aggregation": made.secure_aggregation})) == Mask(
        0.2, 0.3, active=False
    )
