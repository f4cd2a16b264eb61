"""Advice is computed: each number in it is what the plan it speaks of would really have."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from hansa.core.job import Cohort, Job, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.keys import ReplayKey
from hansa.core.plan import Plan
from hansa.core.vector import Schema, Tensor
from hansa.jobfile import load_job
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.advice import FACTORS, Verdict, advice_on, loudness
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"


def silos(clients: int = 20, rounds: int = 50, epsilon: float = 5.0, **words) -> Job:
    """Silo-level privacy as in the field's warning: 20 silos, 50 rounds, epsilon 5."""
    base = load_job("heart")
    usual = {
        "cohort": Cohort(population=clients),
        "rounds": Rounds(count=rounds),
        "privacy": Privacy(mechanism="gaussian", clip=0.7, epsilon=epsilon, delta=1e-5),
        "quantization": Quantization(),
        "secure_aggregation": SecureAggregation(),
        "aggregation": replace(base.aggregation, weighting="uniform", max_weight=0.0, clip=0.0),
    }
    return replace(base, **{**usual, **words})


def planned(job: Job, size: int = 1000) -> Plan:
    facts = facts_of(job, load_task(job))
    return compile_plan(job, replace(facts, schema=Schema((Tensor("w", (size,)),))))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(silos())


def test_twenty_silos_are_drowned(plan):
    """The case of the field's warning: about a third of the norm bound in each coordinate."""
    noise = loudness(plan)
    assert noise is not None
    assert noise.on_mean == pytest.approx(0.32, abs=0.03)
    assert noise.length == pytest.approx(noise.on_mean * math.sqrt(1000))
    assert noise.best == pytest.approx(math.sqrt(50) / noise.length)
    assert noise.verdict is Verdict.DROWNED
    advice = advice_on(plan)
    assert advice is not None
    assert "will destroy the model" in advice.words[0]
    assert advice.words[0] in " ".join(PAGE.read_text("utf-8").split())
    heads = [words.partition(":")[0] for words in advice.words[1:]]
    assert heads == [
        "More clients",
        "Fewer rounds",
        "Larger epsilon",
        "Fewer parameters",
        "Another unit",
    ]


def test_the_noise_is_that_of_the_mechanism(plan):
    """Draws what a round would add, and measures it."""
    facts = plan.facts["delta"]
    drawn = plan.parts.mechanism.apply(np.zeros(1000), facts, ReplayKey.of_seed(7))
    noise = loudness(plan)
    assert noise is not None
    mean = drawn / plan.parts.sampler.expected / plan.job.privacy.clip
    assert mean.std() == pytest.approx(noise.on_mean, rel=0.12)  # five standard errors
    assert np.linalg.norm(mean) == pytest.approx(noise.length, rel=0.12)


@pytest.mark.parametrize("verdict", Verdict)
def test_verdicts_follow_the_walk_of_the_noise(verdict):
    """Simulated: where noise of all rounds goes, against T steps of the norm bound in a row."""
    sizes = {Verdict.QUIET: 4, Verdict.LOUD: 100, Verdict.DROWNED: 4000}
    plan = planned(silos(), sizes[verdict])
    noise, rng = loudness(plan), np.random.default_rng(3)
    assert noise is not None
    walk = rng.normal(0.0, noise.on_mean, (50, sizes[verdict])).sum(axis=0)
    far = float(np.linalg.norm(walk))
    assert noise.verdict is verdict
    assert (far >= 50) is (verdict is Verdict.DROWNED)
    assert (noise.length > 1) is (verdict is not Verdict.QUIET)


def test_quiet_noise_gets_no_alarm():
    advice = advice_on(planned(silos(), 4))
    assert advice is not None
    assert len(advice.words) == 1
    assert "destroy" not in advice.words[0]


def test_without_privacy_there_is_nothing_to_advise():
    assert advice_on(planned(silos(privacy=Privacy()))) is None


# ------------------------------------------------------------------ alternatives, compiled


def told(plan: Plan, head: str) -> str:
    advice = advice_on(plan)
    assert advice is not None
    (words,) = [w for w in advice.words if w.startswith(head)]
    return words


