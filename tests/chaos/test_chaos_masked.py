"""Masked rounds in which a process is killed: nothing of a round is kept, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hansa import simulate
from hansa.core.job import Job, SecureAggregation
from hansa.examples.heart.job import heart_job
from hansa.examples.heart.task import HOSPITALS
from hansa.site.sessions import NAME
from tests.chaos.arena import COORDINATOR, PATIENCE, Arena, arena, wait_for
from tests.chaos.evidence import (
    Traces,
    _each_round_charged_once,
    _each_round_written_down_once,
    _told_the_same,
    no_receipt_is_ahead,
)

ROUNDS = 2
VICTIM = "cleveland"


def masked_job(seed: int) -> Job:
    """Two rounds of which each counts with three of the four hospitals."""
    job = heart_job(rounds=ROUNDS, seed=seed)
    rounds = replace(job.rounds, deadline=PATIENCE, quorum=3)
    return replace(job, rounds=rounds, secure_aggregation=SecureAggregation(enabled=True))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("masked"), pace="plain") as running:
        yield running


def _sound(traces: Traces) -> None:
    """Each attempt is charged and written down once; a void one gave nobody a receipt."""
    no_receipt_is_ahead(traces)
    _each_round_charged_once(traces)
    _each_round_written_down_once(traces)
    members = {(r.purpose.value, r.round, r.attempt): r.members for r in traces.records}
    for site in traces.logs:
        _told_the_same(traces, site)
        for name in traces.said(site, "received"):
            assert site in members[name], f"{site} holds a receipt for {name}"


@pytest.mark.parametrize(
    ("point", "count"), [("adverts", 1), ("added", 2), ("added", 4), ("voted", 1)]
)
def test_a_coordinator_that_dies_begins_a_new_attempt(here: Arena, point: str, count: int) -> None:
    """Sites begin no attempt twice: the lost one is void, and the model is the undisturbed one."""
    wanted = masked_job(count)
    here.condemn(COORDINATOR, point, count)
    job = here.submit(wanted)
    here.await_death(COORDINATOR)
    here.revive(COORDINATOR)
    traces = here.finished(job)
    _sound(traces)
    assert [(r.attempt, r.void) for r in traces.records] == [
        (0, True), (1, False), *[(0, False)] * ROUNDS,
    ]  # fmt: skip
    lost = traces.records[0]
    assert lost.members == ()
    assert {d.client for d in lost.dropouts} == set(HOSPITALS)
    assert all("(repeated)" in d.reason for d in lost.dropouts)
    assert traces.state is not None
    assert traces.state.model_sha256 == simulate(wanted).model_sha256


@pytest.mark.parametrize(
    ("point", "counted"),
    [("sharing", False), ("masking", False), ("voting", True), ("answering", True)],
)
def test_a_site_that_is_killed_delays_a_round_by_its_absence_only(
    here: Arena, point: str, counted: bool
) -> None:
    """Its update is in the sum if it arrived; it comes back for the next round."""
    wanted = masked_job(5)
    here.condemn(VICTIM, point)
    job = here.submit(wanted)
    here.await_death(VICTIM)
    wait_for(lambda: len(here.store.records(job)) > 0, "the end of the round", seconds=12)
    (record,) = here.store.records(job)
    assert not record.void
    assert (VICTIM in record.members) is counted
    assert len(record.members) == 3 + counted
    assert record.seconds < 5.0 + 3.0
    here.revive(VICTIM)
    traces = here.finished(job, VICTIM)
    _sound(traces)
    assert all(set(r.members) == set(HOSPITALS) for r in traces.records[1:])


@pytest.mark.parametrize("point", ["begun", "sharing", "masking", "voting", "answering"])
def test_a_site_that_is_started_again_declines_the_attempt_and_takes_part_in_the_next(
    here: Arena, point: str
) -> None:
    wanted = masked_job(6)
    here.condemn(VICTIM, point)
    job = here.submit(wanted)
    here.await_death(VICTIM)
    begun = json.loads((here.folders[VICTIM] / NAME).read_text())
    assert begun[f"{job}/train"] == [0, 0]
    here.revive(VICTIM)
    traces = here.finished(job, VICTIM)
    _sound(traces)
    first = traces.records[0]
    assert first.seconds < 5.0, "it was back, and said that it has no part"
    reasons = {d.client: d.reason for d in first.dropouts}
    if point in ("voting", "answering"):
        assert reasons == {}
    else:
        assert reasons.keys() == {VICTIM}
        assert "(repeated)" in reasons[VICTIM] or "is not in the session" in reasons[VICTIM]
    assert all(set(r.members) == set(HOSPITALS) for r in traces.records[1:])
