"""Going back to the last accepted model: the decision, the rounds around it, what a plan says."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import fedavgm
from hansa.core import canonical
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Defend, Privacy, Rounds, TaskFacts
from hansa.core.metrics import Accuracy, Better, Loss
from hansa.core.rollback import Accepted, direction, judged
from hansa.core.round import RoundRecord, TrainState, run_round
from hansa.core.train import initial_state, train
from hansa.core.vector import sha256
from hansa.engines.inline import InlineEngine
from hansa.errors import PlanRefused
from hansa.privacy.ledger import MemoryLedger
from hansa.recipes import compile_plan
from tests.support.spoiled import Spoiled
from tests.support.toy import FACTS, TOY, data, job, plan, run, start, world

BAD = "client-0003"
WORDS: dict[str, Any] = {
    "rounds": Rounds(count=8, watch="accuracy"),
    "aggregation": Aggregation(clip=30.0, max_weight=40),
    "defend": Defend(rollback=0.1),
}
GAUSSIAN = Privacy(
    mechanism="gaussian",
    clip=1.0,
    noise_multiplier=2.0,
    delta=1e-5,
    metrics_clip=30.0,
    metrics_noise_multiplier=0.01,
)

# ------------------------------------------------------------------ the decision

OLD = Accepted(3, np.zeros(1, np.float32), "old", ())
NAN, INF = math.nan, math.inf
TABLE = [
    # accepted, model, value, best, better, rejected
    (None, "new", 0.1, 0.9, Better.HIGHER, False),
    (None, "new", NAN, 0.9, Better.HIGHER, False),
    (OLD, "new", None, 0.9, Better.HIGHER, False),
    (OLD, "old", 0.1, 0.9, Better.HIGHER, False),
    (OLD, "old", NAN, 0.9, Better.HIGHER, False),
    (OLD, "new", NAN, 0.9, Better.HIGHER, True),
    (OLD, "new", INF, 0.9, Better.HIGHER, True),
    (OLD, "new", -INF, 0.9, Better.LOWER, True),
    (OLD, "new", INF, None, Better.LOWER, True),
    (OLD, "new", 7.0, None, Better.LOWER, False),
    (OLD, "new", 0.65, 0.9, Better.HIGHER, False),  # worse by the tolerance itself
    (OLD, "new", 0.64, 0.9, Better.HIGHER, True),
    (OLD, "new", 0.95, 0.9, Better.HIGHER, False),
    (OLD, "new", 0.5, 0.25, Better.LOWER, False),
    (OLD, "new", 0.51, 0.25, Better.LOWER, True),
    (OLD, "new", 0.1, 0.9, Better.LOWER, False),
]


@pytest.mark.parametrize(("accepted", "model", "value", "best", "better", "rejected"), TABLE)
def test_which_models_are_rejected(accepted, model, value, best, better, rejected):
    assert judged(accepted, model, value, best, 0.25, better) is rejected


def test_a_larger_tolerance_rejects_no_more_and_a_worse_value_no_less():
    numbers = [-2.0, -0.5, 0.0, 0.3, 0.9, 4.0]
    for best, value, worse in itertools.product(numbers, numbers, [0.0, 0.1, 5.0]):
        for tolerance, more in itertools.product([0.1, 0.5, 3.0], [0.0, 1.0]):
            low, high = Better.LOWER, Better.HIGHER
            strict = judged(OLD, "new", value, best, tolerance, low)
            assert judged(OLD, "new", value, best, tolerance + more, low) <= strict
            assert judged(OLD, "new", value + worse, best, tolerance, low) >= strict
            assert judged(OLD, "new", -value, -best, tolerance, high) == strict


def test_the_metric_says_which_way_is_better():
    metrics = (Loss(), Accuracy())
    assert direction(metrics, "loss") is Better.LOWER
    assert direction(metrics, "accuracy") is Better.HIGHER


# ------------------------------------------------------------------ rounds


def trained(of, bad: set[int], **changed: Any) -> tuple[TrainState, list[RoundRecord]]:
    """A whole run in which one client attacks in some rounds."""
    place = world(of, Spoiled(InlineEngine(TOY, data), BAD, frozenset(bad)), **changed)
    state = run(train(of, initial_state(of, start()), place))
    return state, place.journal.records  # type: ignore[attr-defined]


def test_a_spoiled_round_is_taken_back_with_the_round_that_showed_it():
    state, records = trained(plan(**WORDS), {3})
    [seen] = [record for record in records if record.rejected]
    assert (seen.round, seen.void, len(seen.members)) == (4, False, 6)
    assert seen.model == records[2].model, "what round 3 started from"
    said = seen.rejected
    assert said is not None
    assert (said.metric, said.tolerance, said.back) == ("accuracy", 0.1, 3)
    assert said.value == seen.metrics["accuracy"]
    assert said.best == max(r.metrics["accuracy"] or 0 for r in records[:4])
    assert [(r.purpose, r.round) for r in records] == [
        *((Purpose.TRAIN, number) for number in range(8)),
        (Purpose.EVALUATE, 8),
    ]
    _, whole = trained(plan(**WORDS), set())
    assert [r.model for r in records[:3]] == [r.model for r in whole[:3]]
    assert not any(record.rejected for record in whole)
    assert state.round == 8


def test_the_round_after_starts_from_the_accepted_model_with_its_optimizer_and_its_own_draws():
    """Round 5 is what a state made of the accepted parts gives, under the number 5."""
    of = plan(**{**WORDS, "algorithm": fedavgm(server_momentum=0.5, client_lr=0.5)})
    before: dict[int, TrainState] = {}
    place = world(of, Spoiled(InlineEngine(TOY, data), BAD, frozenset({3})))
    state = initial_state(of, start())
    while state.round < 6:
        before[state.round] = state
        state, _ = run(run_round(of, state, place))
    back = before[5]
    assert back.model == before[3].model
    assert sha256(back.params) == back.model
    for now, then in zip(back.server, before[3].server, strict=True):
        assert np.array_equal(now, then)
    assert len(back.server) == 1
    assert back.server[0].any()
    assert (back.attempt, back.best) == (0, before[4].best)
    assert back.accepted is not None
    assert back.accepted.round == 3
    built = replace(before[3], round=5, stale=back.stale, best=back.best)
    again, _ = run(run_round(of, built, world(of)))
    assert again.model == state.model
    assert state.accepted is not None
    assert state.accepted.round == 3, "a model that was judged is not judged again"


def test_every_round_is_charged_once_whatever_is_taken_back():
    of = plan(
        rounds=Rounds(count=6, watch="loss"),
        aggregation=Aggregation(weighting="uniform"),
        privacy=replace(GAUSSIAN, noise_multiplier=9.0),
        defend=Defend(rollback=1e-3),
    )
    ledger = MemoryLedger(of.charges)
    _, records = trained(of, set(), ledger=ledger)
    assert sum(record.rejected is not None for record in records) >= 2, "noise rejects, too"
    assert ledger.spent == of.charges == 7


def test_the_last_model_is_judged_and_the_job_ends_with_an_accepted_one():
    state, records = trained(plan(**WORDS), {7})
    assert [r.round for r in records if r.rejected] == [8]
    last = records[-1]
    assert last.purpose is Purpose.EVALUATE
    assert state.model == last.model == records[6].model != records[7].model
    assert sha256(state.params) == state.model
    assert (state.round, state.attempt) == (8, 0)


def test_rounds_that_do_not_measure_judge_nothing_and_several_are_taken_back_at_once():
    """Round 4 is bad; round 6 measures it; rounds 3, 4, 5 and 6 are gone."""
    _, records = trained(plan(**WORDS, evaluate_every=3), {4})
    [seen] = [record for record in records if record.rejected]
    assert (seen.round, seen.model) == (6, records[2].model)
    assert seen.rejected is not None
    assert seen.rejected.back == 3
    assert all(r.metrics["accuracy"] is None for r in records if r.round % 3 and r.round < 8)


def test_noise_alone_judges_nothing():
    """Sums of a round that measures nothing are noise, where there is noise: that is no value."""
    of = plan(
        rounds=Rounds(count=5, watch="accuracy"),
        aggregation=Aggregation(weighting="uniform"),
        privacy=GAUSSIAN,
        defend=Defend(rollback=50.0),
        evaluate_every=2,
    )
    _, records = trained(of, set())
    values = [record.metrics["accuracy"] for record in records]
    assert [value is None for value in values] == [False, True, False, True, False, False]
    assert [record.metrics["train_loss"] is None for record in records[:5]] == [False] * 5


def test_a_client_that_attacks_in_every_round_costs_every_other_round_and_no_model():
    state, records = trained(plan(**WORDS), set(range(3, 8)))
    assert [r.round for r in records if r.rejected] == [4, 6, 8]
    assert state.model == records[2].model


def test_what_is_no_number_is_rejected_and_is_never_the_best():
    """A metric may divide by what clients counted, so that its value is infinite."""

    class Odds(Loss):
        def value(self, sums):
            loss = super().value(sums)
            return None if loss is None else (math.inf if loss > 0.5 else loss)

    of = plan(**{**WORDS, "rounds": Rounds(count=5)})
    of = replace(of, task=replace(of.task, metrics=(Odds(), *of.task.metrics[1:])))
    first = initial_state(of, start())
    begun, record = run(run_round(of, first, world(of)))
    assert record.metrics["loss"] == math.inf
    assert record.rejected is None, "there is nothing to go back to"
    assert (begun.best, begun.stale) == (None, 1)
    bad = np.full(len(start()), 5.0, np.float32)
    state = replace(begun, params=bad, model=sha256(bad), best=0.4)
    after, record = run(run_round(of, state, world(of)))
    assert record.rejected is not None
    assert record.rejected.value == math.inf
    assert (after.model, after.best, after.round) == (first.model, 0.4, 2)


def test_rejected_models_count_for_patience():
    of = plan(**{**WORDS, "rounds": Rounds(count=30, watch="accuracy", patience=3)})
    state, records = trained(of, set(range(2, 30)))
    assert state.round < 30
    assert any(record.rejected for record in records)
    watched = [r.metrics["accuracy"] or 0.0 for r in records if r.purpose is Purpose.TRAIN]
    best = watched.index(max(watched))
    assert len(watched) == best + 1 + 3


def test_the_norm_bound_goes_back_with_the_model():
    of = plan(
        rounds=Rounds(count=7, watch="loss"),
        aggregation=Aggregation(weighting="uniform"),
        privacy=replace(GAUSSIAN, noise_multiplier=9.0, clip_quantile=0.5, clip_noise=6.0),
        defend=Defend(rollback=1e-3),
    )
    state, place, clips = initial_state(of, start()), world(of), {}
    while state.round < 7:
        clips[state.round] = state.clip
        state, record = run(run_round(of, state, place))
        if record.rejected:
            assert state.clip == clips[record.rejected.back]
            assert state.clip != clips[record.round]
            break
    else:
        raise AssertionError("nothing was rejected")


def test_a_job_without_the_word_keeps_every_model():
    of = plan(**{**WORDS, "defend": Defend()})
    state, records = trained(of, {3, 7})
    assert initial_state(of, start()).accepted is None
    assert not any(record.rejected for record in records)
    assert state.model == records[7].model


# ------------------------------------------------------------------ the plan


def test_a_job_that_does_not_say_it_has_the_text_and_the_digest_that_it_had():
    assert "rollback" not in canonical.dumps(job())
    assert "rollback" in canonical.dumps(job(defend=Defend(rollback=0.1)))
    assert canonical.dumps(Defend()) == '{"is":"Defend","standing":false}'
    said = {**WORDS, "defend": Defend()}
    assert len({plan(**WORDS).digest, plan(**said).digest}) == 2


def test_the_plan_says_when_and_what_is_not_seen():
    text = " ".join(plan(**WORDS).claims)
    assert "the accuracy of the model that the round started from" in text
    assert "worse by more than 0.1" in text
    assert "up to 2 rounds of training" in text
    assert "not a backdoor" in text
    assert "lie about their held-out examples" in text
    assert "noise on the metrics" not in text
    rare = " ".join(plan(**WORDS, evaluate_every=5).claims)
    assert "every 5 rounds" in rare
    assert "up to 6 rounds of training" in rare
    noisy = plan(
        privacy=GAUSSIAN,
        aggregation=Aggregation(weighting="uniform"),
        defend=Defend(rollback=0.1),
    )
    text = " ".join(noisy.claims)
    assert "costs no privacy" in text
    assert "noise on the metrics" in text
    assert not any("Rollback" in claim for claim in plan().claims)


UNIFORM = Aggregation(weighting="uniform")
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "negative": ({"defend": Defend(rollback=-0.1)}, "defend.rollback", "of -0.1 is no tolerance"),
    "infinite": ({"defend": Defend(rollback=math.inf)}, "defend.rollback", "of inf is no"),
    "unknown": ({"rounds": Rounds(count=3, watch="f1")}, "rounds.watch", "none of loss, accuracy"),
    "training": (
        {"rounds": Rounds(count=3, watch="train_loss")},
        "rounds.watch",
        "measured while clients train",
    ),
    "never": ({"evaluate_every": 0}, "evaluate_every", "measures no model before the last"),
    "unmeasured": (
        {
            "privacy": replace(GAUSSIAN, metrics_clip=0.0, metrics_noise_multiplier=0.0),
            "aggregation": UNIFORM,
        },
        "defend.rollback",
        "no metrics leave the sites",
    ),
    "correlated": (
        {
            "privacy": replace(GAUSSIAN, mechanism="correlated"),
            "cohort": Cohort(population=6, sampler="cyclic", separation=3),
            "aggregation": UNIFORM,
        },
        "defend.rollback",
        "noise that is in no model any more",
    ),
    "arrival": (
        {"cohort": Cohort(population=6, sampler="arrival", buffer=2, concurrency=4)},
        "defend.rollback",
        "would go on to arrive",
    ),
}


@pytest.mark.parametrize(("words", "part", "because"), REFUSED.values(), ids=REFUSED)
def test_what_a_plan_refuses(words, part, because):
    with pytest.raises(PlanRefused) as caught:
        plan(**{"defend": Defend(rollback=0.1), **words})
    [error] = [e for e in caught.value.errors if because in e.because]
    assert error.part == part
    assert error.fix
    plan(**{**words, "defend": Defend(), "evaluate_every": 1, "rounds": Rounds(count=3)})


def test_a_task_without_metrics_is_refused():
    silent = TaskFacts(schema=FACTS.schema, metrics=(), digest=FACTS.digest)
    with pytest.raises(PlanRefused, match="the task has no metrics"):
        compile_plan(job(defend=Defend(rollback=0.1)), silent)
    compile_plan(job(), silent)