def numbers(words: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", words)]


def test_more_clients_leave_the_noise_that_is_told(plan):
    many, _, small, _, enough, _ = numbers(told(plan, "More clients"))
    other = loudness(planned(silos(clients=int(many))))
    assert other is not None
    assert other.on_mean == pytest.approx(small, rel=0.05)
    one = loudness(planned(silos(clients=int(enough))))
    assert one is not None
    assert one.length == pytest.approx(1.0, rel=0.01)


@dataclass(frozen=True, slots=True)
class Local:
    """A mechanism of nothing but its word that each client protects itself."""

    trust_model: str = "local"


def test_where_each_client_protects_itself_noise_falls_with_the_root(plan):
    """Shares of independent noise add up in squares: ten times the clients, root of ten less."""
    delta = replace(plan.facts["delta"], noise=3.0)
    parts: Any = replace(plan.parts, mechanism=Local())
    local = replace(plan, parts=parts, facts={**plan.facts, "delta": delta})
    noise = loudness(local)
    assert noise is not None
    rng = np.random.default_rng(5)
    drawn = rng.normal(0.0, 3.0, (200, 10_000)).mean(axis=0) / 0.7
    many, _, small, _, enough, _ = numbers(told(local, "More clients"))
    assert many == 200
    assert drawn.std() == pytest.approx(small, rel=0.05)
    assert enough == math.ceil(1000 * (3.0 / 0.7) ** 2)


def test_fewer_rounds_leave_the_noise_that_is_told(plan):
    fewer, rounds, small, long = numbers(told(plan, "Fewer rounds"))[:4]
    assert rounds == 50
    other = loudness(planned(silos(rounds=int(fewer))))
    assert other is not None
    assert other.on_mean == pytest.approx(small, rel=0.05)
    assert other.length == pytest.approx(long, rel=0.05)


def test_a_larger_epsilon_costs_what_is_told():
    plan = planned(silos(), 40)
    (_, price) = numbers(told(plan, "Larger epsilon"))
    noise = loudness(plan)
    assert noise is not None
    quieter = plan.job.privacy.noise_multiplier / noise.length
    exact = planned(
        silos(privacy=replace(plan.job.privacy, epsilon=0.0, noise_multiplier=quieter)), 40
    )
    assert exact.epsilon <= price <= exact.epsilon * 1.2
    one = loudness(exact)
    assert one is not None
    assert one.length == pytest.approx(1.0, rel=1e-3)
    assert "next to nothing" not in told(plan, "Larger epsilon")
    assert "next to nothing" in told(planned(silos()), "Larger epsilon")


def test_fewer_parameters_leave_the_noise_that_is_told(plan):
    (_, fewer, _, _) = (0, *numbers(told(plan, "Fewer parameters")))
    other = loudness(planned(silos(), int(fewer)))
    assert other is not None
    assert 0.8 < other.length <= 1.0


def test_another_unit_is_offered_in_words_that_a_job_can_use(plan):
    words = told(plan, "Another unit")
    assert "use secure aggregation" in words
    for name in ("unit", "mechanism"):
        (word,) = re.findall(rf'{name} = "(\w+)"', words)
        assert word in get_args(get_type_hints(Privacy)[name])


def test_weights_below_their_bound_are_told():
    base = silos().aggregation
    weighed = silos(aggregation=replace(base, weighting="examples", max_weight=64.0))
    assert "up to 64 examples" in told(planned(weighed), "A client counts")
    even, uneven = loudness(planned(silos())), loudness(planned(weighed))
    assert even is not None
    assert uneven is not None
    assert uneven.on_mean == pytest.approx(even.on_mean, rel=1e-3)


def test_shares_of_noise_add_up():
    """Distributed noise is a little louder than central noise for the same epsilon, not quieter."""
    masks = SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1)
    privacy = Privacy(mechanism="distributed", clip=0.7, epsilon=5.0, delta=1e-5)
    shared = planned(silos(privacy=privacy, secure_aggregation=masks, quantization=Quantization()))
    noise, central = loudness(shared), loudness(planned(silos()))
    assert noise is not None
    assert central is not None
    assert central.on_mean < noise.on_mean < 2 * central.on_mean
    assert noise.on_sum == pytest.approx(20 * noise.on_mean)


# ------------------------------------------------------------------ rounds


def test_the_table_is_an_upper_bound_of_what_other_plans_cost(plan):
    advice = advice_on(plan)
    assert advice is not None
    assert [row.rounds for row in advice.rounds] == [round(50 * f) for f in FACTORS]
    noise = plan.job.privacy.noise_multiplier
    exact = DpAccounting("pld")
    for row in advice.rounds:
        privacy = replace(plan.job.privacy, epsilon=0.0, noise_multiplier=noise)
        other = planned(silos(rounds=row.rounds, privacy=privacy))
        pld = exact.epsilon(other.event, 1e-5, plan.relation)
        assert row.epsilon is not None
        assert row.approximate is (row.rounds != 50)
        assert pld * (1 - 1e-9) <= row.epsilon <= pld * 1.2
        if row.approximate:
            bound = DpAccounting("rdp").epsilon(other.event, 1e-5, plan.relation)
            assert row.epsilon == pytest.approx(bound, rel=1e-9)


def test_an_event_that_the_fast_accountant_does_not_know_has_no_row():
    cut = Cohort(population=1000, sampler="poisson", rate=0.02, cap=60)
    privacy = Privacy(mechanism="gaussian", clip=0.7, noise_multiplier=2.0, delta=1e-5)
    advice = advice_on(planned(silos(cohort=cut, privacy=privacy, rounds=10)))
    assert advice is not None
    assert [row.epsilon is None for row in advice.rounds] == [r.rounds != 10 for r in advice.rounds]


def test_it_is_fast():
    cohort = Cohort(population=1000, sampler="poisson", rate=0.1)
    plan = planned(silos(cohort=cohort, rounds=400), 100_000)
    started = time.process_time()
    assert advice_on(plan) is not None
    assert time.process_time() - started < 2.0


def test_json_holds_the_same(plan):
    advice = advice_on(plan)
    assert advice is not None
    said: Any = advice.to_json()
    assert said["words"] == list(advice.words)
    assert said["noise"]["verdict"] == "drowned"
    assert [row["rounds"] for row in said["rounds"]] == [12, 25, 50, 100, 200]
