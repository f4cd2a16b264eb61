"""A statement shows an audit of its own plan, by an attack that could see, and no other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import hansa
from hansa.core.job import Cohort, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.plan import Plan
from hansa.errors import HansaError, Refused
from hansa.jobfile import load_job
from hansa.privacy import audit_file
from hansa.privacy.audit_report import AuditReport, report_of_json
from hansa.privacy.statement import of_json, statement_of, with_audit
from hansa.privacy.statement_audit import REFUTED
from hansa.privacy.statement_page import FORMS, written
from hansa.recipes import compile_plan
from tests.support.audit_results import result


def planned(multiplier: float = 8.0) -> Plan:
    base = load_job("heart")
    privacy = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=multiplier, delta=1e-5)
    return compile_plan(
        replace(
            base,
            cohort=Cohort(population=100),
            rounds=Rounds(count=10),
            privacy=privacy if multiplier else Privacy(),
            aggregation=replace(base.aggregation, clip=0.0),
            quantization=Quantization(),
            secure_aggregation=SecureAggregation(),
        )
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned()


def flat(text: str) -> str:
    return "".join(text.replace("\\", "").split())


# ------------------------------------------------------------------ what is shown


def test_an_audit_is_told_in_figures_and_in_words_in_every_form(plan):
    report = result(plan, epsilon_lower_bound=0.8125)
    said = statement_of(plan, audit=report)
    assert said.audited is not None
    assert said.audited.plan_digest == said.plan_digest == plan.digest
    assert said.audited.epsilon_lower_bound == 0.8125
    assert said.audited.epsilon_lower_bound_noise_off == 6.125
    assert said.audited.epsilon_claimed == plan.epsilon
    assert said.audited.refuted is False
    assert (said.audited.unit, said.audited.canaries, said.audited.rounds) == ("client", 5000, 10)
    assert "95% confidence" in said.audit
    assert "consistent with the plan" in said.audit
    assert "never prove it" in said.audit
    assert said.hazards == statement_of(plan).hazards
    for suffix in FORMS:
        page = flat(written(said, suffix))
        assert "none yet: no privacy audit" not in written(said, suffix)
        for words in ("0.8125", "6.125", plan.digest, "2026-03-04T05:06:07+00:00"):
            assert flat(words) in page, (suffix, words)
        assert flat("5,000 canaries, each one client, over 10 of 10 rounds") in page


def test_what_was_attacked_is_told_where_it_was_not_all(plan):
    report = result(plan, rounds=3, epsilon_claimed=1.25, unit="example")
    said = statement_of(plan, audit=report)
    assert "each one example, over 3 of 10 rounds" in said.audit
    assert "claims 1.25 for these rounds" in said.audit


def test_a_claim_that_is_refuted_is_the_first_hazard_blind_or_not(plan):
    more = plan.epsilon + 0.5
    for report in (
        result(plan, epsilon_lower_bound=more),
        result(plan, epsilon_lower_bound=more, epsilon_lower_bound_noise_off=1.0),
        result(plan, gaussian=True, epsilon_gaussian_dp=more),
    ):
        said = statement_of(plan, audit=report)
        assert "does NOT hold" in said.audit
        assert "consistent" not in said.audit
        assert said.hazards == (REFUTED, *statement_of(plan).hazards)
        assert flat(REFUTED) in flat(written(said, ".txt"))


def test_rates_of_gaussian_noise_count_only_where_it_is_all_of_it(plan):
    more = plan.epsilon + 0.5
    said = statement_of(plan, audit=result(plan, gaussian=False, epsilon_gaussian_dp=more))
    assert said.audited is not None
    assert (said.audited.epsilon_gaussian, said.audited.refuted) == (None, False)
    said = statement_of(plan, audit=result(plan, gaussian=True, epsilon_gaussian_dp=1.5))
    assert said.audited is not None
    assert said.audited.epsilon_gaussian == 1.5
    assert "by the rates of Gaussian noise 1.5 (99.999% sure)" in said.audit


def test_without_a_claim_it_says_what_an_attacker_gets():
    plan = planned(0.0)
    said = statement_of(plan, audit=result(plan, epsilon_lower_bound=6.0))
    assert said.audited is not None
    assert (said.audited.epsilon_claimed, said.audited.refuted) == (None, False)
    assert "epsilon is at least 6" in said.audit
    assert "nothing is claimed" in said.audit


def test_code_of_another_version_is_named(plan):
    said = statement_of(plan, audit=result(plan, hansa="0.0.7"))
    assert "attacked the code of Hansa 0.0.7, not of this version" in said.audit
    assert "not of this version" not in statement_of(plan, audit=result(plan)).audit


# ------------------------------------------------------------------ what is refused


def test_an_audit_of_another_plan_is_refused(plan):
    other = planned(9.0)
    with pytest.raises(Refused, match="the audit is of plan"):
        statement_of(plan, audit=result(other))
    with pytest.raises(Refused, match="the audit is of plan"):
        statement_of(planned(0.0), audit=result(plan))


@pytest.mark.parametrize("power", [0.0, 4.99, 5.0])
def test_an_audit_that_could_not_see_is_refused(plan, power):
    blind = result(plan, epsilon_lower_bound_noise_off=power)
    with pytest.raises(Refused, match="could not see"):
        statement_of(plan, audit=blind)
    assert statement_of(plan, audit=replace(blind, epsilon_lower_bound_noise_off=5.01)).audited


def test_an_audit_that_counts_something_else_is_refused(plan):
    for wrong in (
        {"epsilon_of_job": plan.epsilon * 1.01},
        {"epsilon_of_job": math.inf},
        {"delta": 1e-3},
    ):
        with pytest.raises(Refused, match="the audit counts"):
            statement_of(plan, audit=result(plan, **wrong))


# ------------------------------------------------------------------ JSON


def test_a_statement_with_an_audit_reads_back(plan):
    said = statement_of(plan, audit=result(plan))
    assert of_json(json.loads(written(said, ".json"))) == said
    assert with_audit(of_json(statement_of(plan).to_json()), result(plan)) == said


def test_a_statement_is_not_read_with_the_audit_of_another_plan(plan):
    told = statement_of(plan, audit=result(plan)).to_json()
    with pytest.raises(HansaError, match="audit of another plan"):
        of_json({**told, "plan_digest": "0" * 64})


@pytest.mark.parametrize("infinite", [False, True])
def test_a_result_reads_back_from_its_file(plan, tmp_path, infinite):
    report = result(planned(0.0) if infinite else plan)
    file = tmp_path / "audit.json"
    audit_file.save(report, file)
    told = json.loads(file.read_text("utf-8"))
    assert told["plan_digest"] == report.plan_digest
    assert told["hansa"] == hansa.__version__
    assert told["passed"] is True
    assert (told["epsilon_claimed"] is None) is infinite
    assert audit_file.load(file) == report


Told = dict[str, Any]

WRONG: dict[str, Callable[[Told], object]] = {
    "fail/no-object": lambda told: [told],
    "fail/lacks-a-key": lambda told: {k: v for k, v in told.items() if k != "plan_digest"},
    "fail/adds-a-key": lambda told: {**told, "more": 1},
    "fail/text-for-a-number": lambda told: {**told, "epsilon_lower_bound": "0.1"},
    "fail/true-for-a-number": lambda told: {**told, "canaries": True},
    "fail/no-date": lambda told: {**told, "date": "yesterday"},
    "fail/date-without-zone": lambda told: {**told, "date": "2026-03-04T05:06:07"},
    "fail/more-rounds-than-there-are": lambda told: {**told, "rounds": 11},
    "fail/more-right-than-guessed": lambda told: {**told, "correct": 1251},
    "fail/confidence": lambda told: {**told, "confidence": 95.0},
    "fail/delta": lambda told: {**told, "delta": 0.0},
    "fail/negative-bound": lambda told: {**told, "epsilon_lower_bound": -1.0},
    "fail/infinite-bound": lambda told: {**told, "epsilon_lower_bound_noise_off": None},
    "fail/a-part-claims-more": lambda told: {**told, "epsilon_claimed": 100.0},
    "fail/verdict-of-its-own": lambda told: {**told, "epsilon_lower_bound": 100.0},
    "fail/blind-and-passed": lambda told: {**told, "epsilon_lower_bound_noise_off": 1.0},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_is_refused(plan, case):
    told = result(plan).json()
    assert report_of_json(told) == result(plan)
    with pytest.raises(Refused, match="no result of a privacy audit"):
        report_of_json(WRONG[case](told))


@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b"[" * 100_000, b"\xff\xfe"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    file = tmp_path / "audit.json"
    file.write_bytes(content)
    with pytest.raises(HansaError, match="audit"):
        audit_file.load(file)


def test_places_that_cannot_be_written_are_told_before_the_attack(plan, tmp_path):
    with pytest.raises(HansaError, match="cannot be written"):
        audit_file.check_place(tmp_path / "missing" / "a.json")
    with pytest.raises(HansaError, match="cannot be written"):
        audit_file.check_place(tmp_path)
    with pytest.raises(HansaError, match="cannot be written"):
        audit_file.save(result(plan), tmp_path)
    with pytest.raises(HansaError, match="cannot be read"):
        audit_file.load(tmp_path / "missing.json")
    audit_file.check_place(tmp_path / "a.json")
    assert isinstance(result(plan), AuditReport)
