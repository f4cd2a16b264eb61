"""Audits of whole jobs: sound ones pass, and each planted fault is found."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hansa.cli import main
from hansa.core import events
from hansa.core.job import Cohort, Rounds
from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.jobfile import load_job
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.audit_report import report_of_json
from hansa.privacy.audits import AuditReport, audit, runs
from hansa.privacy.audits.audit import is_gaussian, shortened
from hansa.privacy.audits.canaries import Blocks
from hansa.privacy.audits.effort import affordable, share_drawn
from hansa.stages.clip import Clip
from hansa.stages.discrete_noise import DiscreteGaussian
from tests.privacy.audits import wide_jobs as jobs


@pytest.mark.parametrize("name", jobs.MECHANISMS)
def test_a_sound_job_passes_and_the_audit_sees(name):
    report = audit(jobs.MECHANISMS[name], quick=True)
    assert report.epsilon_lower_bound_noise_off > 5
    assert report.epsilon_lower_bound <= report.epsilon_claimed <= 2.0
    assert report.passed, report.verdict


def test_the_attack_is_about_as_strong_as_gaussian_noise_allows():
    """The estimate of two Gaussians is close to the claim: nothing is lost between them."""
    report = audit(jobs.gaussian(4.0), canaries=2000)
    assert report.epsilon_two_gaussians == pytest.approx(report.epsilon_claimed, rel=0.15)
    assert 1.0 < report.epsilon_lower_bound < 4.0


# ------------------------------------------------------------------ planted faults


@dataclass(frozen=True, slots=True)
class Half(CentralGaussian):
    """Adds a share of the noise that it claims."""

    share: float = 0.5

    def scale(self, spec: Any) -> tuple[float, float]:
        sigma, grid = CentralGaussian.scale(self, spec)
        return sigma * self.share, grid


@pytest.fixture
def faulty(monkeypatch):
    """Runs an audit of a plan that does something else than it says."""

    def run(job: Any, change: Any, **words: Any) -> Any:
        def broken(plan: Any, *args: Any, **kwargs: Any) -> Any:
            return real(replace(plan, parts=change(plan.parts)), *args, **kwargs)

        real = runs.watch
        monkeypatch.setattr(runs, "watch", broken)
        return audit(job, **words)

    return run


def test_half_the_noise_is_found(faulty):
    def half(parts):
        real = parts.mechanism
        return replace(parts, mechanism=Half(real.noise_multiplier, relation=real.relation))

    report = faulty(jobs.gaussian(), half, canaries=2000)
    assert report.exceeds
    assert not report.passed
    assert report.epsilon_gaussian_dp > report.epsilon_claimed


def test_a_quarter_of_the_noise_is_found_by_the_one_run_bound_alone(faulty):
    def quarter(parts):
        real = parts.mechanism
        return replace(parts, mechanism=Half(real.noise_multiplier, share=0.25))

    report = faulty(jobs.gaussian(1.0), quarter, canaries=2000)
    assert report.epsilon_lower_bound > report.epsilon_claimed


def test_a_third_of_the_noise_of_the_clients_is_found(faulty):
    def third(parts):
        stages = [
            replace(s, sigma=s.sigma / 3) if isinstance(s, DiscreteGaussian) else s
            for s in parts.stages
        ]
        return replace(parts, stages=tuple(stages))

    report = faulty(jobs.distributed(), third, canaries=1000)
    assert not report.passed


def test_a_clip_that_is_left_out_is_found(faulty):
    def bare(parts):
        stages = tuple(s for s in parts.stages if not isinstance(s, Clip))
        return replace(parts, stages=stages)

    few = Cohort(population=10)  # blocks so wide that no coordinate is beyond the sum's range
    report = faulty(jobs.gaussian(cohort=few), bare, quick=True)
    assert not report.passed
    assert report.epsilon_lower_bound > report.epsilon_claimed


def test_noise_that_leaves_out_a_part_of_the_model_is_found(faulty):
    """A quarter of the coordinates, as one forgotten tensor would be."""

    @dataclass(frozen=True, slots=True)
    class Forgetful(CentralGaussian):
        def apply(self, total, spec, noise):
            bare = total[: len(total) // 4].copy()
            public = CentralGaussian.apply(self, total, spec, noise)
            public[: len(bare)] = bare
            return public

    def forgetful(parts):
        return replace(parts, mechanism=Forgetful(parts.mechanism.noise_multiplier))

    report = faulty(jobs.gaussian(), forgetful, quick=True)
    assert not report.passed
    assert report.epsilon_lower_bound > report.epsilon_claimed


def test_an_attack_without_eyes_says_so(faulty, monkeypatch):
    monkeypatch.setattr(Blocks, "look", lambda self, step: np.zeros((2, self.count)))
    report = audit(jobs.gaussian(), quick=True)
    assert not report.sees
    assert not report.passed
    assert "cannot see" in report.verdict


# ------------------------------------------------------------------ settings and figures


def test_without_privacy_nothing_is_claimed_and_everything_is_seen():
    report = audit(jobs.job(), quick=True)
    assert report.epsilon_claimed == np.inf
    assert report.epsilon_lower_bound > 5
    assert report.passed
    assert report.json()["epsilon_claimed"] is None


def test_fewer_rounds_keep_the_noise_and_lower_the_claim():
    plan, _ = jobs.planned(jobs.gaussian())
    short = shortened(plan, 1)
    assert short.job.privacy.noise_multiplier == plan.job.privacy.noise_multiplier
    assert 0 < short.epsilon < plan.epsilon
    with pytest.raises(HansaError, match="declares 3 rounds"):
        shortened(plan, 4)


def test_canaries_and_coins_repeat_and_noise_does_not():
    plan, task = jobs.planned(jobs.gaussian())
    one, two = (runs.canary_clients(plan, task, 40, ReplayKey.of_seed(1)) for _ in range(2))
    assert (one.coins == two.coins).all()
    assert (one.scores != two.scores).all()


def test_a_large_model_is_attacked_over_fewer_rounds():
    plan, _ = jobs.planned(jobs.job(rounds=Rounds(count=10_000)))
    assert affordable(plan, 1000, quick=True) < affordable(plan, 1000, quick=False) < 10_000


def test_as_many_rounds_are_attacked_as_it_takes_to_see_most_canaries():
    """Of those that are in, 85 % are drawn after n rounds: 1 - (1 - share)**n."""
    few = Cohort(population=1000, sampler="poisson", rate=0.1)
    plan, _ = jobs.planned(jobs.job(cohort=few, rounds=Rounds(count=500, quorum=10)))
    assert share_drawn(plan) == pytest.approx(0.1)
    assert affordable(plan, 10**7, quick=True) == 19
    assert 1 - 0.9**18 < 0.85 < 1 - 0.9**19
    short, _ = jobs.planned(jobs.job(cohort=few, rounds=Rounds(count=18, quorum=10)))
    assert affordable(short, 10**7, quick=True) == 1  # all of it would not be enough
    plan, _ = jobs.planned(jobs.dpsgd(rounds=Rounds(count=9)))
    assert share_drawn(plan) == pytest.approx(1 - 0.75**4)
    assert affordable(plan, 10**7, quick=True) == 2
    turns = Cohort(population=30, sampler="cyclic", separation=3)
    plan, _ = jobs.planned(jobs.job(cohort=turns, rounds=Rounds(count=9)))
    assert affordable(plan, 10**7, quick=True) == 3
    everybody, _ = jobs.planned(jobs.gaussian())
    assert share_drawn(everybody) == 1.0


def test_it_runs_inside_of_a_running_loop():
    async def notebook() -> AuditReport:
        return audit(jobs.gaussian(), canaries=40, rounds=1)

    assert asyncio.run(notebook()).canaries_seen == 40


@pytest.mark.parametrize("words", [{"canaries": -1}, {"rounds": -1}, {"confidence": 1.0}])
def test_numbers_that_cannot_be_are_refused(words):
    with pytest.raises(HansaError, match="cannot be"):
        audit(jobs.job(), **words)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.Gaussian(1.0), True),
        (events.SelfComposed(events.Gaussian(1.0), 3), True),
        (events.Composed((events.Gaussian(1.0), events.Gaussian(2.0))), True),
        (events.PoissonSampled(0.1, events.Gaussian(1.0)), False),
        (events.NonPrivate(), False),
    ],
)
def test_which_claims_are_those_of_gaussian_noise(event, expected):
    assert is_gaussian(event) is expected


def test_blocks_are_orthogonal_unit_vectors():
    blocks = Blocks.draw(7, 50, ReplayKey.of_seed(2))
    rows = np.stack([blocks.vector(i) for i in range(7)])
    np.testing.assert_allclose(rows @ rows.T, np.eye(7), atol=1e-6)
    seen = blocks.look(3.0 * rows[2] - rows[4])
    np.testing.assert_allclose(seen[0], [0, 0, 3, 0, -1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(seen[1], 0, atol=1e-5)


# ------------------------------------------------------------------ the command


def test_the_command_gives_the_report_and_its_exit_code(capsys):
    assert main(["audit", "privacy", "heart", "--quick", "--rounds", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon_claimed"] is None
    assert told["passed"] is True
    wanted = {"epsilon_lower_bound", "epsilon_lower_bound_noise_off", "delta", "unit", "canaries"}
    assert wanted | {"guesses", "confidence"} <= told.keys()


def test_a_result_goes_into_the_statement_of_its_plan_and_of_no_other(capsys, tmp_path):
    result, page = tmp_path / "audit.json", tmp_path / "statement.json"
    words = ["audit", "privacy", "heart", "--quick", "--rounds", "1", "--seed", "3", "--json"]
    assert main([*words, "--output", str(result)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(result.read_text("utf-8")) == told
    plan, _ = jobs.planned(load_job("heart"))
    assert (told["plan_digest"], told["seed"]) == (plan.digest, 3)
    assert told["mechanism"] == str(plan.parts.mechanism)
    assert main(["plan", "heart", "--audit", str(result), "--statement", str(page), "--json"]) == 0
    said, shown = json.loads(page.read_text("utf-8")), json.loads(capsys.readouterr().out)
    assert said == shown["statement"]
    assert said["audited"]["plan_digest"] == said["plan_digest"] == plan.digest
    assert said["audited"]["epsilon_lower_bound"] == told["epsilon_lower_bound"]
    page.unlink()
    assert main(["plan", "heart", "--audit", str(result)]) == 0
    assert "over 1 of 40 rounds: epsilon is at least" in " ".join(capsys.readouterr().out.split())
    other = ["plan", "images", "--audit", str(result), "--statement", str(page)]
    assert main(other) == 2
    spoken = capsys.readouterr()
    assert "the audit is of plan" in " ".join(spoken.err.split())
    assert spoken.out == ""
    assert not page.exists()


def test_a_blind_result_goes_into_no_statement(capsys, tmp_path):
    result, page = tmp_path / "audit.json", tmp_path / "statement.md"
    words = ["audit", "privacy", "heart", "--canaries", "20", "--rounds", "1"]
    assert main([*words, "--output", str(result)]) == 2
    assert main(["plan", "heart", "--audit", str(result), "--statement", str(page)]) == 2
    assert "could not see" in " ".join(capsys.readouterr().err.split())
    assert not page.exists()


def test_a_place_for_the_result_is_looked_for_before_the_attack(capsys, tmp_path):
    missing = tmp_path / "missing" / "audit.json"
    assert main(["audit", "privacy", "heart", "--output", str(missing)]) == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "canaries" not in said


def test_a_result_is_of_the_whole_plan_however_few_rounds_are_attacked():
    plan, task = jobs.planned(jobs.gaussian())
    report = audit(jobs.gaussian(), canaries=40, rounds=1, task=task)
    assert report.plan_digest == plan.digest
    assert (report.rounds, report.rounds_of_job) == (1, 3)
    assert report.epsilon_of_job == plan.epsilon > report.epsilon_claimed
    assert report_of_json(json.loads(json.dumps(report.json()))) == report


def test_a_blind_audit_is_refused_in_words_that_fit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["audit", "privacy", "heart", "--canaries", "20", "--rounds", "1"]) == 2
    out = capsys.readouterr().out
    assert "FAILED: the audit cannot see" in out
    assert max(map(len, out.splitlines())) <= 80
    assert load_job("heart").name in out
