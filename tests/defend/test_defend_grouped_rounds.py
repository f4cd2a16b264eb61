"""Standing under masks through the one round loop: who is asked, and what a run remembers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.attacks.engine import AttackedEngine
from hansa.core.job import Aggregation, Defend, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Partial
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState
from hansa.core.standing import Compares, ComparesGroups
from hansa.core.train import initial_state, train
from hansa.defend import GroupScores, State, group_scores
from hansa.defend.judge import Judge, Judged
from hansa.defend.text import judged_of, judged_words
from hansa.engines.inline import InlineEngine
from hansa.engines.masking import groups_of
from hansa.errors import PlanRefused
from hansa.runs import checkpoint
from hansa.runs.checkpoint import Checkpoint
from hansa.simulation import simulate
from hansa.stages.mask import mask_of
from tests.support.grouped import AGAINST, LIAR, TOWNS, WORDS
from tests.support.runs import broken_off, recorded, resumed
from tests.support.toy import TOY, data, job, plan, round_task, run, start, world


def defended(**words: Any) -> Plan:
    return plan(**{**WORDS, **words})


def trained(
    of: Plan, *, attacked: bool = True, masked: bool = False
) -> tuple[TrainState, list[RoundRecord]]:
    inline = InlineEngine(TOY, data, masked=masked)
    engine = AttackedEngine(inline, AGAINST, frozenset({LIAR}), omniscient=False)
    records: list[RoundRecord] = []
    there = world(of, engine if attacked else inline, population=TOWNS)
    return run(train(of, initial_state(of, start()), there, records.append)), records


def test_a_liar_in_masked_sums_is_quarantined_and_not_asked_any_more() -> None:
    state, records = trained(defended())
    judged: Judged = state.standing
    assert judged.standings.quarantined == {LIAR}
    assert [(c.client, c.after) for c in judged.changes] == [
        (LIAR, State.WATCH),
        (LIAR, State.QUARANTINED),
    ]
    since = judged.changes[-1].round
    assert since >= 9
    for record in records:
        assert (LIAR in record.cohort) == (record.round <= since and record is not records[-1])
        assert set(record.members) == set(record.cohort)


def test_masked_and_unmasked_rounds_are_judged_alike() -> None:
    of = defended(rounds=Rounds(count=3, quorum=10))
    (masked, _), (plain, _) = (trained(of, masked=m) for m in (True, False))
    assert masked.model == plain.model
    assert masked.standing == plain.standing
    assert len(masked.standing.standings.evidence) == 3


def test_without_a_liar_the_model_is_that_without_standing() -> None:
    state, _ = trained(defended(), attacked=False)
    assert state.standing.changes == ()
    plain, _ = trained(defended(defend=Defend()), attacked=False)
    assert plain.standing is None
    assert state.model == plain.model


def test_a_watched_client_counts_in_full() -> None:
    """Nothing inside a sum can be made to count half: the model is that of a job without."""
    of, without = (
        defended(rounds=Rounds(count=8, quorum=10), defend=Defend(standing=s))
        for s in (True, False)
    )
    (state, records), (plain, _) = trained(of), trained(without)
    assert state.standing.standings[LIAR].state is State.WATCH
    assert all(LIAR in record.cohort for record in records)
    assert state.model == plain.model


def test_scores_are_those_of_the_means_of_the_round_s_groups() -> None:
    """Recomputed from what each client sends, by NumPy and the pure function."""
    from hansa.core.contribute import contribute
    from hansa.core.standing import GroupLikeness

    of = defended(rounds=Rounds(count=1, quorum=10))
    task, mask = round_task(of), mask_of(of)
    assert mask is not None
    groups = groups_of(task, mask, TOWNS)
    rows = []
    for group in groups:
        sent = [contribute(task, c, TOY, data(c)) for c in group]
        total = np.sum([u.segment("delta").view("i4").astype(np.float64) for u in sent], axis=0)
        rows.append(total * 1e-5 / len(group))
    expected = group_scores(GroupLikeness(tuple(groups), np.stack(rows) @ np.stack(rows).T))
    state, _ = trained(of, attacked=False)
    found = state.standing.scores
    assert isinstance(found, GroupScores)
    assert [g.members for g in found.groups] == [g.members for g in expected.groups]
    for got, wanted in zip(found.groups, expected.groups, strict=True):
        assert got.score.total == pytest.approx(wanted.score.total, abs=0.02)  # uniform step sizes


def test_a_group_with_sums_that_none_can_have_speaks_against_its_members() -> None:
    """Its weight is more than the members' together: it is left out of the rule, and refused."""
    of = defended(rounds=Rounds(count=1, quorum=10))
    task, aggregator = round_task(of), of.parts.aggregator
    assert isinstance(aggregator, ComparesGroups)
    assert not isinstance(aggregator, Compares)
    layout, rng = task.layout, np.random.default_rng(0)

    def total(weight: float) -> Any:
        vector = rng.normal(size=layout.size)
        layout.slice(vector, "metrics")[:] = 0.0
        layout.slice(vector, "weight")[:] = weight
        return vector

    weights = {"ab": 2.0, "cd": 2.0, "ef": 2.0, "gh": 500.0, "ij": 0.0, "kl": 2.0}
    parts = [(tuple(names), total(weight)) for names, weight in weights.items()]
    before = [vector.copy() for _, vector in parts]
    partial = Partial(parts, tuple("abcdefghijkl"))

    def decode(vector: Any) -> Any:
        found = vector.copy()
        vector[:] = np.nan  # it may consume what it is given
        return found

    likeness = aggregator.group_likeness(partial, decode, layout, of.facts)
    assert likeness.refused == (("g", "h"),)
    assert likeness.groups == (("a", "b"), ("c", "d"), ("e", "f"), ("k", "l"))
    counted = [v for v, weight in zip(before, weights.values(), strict=True) if weight == 2.0]
    rows = np.stack([1e-5 * layout.slice(vector, "delta") / 2 for vector in counted])
    assert np.allclose(likeness.products, rows @ rows.T, rtol=1e-6, atol=0)
    assert all(np.array_equal(v, b) for (_, v), b in zip(parts, before, strict=True))


