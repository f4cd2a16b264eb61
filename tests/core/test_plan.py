"""Plans: what they say, and what their digest covers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.algorithms import fedadam, fedavg
from hansa.assembly import build
from hansa.core import canonical, events
from hansa.core.events import Gaussian, NonPrivate, PoissonSampled, SelfComposed
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.metrics import Accuracy, Loss
from hansa.core.plan import FORMAT, check, whole_job
from hansa.core.spec import Divisor, Domain, Held
from hansa.core.vector import Schema, Tensor
from hansa.privacy.accountants import DpAccounting
from hansa.recipes import compile_plan, resolve
from tests.support.toy import FACTS, job, plan

GAUSSIAN = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5)
UNIFORM = Aggregation(weighting="uniform")
PLAN = plan()

FIVE = Rounds(count=3, quorum=5)
CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "task": {"task": "task:Other"},
    "risk tier": {"risk_tier": "low"},
    "seed": {"seed": 1},
    "evaluate every": {"evaluate_every": 2},
    "rounds": {"rounds": Rounds(count=4)},
    "deadline": {"rounds": Rounds(count=3, deadline=60)},
    "quorum": {"rounds": Rounds(count=3, quorum=5)},
    "attempts": {"rounds": Rounds(count=3, attempts=4)},
    "patience": {"rounds": Rounds(count=3, patience=1)},
    "watch": {"rounds": Rounds(count=3, watch="accuracy")},
    "population": {"cohort": Cohort(population=7)},
    "sampler": {"cohort": Cohort(population=6, sampler="fixed", size=6)},
    "algorithm": {"algorithm": fedadam(client_lr=0.5, local_epochs=2, batch_size=8)},
    "client work": {"algorithm": fedavg(client_lr=0.4, local_epochs=2, batch_size=8)},
    "server": {"algorithm": fedavg(client_lr=0.5, local_epochs=2, batch_size=8, server_lr=0.9)},
    "rule": {"aggregation": Aggregation(rule="median"), "rounds": FIVE},
    "another rule": {"aggregation": Aggregation(rule="krum"), "rounds": FIVE},
    "how many are bad": {"aggregation": Aggregation(rule="krum", bad=0.21), "rounds": FIVE},
    "mixing": {"aggregation": Aggregation(rule="krum", mixing="nearest"), "rounds": FIVE},
    "whom it trusts": {"aggregation": Aggregation(rule="fltrust", trusted="a"), "rounds": FIVE},
    "another trusted one": {
        "aggregation": Aggregation(rule="fltrust", trusted="b"),
        "rounds": FIVE,
    },
    "weighting": {"aggregation": UNIFORM},
    "max weight": {"aggregation": Aggregation(max_weight=10)},
    "clip": {"aggregation": Aggregation(weighting="uniform", clip=1.0)},
    "privacy": {"aggregation": UNIFORM, "privacy": GAUSSIAN},
    "noise": {"aggregation": UNIFORM, "privacy": replace(GAUSSIAN, noise_multiplier=2.1)},
    "delta": {"aggregation": UNIFORM, "privacy": replace(GAUSSIAN, delta=1e-6)},
    "quantization": {
        "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=9),
        "quantization": Quantization(step=1e-5),
    },
}


def test_every_word_of_a_job_is_in_the_digest():
    digests = {name: plan(**words).digest for name, words in CHANGES.items()}
    digests["as it is"] = PLAN.digest
    assert len(set(digests.values())) == len(digests), digests


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, digest="1" * 64),
        replace(FACTS, metrics=(Loss(),)),
        replace(FACTS, metrics=(Loss(), Accuracy(), replace(FACTS.metrics[2], bins=9))),  # type: ignore[type-var]
        replace(FACTS, schema=Schema((*FACTS.schema.tensors, Tensor("more", (1,))))),
    ],
)
def test_every_fact_of_the_task_is_in_the_digest(facts):
    assert compile_plan(job(), facts).digest != PLAN.digest


def test_what_was_proved_is_in_the_digest():
    """The quorum and the parts, not only the words that they came from."""
    of = job()
    its = build(of)
    same = check(of, its, FACTS, DpAccounting("rdp"))
    assert same.digest == PLAN.digest
    other = check(of, replace(its, stages=its.stages * 1 + ()), FACTS, DpAccounting("rdp"))
    assert other.digest == PLAN.digest
    from hansa.aggregators.robust import Median

    five = job(rounds=FIVE)
    mean = check(five, build(five), FACTS, DpAccounting("rdp"))
    median = check(five, replace(build(five), aggregator=Median()), FACTS, DpAccounting("rdp"))
    assert median.digest != mean.digest
    default = job(rounds=Rounds(count=3))
    explicit = job(rounds=Rounds(count=3, quorum=4))
    assert compile_plan(default, FACTS).quorum == compile_plan(explicit, FACTS).quorum == 4


def test_the_digest_is_the_hash_of_what_sites_approve():
    """By hand, so that nothing is left out where two facts happen to say the same."""
    for of in (PLAN, plan(**CHANGES["quantization"])):
        approved = {
            "format": FORMAT,
            "job": of.job,
            "task": of.task,
            "trail": of.trail,
            "event": of.event,
            "relation": of.relation,
            "quorum": of.quorum,
        }
        assert of.digest == canonical.digest(approved)


def test_the_folder_is_nobodys_business():
    assert plan(folder=Path("/somewhere/else")).digest == PLAN.digest
    assert plan(folder=None).digest == PLAN.digest


def test_whole_numbers_mean_the_same_as_floats():
    ints = plan(
        rounds=Rounds(count=3, deadline=60),
        aggregation=Aggregation(max_weight=10),
        algorithm=fedavg(client_lr=1, local_epochs=2, server_lr=1),
    )
    floats = plan(
        rounds=Rounds(count=3, deadline=60.0),
        aggregation=Aggregation(max_weight=10.0),
        algorithm=fedavg(client_lr=1.0, local_epochs=2, server_lr=1.0),
    )
    assert ints.digest == floats.digest


def test_compiling_again_gives_the_same_digest():
    assert plan().digest == PLAN.digest


def test_a_resolved_job_compiles_to_the_same_plan():
    of = job(privacy=replace(GAUSSIAN, noise_multiplier=0.0, epsilon=6.0), aggregation=UNIFORM)
    one = compile_plan(of, FACTS)
    assert one.job.privacy.noise_multiplier > 0
    assert compile_plan(one.job, FACTS).digest == one.digest
    assert resolve(of) == one.job
    assert resolve(one.job) == one.job


_ELSEWHERE = """
from tests.support.toy import plan
from tests.core.test_plan import CHANGES
print(plan().digest)
for words in CHANGES.values():
    print(plan(**words).digest)
