"""What a job left behind, at the coordinator and at the sites, and what must be true of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import EventRow, LedgerRow, StateRow, Status
from hansa.coordinator.store import Store
from hansa.core.round import Opening, RoundRecord
from hansa.site.agent import LOG
from hansa.site.logbook import read

Key = tuple[str, int, int]
"""Purpose, round, attempt."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The result of a job that nobody disturbed.

    Attributes:
      model: SHA-256 of the final parameters; empty where noise makes each run another one.
      metrics: the values of each round; empty likewise.
      rounds: the names of all rounds, in order.
    """

    model: str
    metrics: Mapping[Key, Mapping[str, float | None]]
    rounds: tuple[Key, ...]

    @classmethod
    def of(cls, records: Iterable[RoundRecord], model: str) -> Expected:
        """What a run's records say."""
        kept = tuple(records)
        return cls(model, {key(r): r.metrics for r in kept}, tuple(key(r) for r in kept))

    def private(self) -> Expected:
        """What is left of it where each run draws its own noise."""
        return Expected("", {}, self.rounds)


@dataclass(frozen=True, slots=True)
class Traces:
    """Everything about one job that is on disk.

    Attributes:
      job: its identifier.
      status: of the job.
      reason: of the status.
      state: what a next round would start from.
      records: of all rounds that ended.
      members: SHA-256 of each member's update, by round.
      entries: the privacy ledger.
      used: private charges.
      events: the audit trail.
      logs: what each site wrote down about the job.
    """

    job: str
    status: Status
    reason: str
    state: StateRow | None
    records: tuple[RoundRecord, ...]
    members: Mapping[Key, Mapping[str, str]]
    entries: tuple[LedgerRow, ...]
    used: int
    events: tuple[EventRow, ...]
    logs: Mapping[str, tuple[Mapping[str, Any], ...]]

    @classmethod
    def read(cls, store: Store, job: str, sites: Mapping[str, Path]) -> Traces:
        """Reads the store and the sites' folders; both chains are verified on the way."""
        ledger = StoreLedger(store, job, 10**6, lambda: 0.0)
        ledger.verify()
        store.verify_events()
        row, events = store.job(job), tuple(store.events(job))
        return cls(
            job=job,
            status=row.status,
            reason=row.reason,
            state=store.state(job),
            records=tuple(store.records(job)),
            members=_members(store, job, events),
            entries=tuple(ledger.entries()),
            used=ledger.used(),
            events=events,
            logs={
                site: tuple(e for e in read(folder / LOG) if e.get("job") == job)
                for site, folder in sites.items()
            },
        )

    def said(self, site: str, kind: str) -> Counter[Key]:
        """How often a site wrote this about each round."""
        return Counter(key(e) for e in self.logs[site] if e["kind"] == kind)


def key(what: Any) -> Key:
    """The name of the round that a record, an entry or an event's body is about."""
    if isinstance(what, Mapping):
        return str(what["purpose"]), int(what["round"]), int(what["attempt"])
    purpose = what.purpose
    return getattr(purpose, "value", purpose), what.round, what.attempt


def no_receipt_is_ahead(traces: Traces) -> None:
    """Whatever a site holds a receipt for is durable at any moment, also in the middle of a run."""
    for site in traces.logs:
        for name in traces.said(site, "received"):
            assert site in traces.members.get(name, {}), f"{site} holds a receipt that is lost"


def nothing_lost_or_doubled(
    traces: Traces, expected: Expected, disturbed: frozenset[str] = frozenset()
) -> None:
    """The whole contract of a job that ended, whatever was killed on the way.

    Args:
      traces: what is on disk.
      expected: the undisturbed result.
      disturbed: sites that were killed or cut off themselves: they may have done work twice.
    """
    assert traces.status is Status.DONE, traces.reason
    assert tuple(key(r) for r in traces.records) == expected.rounds
    assert traces.state is not None
    if expected.model:
        assert traces.state.model_sha256 == expected.model
        assert {key(r): r.metrics for r in traces.records} == expected.metrics
    no_receipt_is_ahead(traces)
    _each_round_counted_once(traces)
    _each_round_charged_once(traces)
    _each_round_written_down_once(traces)
    for site in traces.logs:
        _told_the_same(traces, site)
        if site not in disturbed:
            _worked_once(traces, site)


