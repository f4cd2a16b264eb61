"""Standing through the one round loop: who is asked, what is observed, what a run remembers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.attacks.catalogue import attack_named
from hansa.attacks.engine import AttackedEngine
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Defend, Job, Privacy, Rounds, SecureAggregation
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState
from hansa.core.train import initial_state, train
from hansa.defend import State, scores_of
from hansa.defend.judge import Judged
from hansa.defend.text import judged_of, judged_words
from hansa.engines.inline import InlineEngine
from hansa.errors import PlanRefused
from hansa.runs import checkpoint
from hansa.runs.checkpoint import Checkpoint
from hansa.simulation import simulate
from tests.support.runs import broken_off, recorded, resumed
from tests.support.toy import TOY, data, job, plan, run, start, world

N = 10
NAMES = tuple(f"c{i:02d}" for i in range(N))
BAD = frozenset(NAMES[:2])
WORDS: dict[str, Any] = {
    "cohort": Cohort(population=N),
    "rounds": Rounds(count=9, quorum=6),
    "aggregation": Aggregation(rule="geometric_median", clip=1.0, weighting="uniform"),
    "defend": Defend(standing=True),
}


def defended(**words: Any) -> Plan:
    return plan(**{**WORDS, **words})


def attacked(of: Plan, attack: str, bad: frozenset[str] = BAD) -> tuple[TrainState, Any]:
    engine = AttackedEngine(InlineEngine(TOY, data), attack_named(attack), bad)
    records: list[RoundRecord] = []
    there = world(of, engine, population=NAMES)
    state = run(train(of, initial_state(of, start()), there, records.append))
    return state, records


@pytest.mark.parametrize("attack", ["sign_flip", "scaling", "ipm_3", "ipm_0.1", "nan", "scaled"])
def test_bad_clients_are_quarantined_and_not_asked_any_more(attack: str) -> None:
    state, records = attacked(defended(), attack)
    judged: Judged = state.standing
    assert judged.standings.quarantined == BAD
    since = {c.client: c.round for c in judged.changes if c.after is State.QUARANTINED}
    for record in records:
        asked_bad = {c for c in BAD if record.round <= since[c]}
        expected = tuple(c for c in NAMES if c not in BAD or c in asked_bad)
        assert record.cohort == expected
    last = records[-1]
    assert last.purpose is Purpose.EVALUATE
    assert not BAD & set(last.cohort)


def test_without_attack_nobody_is_watched_and_the_model_is_that_without_standing() -> None:
    state, _ = attacked(defended(), "none")
    assert [change.after for change in state.standing.changes] == []
    assert len(state.standing.scores) == N
    plain, _ = attacked(plan(**{**WORDS, "defend": Defend()}), "none")
    assert plain.standing is None
    assert state.model == plain.model


def test_scores_are_those_of_the_updates_of_the_round() -> None:
    """Recomputed from what each client sends, by NumPy and the pure function."""
    from hansa.core.contribute import contribute
    from tests.support.toy import round_task

    of = defended(rounds=Rounds(count=1, quorum=6))
    state, _ = attacked(of, "none")
    updates = [contribute(round_task(of), c, TOY, data(c)) for c in NAMES]
    rows = np.stack([u.segment("delta") / u.segment("weight")[0] for u in updates])
    real = rows.astype(np.float64)
    expected = scores_of(NAMES, real @ real.T)
    assert dict(state.standing.scores) == dict(expected)


def test_refused_updates_speak_against_a_client_also_in_void_rounds() -> None:
    of = defended(rounds=Rounds(count=3, quorum=9, attempts=6))
    records: list[RoundRecord] = []
    engine = AttackedEngine(InlineEngine(TOY, data), attack_named("nan"), BAD)
    there = world(of, engine, population=NAMES)
    with pytest.raises(Exception, match="void 6 times"):
        run(train(of, initial_state(of, start()), there, records.append))
    assert all(record.void for record in records)
    assert all(d.refused for record in records for d in record.dropouts)
    judged = there.journal.state.standing  # type: ignore[attr-defined]
    assert [judged.standings[c].against for c in sorted(BAD)] == [5, 6]
    assert judged.standings.quarantined == {"c00"}  # the quorum of nine allows one


def test_where_the_others_cannot_make_a_round_all_are_asked_and_the_bad_count_half() -> None:
    """The plan is for ten clients and eight came: without two of them there is no quorum."""
    of = defended(rounds=Rounds(count=8, quorum=7))
    engine = AttackedEngine(InlineEngine(TOY, data), attack_named("sign_flip"), BAD)
    records: list[RoundRecord] = []
    there = world(of, engine, population=NAMES[:8])
    state = run(train(of, initial_state(of, start()), there, records.append))
    assert state.standing.standings.quarantined == BAD
    assert [record.void for record in records] == [False] * 9
    assert all(set(record.cohort) == set(NAMES[:8]) for record in records[:-1])
    assert not BAD & set(records[-1].cohort)  # a measurement has no quorum


def test_a_client_that_fails_is_not_held_to_lie() -> None:
    def broken(client: str) -> Any:
        if client == "c03":
            raise OSError("no disk")
        return data(client)

    of = defended()
    there = world(of, InlineEngine(TOY, broken), population=NAMES)
    state = run(train(of, initial_state(of, start()), there))
    assert "c03" not in state.standing.standings.clients


def test_a_measurement_is_not_observed() -> None:
    state, records = attacked(defended(), "sign_flip")
    assert records[-1].purpose is Purpose.EVALUATE
    assert state.standing.round == 8
    assert {state.standing.standings[c].rounds for c in NAMES[2:]} == {9}


def test_records_hold_no_scores() -> None:
    _, records = attacked(defended(), "sign_flip")
    told = json.dumps([[d.reason for d in r.dropouts] for r in records])
    assert "score" not in told
    assert not hasattr(records[0], "standing")


def test_workers_see_what_one_process_sees() -> None:
    of = job(**WORDS)
    one = simulate(of)
    many = simulate(of, engine="workers")
    assert one.model_sha256 == many.model_sha256
    assert one.state.standing == many.state.standing


def test_a_watched_client_moves_the_model_half() -> None:
    """The state after a round in which all is the same but for the standing of one client."""
    of = defended(rounds=Rounds(count=1, quorum=6))
    engine = AttackedEngine(InlineEngine(TOY, data), attack_named("scaling"), BAD)

    def after(standing: Judged | None) -> np.ndarray[Any, Any]:
        begun = initial_state(of, start())
        begun = replace(begun, standing=standing)
        there = world(of, engine, population=NAMES)
        params: np.ndarray[Any, Any] = run(train(of, begun, there)).params.astype(np.float64)
        return params

    from hansa.defend import Standing, Standings

    watched = Judged(Standings(2, dict.fromkeys(BAD, Standing(State.WATCH))))
    gone = Judged(Standings(2, dict.fromkeys(BAD, Standing(State.QUARANTINED))))
    assert np.allclose(after(watched), (after(None) + after(gone)) / 2, atol=1e-7)
    assert not np.allclose(after(watched), after(None), atol=1e-4)


def test_a_run_that_was_killed_goes_on_with_the_same_standing(tmp_path: Path) -> None:
    of = job(**WORDS)
    whole = recorded(of, tmp_path / "whole")
    broken_off(of, tmp_path / "again", after=4)
    again = resumed(tmp_path / "again", of)
    assert again.model_sha256 == whole.model_sha256
    assert again.state.standing == whole.state.standing
    assert again.state.standing.standings["client-0001"].rounds == 9
    said = json.loads((tmp_path / "again" / "result.json").read_text("utf-8"))
    assert said["standing"]["clients"]["client-0001"]["state"] == "trusted"


def test_a_checkpoint_keeps_transitions_and_evidence(tmp_path: Path) -> None:
    state, _ = attacked(defended(), "scaled")
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path, Checkpoint(state, 9), keep=2)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.state.standing == state.standing
    assert judged_of(json.loads(json.dumps(judged_words(state.standing)))) == state.standing


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "the mean": ({"aggregation": Aggregation()}, "the mean keeps none", "geometric_median"),
    "masks": (
        {
            "aggregation": Aggregation(rule="median", clip=1.0, weighting="uniform"),
            "secure_aggregation": SecureAggregation(enabled=True),
        },
        "secure aggregation shows only their sum",
        "set secure_aggregation.groups to at least 5",
    ),
    "few groups": (
        {
            "aggregation": Aggregation(rule="median", clip=1.0, weighting="uniform"),
            "secure_aggregation": SecureAggregation(enabled=True, groups=4),
        },
        "4 groups are too few for scores",
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
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_fail_where_no_update_can_be_compared(words: tuple[dict[str, Any], str, str]) -> None:
    changed, because, fix = words
    with pytest.raises(PlanRefused) as caught:
        defended(**changed)
    told = [e for e in caught.value.errors if e.part == "defend.standing"]
    assert len(told) == 1
    assert because in told[0].because
    assert fix in told[0].fix


def test_ok_with_noise_of_the_clients_own_and_the_claim_says_what_scores_tell() -> None:
    of = defended(
        privacy=Privacy(
            mechanism="dpsgd", unit="example", clip=1.0, epsilon=8.0, delta=1e-3, examples=20
        ),
        aggregation=Aggregation(rule="median", weighting="uniform"),
    )
    assert any("carry the client's own noise" in claim for claim in of.claims)
    assert any("No epsilon covers them" in claim for claim in defended().claims)


def test_claims_speak_of_standing_only_where_there_is_one() -> None:
    assert any(claim.startswith("Standing:") for claim in defended().claims)
    without = plan(**{**WORDS, "defend": Defend()})
    assert not any("Standing" in claim or "Scores" in claim for claim in without.claims)
    assert without.digest != defended().digest


@pytest.mark.parametrize(("quorum", "most"), [(6, 4), (8, 2), (0, 4)])
def test_the_plan_says_how_many_may_be_quarantined(quorum: int, most: int) -> None:
    of = defended(rounds=Rounds(count=1, quorum=quorum))
    assert of.parts.judge is not None
    assert of.parts.judge.most == most  # type: ignore[attr-defined]


def test_the_job_file_knows_the_switch(tmp_path: Path) -> None:
    from hansa.errors import JobError
    from hansa.jobfile import load_job

    words = """\
name = "x"
task = "task:X"
[rounds]
count = 1
[cohort]
population = 10
[algorithm]
name = "fedavg"
[aggregation]
rule = "median"
[defend]
standing = true
"""
    file = tmp_path / "job.toml"
    file.write_text(words, "utf-8")
    loaded: Job = load_job(file)
    assert loaded.defend == Defend(standing=True)
    file.write_text(words.replace("median", "mean"), "utf-8")
    with pytest.raises(JobError, match=r"defend\.standing has no effect"):
        load_job(file)