"""


def test_another_process_with_other_hashes_finds_the_same_digests():
    outputs, path = set(), os.pathsep.join([".", *sys.path])
    for seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        outputs.add(done.stdout)
    here = "".join(f"{p.digest}\n" for p in (PLAN, *(plan(**w) for w in CHANGES.values())))
    assert outputs == {here}


# ------------------------------------------------------------------ what a plan says


def test_the_trail_is_the_proof_part_by_part():
    clipped = plan(aggregation=Aggregation(weighting="uniform", clip=0.5))
    parts = [step.part.split("(")[0] for step in clipped.trail]
    assert parts == ["LocalSGD", "Weight", "Clip", "Mean", "NoNoise"]
    l2 = [step.facts["delta"].l2 for step in clipped.trail]
    assert l2[1] == float("inf")
    assert l2[2] == 0.5
    assert l2[3] == pytest.approx(0.5)
    assert clipped.trail[-1].facts == clipped.facts
    assert clipped.facts["delta"].held is Held.CHECKED


def test_the_facts_at_the_gate_are_those_that_scale_the_noise():
    private = plan(privacy=GAUSSIAN, aggregation=UNIFORM)
    assert private.facts["delta"].divisor is Divisor.FIXED
    assert private.facts["delta"].domain is Domain.REAL
    assert private.round_event == Gaussian(2.0)
    assert private.event == SelfComposed(Gaussian(2.0), 3)
    assert private.charges == 3
    assert private.private
    assert not private.measures
    assert private.facts["metrics"].size == 0


def test_metrics_of_a_private_job_are_charged_with_every_round_and_once_more():
    measured = plan(
        privacy=replace(GAUSSIAN, metrics_clip=9.0, metrics_noise_multiplier=3.0),
        aggregation=UNIFORM,
        cohort=Cohort(population=60, sampler="poisson", rate=0.2),
    )
    both = events.Composed((Gaussian(2.0), Gaussian(3.0)))
    assert measured.round_event == PoissonSampled(0.2, both)
    assert measured.event == SelfComposed(PoissonSampled(0.2, both), 4)
    assert measured.charges == 4
    assert measured.measures
    assert measured.facts["metrics"].l2 == pytest.approx(9.0)
    assert whole_job(measured.job, measured.parts.sampler, measured.round_event) == measured.event


def test_a_plan_without_privacy_reveals_everything():
    assert isinstance(PLAN.event, SelfComposed)
    assert NonPrivate() in PLAN.event.event.events  # type: ignore[union-attr]
    assert not PLAN.private
    assert PLAN.measures


def test_metric_values_come_from_sums():
    sums = [6.0, 3.0, 5.0, 2.0, 1.0, 2.0, *[0.0] * 16]
    import numpy as np

    found = PLAN.metric_values(np.array(sums))
    assert found == {"train_loss": 2.0, "loss": 2.5, "accuracy": 0.5, "auroc": None}
    assert PLAN.metric_values(np.zeros(0)) == {}


def test_the_cost_counts_bytes():
    d, layout = FACTS.schema.size, PLAN.layout.size
    assert PLAN.cost.down_bytes == 4 * d
    assert PLAN.cost.up_bytes == 4 * layout
    assert PLAN.cost.coordinator_bytes == 4 * d + 8 * layout + 4 * layout
    ring = plan(**CHANGES["quantization"])
    assert ring.cost.coordinator_bytes == 4 * d + 4 * layout + 4 * layout
    small = plan(
        aggregation=Aggregation(weighting="uniform", clip=1.0, max_weight=9),
        quantization=Quantization(step=1e-2, bits=16),
    )
    assert small.cost.up_bytes == 2 * layout
    median = plan(aggregation=Aggregation(rule="median"), rounds=FIVE)
    assert median.cost.coordinator_bytes == 4 * d + (8 + 6 * 4 + 4) * layout


@pytest.mark.parametrize(
    ("words", "claims"),
    [
        ({}, ["No differential privacy", "arbitrarily far", "of each client", "exact on a grid"]),
        (
            {"aggregation": UNIFORM, "privacy": GAUSSIAN},
            [
                "epsilon",
                "delta 1e-05",
                "one client",
                "one unit more or less",
                "all 6 clients",
                "PLD of dp-accounting",
                "central",
                "0.333 clip norms",
                "Not hidden",
                "No metrics leave",
            ],
        ),
        (
            {
                "aggregation": UNIFORM,
                "privacy": GAUSSIAN,
                "cohort": Cohort(population=60, sampler="fixed", size=12),
            },
            ["without replacement, 12 of 60", "one unit replaced", "RDP", "0.333 clip norms"],
        ),
        (CHANGES["quantization"], ["modulo 2**32", "scaled down to norm", "at most 1"]),
        ({**CHANGES["rule"]}, ["fewer than half", "not on their order"]),
        (
            {
                "aggregation": UNIFORM,
                "privacy": replace(GAUSSIAN, metrics_clip=9.0, metrics_noise_multiplier=3.0),
            },
            ["noise of their own"],
        ),
    ],
)
def test_claims_are_derived_from_facts(words, claims):
    text = "\n".join(plan(**words).claims)
    for claim in claims:
        assert claim in text
    assert "at least" in text


def test_the_default_quorum_is_more_than_half_of_the_expected_cohort():
    sampled = plan(cohort=Cohort(population=100, sampler="poisson", rate=0.25))
    assert sampled.quorum == 13
    assert sampled.facts["delta"].quorum == 13
    assert sampled.facts["delta"].cohort == 100


@pytest.mark.parametrize(("population", "quorum", "said"), [(12, 9, True), (12, 10, False)])
def test_a_sum_of_few_is_said_to_show_examples(population, quorum, said):
    found = plan(
        cohort=Cohort(population=population),
        rounds=Rounds(count=2, quorum=quorum),
        aggregation=Aggregation(clip=1.0, max_weight=20.0),
        quantization=Quantization(step=1e-3),
        secure_aggregation=SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1),
    )
    text = " ".join(found.claims)
    assert (f"A sum may be of {quorum} updates" in text) is said
