"""Whole matrices on a small job: each number beside one that was found another way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.attacks.engine import bad_clients
from hansa.core.job import Aggregation, Cohort, Defend, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.errors import HansaError, PlanRefused, Refused
from hansa.redteam.division import read_own
from hansa.redteam.matrix import Wanted, prepare
from hansa.redteam.measures import Counts, worth
from hansa.redteam.record import CELLS, Record
from hansa.simulation import simulate
from tests.support import toy

JOB = toy.job(
    rounds=Rounds(count=6, quorum=5),
    cohort=Cohort(population=10),
    aggregation=Aggregation(rule="trimmed_mean", trim=0.2, weighting="uniform"),
)
SOME = Wanted(attacks=("scaling", "label_flip"), shares=(0.2,), skews=("own",))


def ran(job: Any = JOB, wanted: Any = SOME, record: Any = None) -> Any:
    told: list[Any] = []
    rows = prepare(job, wanted).run(record or Record(), lambda *heard: told.append(heard))
    return rows, told


def row(rows: Any, attack: str, **words: Any) -> Any:
    found = [
        r for r in rows if r.attack == attack and all(getattr(r, k) == v for k, v in words.items())
    ]
    assert len(found) == 1
    return found[0]


def test_with_nobody_bad_it_is_the_simulation():
    rows, _ = ran()
    clean = row(rows, "none")
    assert clean.accuracy == pytest.approx(simulate(JOB).metrics["accuracy"])
    assert clean.attack_success is None
    assert (clean.share, clean.seeds, clean.ended) == (0.0, 1, "")
    assert len(clean.sites) == 10


def test_what_was_attacked_is_what_a_model_says_of_everybodys_examples():
    rows, _ = ran(wanted=replace(SOME, rules=("own", "mean"), seeds=(4, 5)))
    broken, held = row(rows, "scaling", rule="mean"), row(rows, "scaling", rule="trimmed_mean")
    assert broken.accuracy < 0.3 < 0.7 < held.accuracy
    clean = row(rows, "none", rule="mean")
    assert 0 < broken.attack_success <= 1
    assert broken.attack_success == pytest.approx(1 - broken.accuracy / clean.accuracy, abs=0.03)
    assert held.seeds == 2
    for seed in (4, 5):  # bad clients differ by seed, and are no honest sites
        key = ReplayKey.of_seed(seed).derive("redteam")
        names = tuple(f"client-{i:04d}" for i in range(1, 11))
        assert len(bad_clients(names, 0.2, key)) == 2
    sizes = [len(toy.data(c).test) for c in broken.sites]
    assert set(sizes) == {6}


def test_flipped_labels_count_as_success_where_they_come_out():
    rows, _ = ran(wanted=replace(SOME, shares=(0.4,), rules=("mean",)))
    flipped = row(rows, "label_flip")
    # Of two classes, each wrong answer is the one that whoever flips labels wants.
    assert flipped.attack_success == pytest.approx(1 - flipped.accuracy)
    assert flipped.success_by_itself == pytest.approx(1 - row(rows, "none").accuracy)
    assert row(rows, "scaling").success_by_itself is None


def test_each_skew_has_runs_and_a_model_with_nobody_bad_of_its_own():
    wanted = replace(
        SOME, attacks=("label_flip",), skews=("own", "dirichlet_0.3", "iid"), rules=("mean",)
    )
    rows, told = ran(wanted=wanted)
    assert [new for *_, new in told] == [True, False, True] * 3  # the mean is compared with itself
    accuracies = set()
    for skew in wanted.skews:
        clean, flipped = row(rows, "none", skew=skew), row(rows, "label_flip", skew=skew)
        assert flipped.success_by_itself == pytest.approx(1 - clean.accuracy)
        accuracies.add((clean.accuracy, flipped.accuracy))
    assert len(accuracies) > 1


def test_the_cost_to_the_minority_is_against_the_plain_mean():
    rows, _ = ran(wanted=replace(SOME, skews=("dirichlet_0.3",), rules=("own", "mean")))
    clean, mean = row(rows, "none", rule="trimmed_mean"), row(rows, "none", rule="mean")
    assert mean.minority_cost == 0
    assert clean.minority_cost == pytest.approx(mean.minority - clean.minority)
    assert 0 <= clean.worst_site <= clean.accuracy
    assert clean.worst_group == min(clean.worst_site, clean.worst_class)
    assert set(clean.classes) == {"0", "1"}


def test_a_void_round_ends_a_run_and_says_so():
    job = replace(JOB, rounds=Rounds(count=3, quorum=9, attempts=2))
    rows, _ = ran(job, replace(SOME, attacks=("nan",)))
    found = row(rows, "nan")
    assert "void" in found.ended
    initial = toy.TOY.initial(job.seed)
    tests = [toy.TOY.data(Site(f"client-{i:04d}", {})).test for i in range(1, 11)]
    right = sum(
        (toy.TOY.predict(initial, t).probabilities.argmax(axis=1) == t.targets).sum() for t in tests
    )
    assert found.accuracy == pytest.approx(right / sum(map(len, tests)))


def test_a_matrix_goes_on_where_it_was(tmp_path):
    first, told = ran(record=Record.at(tmp_path))
    assert [new for *_, new in told].count(True) == 4  # the mean, the rule, two attacks
    file = tmp_path / CELLS
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # killed while it wrote
    again, told = ran(record=Record.at(tmp_path))
    assert [new for *_, new in told] == [False, False, False, True]
    assert [r.to_json() for r in again] == [r.to_json() for r in first]
    _, told = ran(record=Record.at(tmp_path))
    assert not any(new for *_, new in told)
    other = replace(JOB, rounds=replace(JOB.rounds, count=5))
    _, told = ran(other, record=Record.at(tmp_path))
    assert all(new for *_, new in told)
    assert all(json.loads(line) for line in file.read_text().splitlines() if len(line) != 40)


def test_the_job_of_a_mean_is_compared_with_itself_and_run_once():
    _, told = ran(replace(JOB, aggregation=Aggregation()))
    assert [new for *_, new in told] == [True, False, True, True]


@pytest.mark.parametrize(
    ("words", "because", "fix"),
    [
        ({"shares": (0.05,)}, "5% of 10 clients is nobody", "at least 0.1"),
        ({"shares": (1.0,)}, "cannot be bad", "below 1"),
        ({"shares": (float("nan"),)}, "cannot be bad", "below 1"),
        ({"attacks": ("scalling",)}, "no attack 'scalling'", "scaling"),
        ({"rules": ("meen",)}, "no rule 'meen'", "mean"),
        ({"skews": ("own", "odd")}, "no skew 'odd'", "iid"),
        ({"skews": ()}, "nothing to run", "--skews"),
        ({"rules": ()}, "nothing to run", "--rules"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(words, because, fix):
    with pytest.raises(Refused, match=because) as error:
        prepare(JOB, replace(SOME, **words))
    assert fix in error.value.fix


def test_a_rule_that_the_quorum_forbids_is_refused_with_what_would_do():
    job = replace(JOB, rounds=Rounds(count=2, quorum=4))
    with pytest.raises(PlanRefused) as refused:
        prepare(job, replace(SOME, rules=("mean", "dnc")))
    assert any("rounds.quorum to at least 5" in error.fix for error in refused.value.errors)


def test_shares_that_are_nobody_are_left_out_unless_they_were_asked_for():
    cells = prepare(JOB, replace(SOME, shares=())).cells
    assert {cell.share for cell in cells} == {0.0, 0.2, 0.4}
    with pytest.raises(Refused, match="among 2 clients"):
        prepare(
            replace(
                JOB,
                cohort=Cohort(population=2),
                rounds=Rounds(count=1),
                aggregation=Aggregation(),
            ),
            replace(SOME, shares=()),
        )


def test_attacks_that_adapt_know_the_rule():
    rows, _ = ran(wanted=replace(SOME, attacks=("ipm_0.1", "adaptive_ipm"), rules=("mean",)))
    assert row(rows, "adaptive_ipm").accuracy <= row(rows, "ipm_0.1").accuracy
    trusted = Aggregation(rule="fltrust", trusted="client-0001")
    with pytest.raises(Refused, match="adapts to a rule"):
        prepare(replace(JOB, aggregation=trusted), replace(SOME, attacks=("adaptive_alie",)))


def test_numbers_are_finite_where_a_model_diverged():
    rows, _ = ran(wanted=replace(SOME, rules=("mean",), shares=(0.4,)))
    for found in rows:
        numbers = [v for v in found.to_json().values() if isinstance(v, float)]
        assert np.isfinite(numbers).all()


def test_who_stands_out_is_found_where_single_updates_are_seen():
    job = replace(JOB, rounds=Rounds(count=12, quorum=5))
    rows, _ = ran(job, replace(SOME, attacks=("scaling", "mimic"), rules=("own", "mean")))
    found = row(rows, "scaling", rule="trimmed_mean")
    assert (found.detected, found.false_positives) == (1.0, 0.0)
    assert row(rows, "mimic", rule="trimmed_mean").detected == 0.0  # what an honest client sends
    assert row(rows, "none", rule="trimmed_mean").detected is None
    refused, _ = ran(job, replace(SOME, attacks=("nan",)))
    assert row(refused, "nan").detected == 1.0  # a check refused what they sent
    hidden = row(rows, "scaling", rule="mean")
    assert (hidden.detected, hidden.false_positives) == (None, None)


def test_accuracy_by_cohort_is_over_the_names_that_the_task_gives(monkeypatch):
    monkeypatch.setattr(
        type(toy.TOY), "cohorts", lambda _, e: np.where(e.inputs[:, 3] > 0, "up", "down"), False
    )
    division = read_own(toy.TOY, toy.POPULATION)
    params = toy.TOY.initial(1)
    tests = [toy.data(c).test for c in toy.POPULATION]
    right = np.concatenate(
        [toy.TOY.predict(params, t).probabilities.argmax(axis=1) == t.targets for t in tests]
    )
    up = np.concatenate([t.inputs[:, 3] > 0 for t in tests])
    found = worth(toy.TOY, params, division)
    assert found.cohorts == {
        "down": Counts(int(right[~up].sum()), int((~up).sum())),
        "up": Counts(int(right[up].sum()), int(up.sum())),
    }
    monkeypatch.setattr(type(toy.TOY), "cohorts", lambda _, e: ["all"])
    with pytest.raises(HansaError, match="cohorts"):
        worth(toy.TOY, params, division)


def test_a_model_that_diverged_is_right_about_nothing():
    division = read_own(toy.TOY, toy.POPULATION)
    found = worth(toy.TOY, np.full(5, np.nan, np.float32), division)
    assert found.accuracy == 0.0
    assert {c.right for c in found.classes.values()} == {0}


def test_what_was_run_before_is_trained_again_where_its_model_is_needed():
    wanted = replace(SOME, attacks=("label_flip",), skews=("own", "dirichlet_0.3"), rules=("mean",))
    record = Record()
    ran(wanted=replace(wanted, attacks=("none",)), record=record)
    rows, told = ran(wanted=wanted, record=record)
    assert [new for *_, new in told] == [False, False, True] * 2
    for skew in wanted.skews:
        clean, flipped = row(rows, "none", skew=skew), row(rows, "label_flip", skew=skew)
        assert flipped.success_by_itself == pytest.approx(1 - clean.accuracy)


def test_a_job_whose_rounds_do_not_wait_is_refused():
    job = replace(JOB, cohort=Cohort(population=10, sampler="arrival", buffer=5, concurrency=8))
    with pytest.raises(Refused, match="wait for their cohort") as error:
        prepare(job, SOME)
    assert "everyone" in error.value.fix


def test_a_job_with_standing_leaves_the_bad_ones_out_and_is_compared_with_a_mean_without():
    job = replace(
        JOB,
        rounds=Rounds(count=14, quorum=5),
        aggregation=Aggregation(rule="geometric_median", weighting="uniform"),
        defend=Defend(standing=True),
    )
    rows, _ = ran(job, replace(SOME, attacks=("sign_flip_5",), rules=("own", "mean")))
    found = row(rows, "sign_flip_5", rule="geometric_median")
    assert (found.detected, found.false_positives) == (1.0, 0.0)
    assert row(rows, "sign_flip_5", rule="mean").detected is None