def test_workers_see_what_one_process_sees() -> None:
    of = job(**{**WORDS, "rounds": Rounds(count=4, quorum=10)})
    one = simulate(of, masked=False)
    many = simulate(of, engine="workers", masked=False)
    assert one.model_sha256 == many.model_sha256
    assert one.state.standing == many.state.standing


def test_a_run_that_was_killed_goes_on_with_the_same_evidence(tmp_path: Path) -> None:
    of = job(**{**WORDS, "rounds": Rounds(count=7, quorum=10)})
    whole = recorded(of, tmp_path / "whole")
    broken_off(of, tmp_path / "again", after=4)
    again = resumed(tmp_path / "again", of)
    assert again.model_sha256 == whole.model_sha256
    assert again.state.standing == whole.state.standing
    assert [e.round for e in again.state.standing.standings.evidence] == list(range(7))
    said = json.loads((tmp_path / "again" / "result.json").read_text("utf-8"))
    assert said["standing"]["clients"]["client-0001"]["weight"] == 1


def test_a_checkpoint_keeps_transitions_and_evidence(tmp_path: Path) -> None:
    state, _ = trained(defended())
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path, Checkpoint(state, 18), keep=2)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.state.standing == state.standing
    assert judged_of(json.loads(json.dumps(judged_words(state.standing)))) == state.standing


def test_void_rounds_leave_evidence_of_nobody() -> None:
    def nothing(client: str) -> Any:
        if client in TOWNS[:5]:
            raise OSError("no disk")
        return data(client)

    of = defended(rounds=Rounds(count=1, quorum=10, attempts=2))
    there = world(of, InlineEngine(TOY, nothing, masked=False), population=TOWNS)
    with pytest.raises(Exception, match="void 2 times"):
        run(train(of, initial_state(of, start()), there))
    judged = there.journal.state.standing  # type: ignore[attr-defined]
    assert isinstance(judged.scores, GroupScores)
    assert [e.groups for e in judged.standings.evidence] == [(), ()]
    assert judged.standings.clients == {}


# ------------------------------------------------------------------ the plan


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "one sum": (
        {"secure_aggregation": SecureAggregation(enabled=True)},
        "shows only their sum",
        "set secure_aggregation.groups to at least 5",
    ),
    "three groups": (
        {"secure_aggregation": SecureAggregation(enabled=True, groups=3)},
        "3 groups are too few for scores",
        "set secure_aggregation.groups to at least 5",
    ),
    "noise of the coordinator": (
        {
            "aggregation": Aggregation(rule="median", weighting="uniform"),
            "privacy": Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=1.0, delta=1e-3),
        },
        "released beside it, uncounted",
        '"local"',
    ),
    "noise that is enough in the sum of all": (
        {
            "aggregation": Aggregation(rule="median", weighting="uniform"),
            "quantization": Quantization(),
            "privacy": Privacy(mechanism="distributed", clip=1.0, noise_multiplier=1.0, delta=1e-3),
        },
        "is too little in each of them",
        '"local"',
    ),
}


@pytest.mark.parametrize(("changed", "because", "fix"), REFUSED.values(), ids=REFUSED)
def test_fail_where_no_groups_can_be_compared(
    changed: dict[str, Any], because: str, fix: str
) -> None:
    with pytest.raises(PlanRefused) as caught:
        defended(**changed)
    told = [e for e in caught.value.errors if e.part == "defend.standing"]
    assert len(told) == 1
    assert because in told[0].because
    assert fix in told[0].fix


def test_ok_the_claims_say_what_is_scored_and_what_it_tells() -> None:
    claims = defended().claims
    assert any("scores the sum of each group against the others'" in claim for claim in claims)
    told = next(claim for claim in claims if claim.startswith("Scores and estimates"))
    assert "tell no more than all these sums together" in told
    assert told.endswith("No epsilon covers them.")
    assert not any("counts half" in claim for claim in claims)
    judge = defended().parts.judge
    assert judge == Judge(most=2, grouped=True)


@pytest.mark.parametrize("mechanism", ["local", "dpsgd"])
def test_ok_with_noise_of_the_clients_own(mechanism: Any) -> None:
    """Scores are post-processing of sums that carry that noise."""
    by: dict[str, Any] = {"unit": "example", "epsilon": 8.0, "examples": 20}
    own: dict[str, Any] = by if mechanism == "dpsgd" else {"noise_multiplier": 1.0}
    of = defended(
        privacy=Privacy(mechanism=mechanism, clip=1.0, delta=1e-3, **own),
        aggregation=Aggregation(
            rule="median",
            weighting="uniform",
            clip=1.0 if mechanism == "dpsgd" else 0.0,
            max_weight=64.0,
        ),
    )
    assert any("carry the client's own noise" in claim for claim in of.claims)


def test_a_trimmed_mean_over_groups_can_be_judged_as_well() -> None:
    aggregation = replace(WORDS["aggregation"], rule="trimmed_mean", trim=0.2)
    state, _ = trained(defended(aggregation=aggregation))
    assert state.standing.standings.quarantined == {LIAR}