def _members(store: Store, job: str, events: Iterable[EventRow]) -> dict[Key, dict[str, str]]:
    """The durable members of every round that was opened, each with the hash of its update."""
    found: dict[Key, dict[str, str]] = {}
    for event in events:
        if event.kind == "round.opened":
            name = key(event.body)
            fold = store.folded(job, _opening(name))
            pairs = zip(fold.members, fold.receipts, strict=True) if fold is not None else ()
            found[name] = dict(pairs)
    return found


def _opening(name: Key) -> Opening:
    from hansa.core.contribute import Purpose

    return Opening(Purpose(name[0]), name[1], name[2], (), "")


def _each_round_counted_once(traces: Traces) -> None:
    for record in traces.records:
        if record.void:
            continue
        assert record.dropouts == ()
        assert record.cohort == tuple(sorted(traces.logs))
        assert record.members == tuple(sorted(traces.logs))
        assert tuple(sorted(traces.members[key(record)])) == record.members


def _each_round_charged_once(traces: Traces) -> None:
    rounds = Counter(key(r) for r in traces.records)
    for kind in ("reserve", "commit"):
        assert Counter(key(e) for e in traces.entries if e.kind == kind) == rounds, kind
    for name in rounds:
        kinds = [e.kind for e in traces.entries if key(e) == name]
        assert kinds == ["reserve", "commit"], f"{name} was charged as {kinds}"
    assert traces.used in (0, len(rounds))  # no privacy is promised, or each round costs some


def _each_round_written_down_once(traces: Traces) -> None:
    """Opened once, ended once, each from the model that the one before ended with."""
    told = [(e.kind, key(e.body)) for e in traces.events if e.kind.startswith("round.")]
    ends = {key(r): "round.void" if r.void else "round.closed" for r in traces.records}
    expected = [(kind, name) for name in ends for kind in ("round.opened", ends[name])]
    assert told == expected
    models = [str(e.body["model"]) for e in traces.events if e.kind == "round.opened"]
    assert models[1:] == [r.model for r in traces.records[:-1]]
    assert traces.state is not None
    assert traces.state.model_sha256 == traces.records[-1].model
    statuses = [str(e.body["to"]) for e in traces.events if e.kind == "job.status"]
    assert [s for s, t in zip(statuses, [*statuses[1:], ""], strict=True) if s != t] == [
        "offered", "running", "done",
    ]  # fmt: skip


def _told_the_same(traces: Traces, site: str) -> None:
    """A site's update of a round has one hash, however often it was made, and that one counted."""
    opened = {key(e.body): e.body["model"] for e in traces.events if e.kind == "round.opened"}
    for entry in traces.logs[site]:
        if entry["kind"] == "left":
            name = key(entry)
            assert entry["model"] == opened[name]
            counted = traces.members[name].get(site)
            assert counted in (None, entry["sha256"]), f"{site} sent two updates in {name}"
    received = traces.said(site, "received")
    assert set(received.values()) <= {1}, f"{site} was told twice: {received}"


def _worked_once(traces: Traces, site: str) -> None:
    """A site that nobody touched trained once a round, and got a receipt for it."""
    rounds = Counter(key(r) for r in traces.records if site in r.members)
    for kind in ("left", "received"):
        said = traces.said(site, kind)
        assert said == rounds, f"{site} {kind}: missing {rounds - said}, too many {said - rounds}"
    dropped = [e for e in traces.logs[site] if e["kind"] == "dropped"]
    assert not dropped, f"{site} dropped {json.dumps(dropped)}"
