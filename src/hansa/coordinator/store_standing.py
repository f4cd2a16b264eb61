"""Standings in the store: observed in the transaction that closes a round, hence exactly once.

    close_round ──► scores of the round, standings, `standing.observed`, `standing.changed`*
    a person    ──► standing, `standing.changed` with the person's name

The events are in the audit chain. The scores themselves lie in a table of their own; the event
holds their SHA-256, so that a changed score shows. What a replay needs is read in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from hansa.coordinator import schema, store_jobs
from hansa.coordinator.store_events import Subject, append, storable
from hansa.core import canonical
from hansa.defend.groups import WINDOW, Evidence, GroupScores
from hansa.defend.judge import Judged
from hansa.defend.replay import Decision, Entry, History, Observation, decided
from hansa.defend.standing import Standing, State
from hansa.defend.standings import Standings, Transition
from hansa.defend.text import (
    scores_of_words,
    scores_words,
    standing_of,
    standing_words,
    transition_of,
    transition_words,
)
from hansa.errors import StoreError

OBSERVED, CHANGED = "standing.observed", "standing.changed"


@dataclass(frozen=True, slots=True)
class Change:
    """A recorded transition: when, and the operator who decided it; empty where scores did."""

    transition: Transition
    time: float
    by: str


class StandingRows(Subject):
    """The standings of all jobs."""

    def standings(self, job: str, most: int) -> Standings:
        """Where the clients of a job stand; `most` is the plan's."""
        return self.database.read(lambda c: standings_of(c, job, most))

    def standing_changes(self, job: str) -> list[Change]:
        """All transitions of a job, in order."""
        return self.database.read(lambda c: [_change(row) for row in _events(c, job, CHANGED)])

    def decide_standing(
        self, job: str, most: int, decision: Decision, by: str, now: float
    ) -> Transition:
        """A person releases or expels a quarantined client.

        Args:
          job: where it is quarantined.
          most: as `standings`.
          decision: what.
          by: the operator's name.
          now: when.

        Raises:
          HansaError: the client is not quarantined.
          StoreError: there is no such job.
        """

        def step(connection: Connection) -> Transition:
            store_jobs.get(connection, job)
            after, change = decided(standings_of(connection, job, most), decision)
            _write(connection, job, {change.client: after[change.client]})
            body = {**transition_words(change), "by": by}
            append(connection, job, CHANGED, body, now)
            return change

        return self.database.write(step, leased=True)

    def standing_history(self, job: str, most: int) -> History:
        """All that a replay counts again.

        Raises:
          StoreError: recorded scores are missing, or are not those that the audit chain names.
        """
        return self.database.read(lambda c: _history(c, job, most))


def observe_round(connection: Connection, job: str, seen: Judged, now: float) -> None:
    """Adds what a round showed to the transaction that closes it.

    The standings are the store's, so that what a person decided meanwhile holds.
    """
    text = canonical.dumps(scores_words(seen.scores))
    name = {"round": seen.round, "attempt": seen.attempt}
    before = standings_of(connection, job, seen.standings.most)
    connection.execute(insert(schema.standing_scores).values(job=job, **name, scores_json=text))
    body = {**name, "clients": len(seen.scores), "scores_sha256": canonical.digest_of(text)}
    append(connection, job, OBSERVED, body, now)
    after, changes = before.observe(seen.round, seen.scores)
    _write(connection, job, {client: after[client] for client in seen.scores})
    for change in changes:
        append(connection, job, CHANGED, {**transition_words(change), "by": ""}, now)


def standings_of(connection: Connection, job: str, most: int) -> Standings:
    """Where the clients of a job stand."""
    table = schema.standings
    rows = connection.execute(select(table).where(table.c.job == job).order_by(table.c.client))
    found = {row.client: standing_of(json.loads(row.standing_json)) for row in rows}
    return Standings(most, MappingProxyType(found), _evidence(connection, job))


def _evidence(connection: Connection, job: str) -> tuple[Evidence, ...]:
    """Of the last rounds, oldest first, from the scores of their groups; none of clients' own."""
    table = schema.standing_scores
    grouped = table.c.scores_json.startswith('{"groups":[', autoescape=True)
    rows = connection.execute(
        select(table)
        .where((table.c.job == job) & grouped)
        .order_by(table.c.round.desc(), table.c.attempt.desc())
        .limit(WINDOW)
    ).all()
    known = [(row.round, scores_of_words(json.loads(row.scores_json))) for row in reversed(rows)]
    return tuple(Evidence.of(n, scores) for n, scores in known if isinstance(scores, GroupScores))


def _write(connection: Connection, job: str, changed: Mapping[str, Standing]) -> None:
    if not changed:
        return
    table = schema.standings
    here = (table.c.job == job) & table.c.client.in_(sorted(changed))
    connection.execute(delete(table).where(here))
    connection.execute(
        insert(table),
        [
            {
                "job": job,
                "client": client,
                "state": standing.state.value,
                "standing_json": canonical.dumps(standing_words(standing)),
            }
            for client, standing in sorted(changed.items())
        ],
    )


def _history(connection: Connection, job: str, most: int) -> History:
    table = schema.standing_scores
    rows = connection.execute(select(table).where(table.c.job == job))
    scores = {(row.round, row.attempt): row.scores_json for row in rows}
    entries: list[Entry] = []
    changes = []
    for row in _events(connection, job, OBSERVED, CHANGED):
        said = json.loads(row.entry)
        body = said["body"]
        if said["kind"] == OBSERVED:
            entries.append(_observation(job, body, scores.get((body["round"], body["attempt"]))))
            continue
        change = transition_of(body)
        changes.append(change)
        if body["by"]:
            entries.append(Decision(change.client, change.round, change.after, change.reason))
    return History(entries, changes, standings_of(connection, job, most))


def _observation(job: str, body: Mapping[str, Any], text: str | None) -> Observation:
    if text is None or canonical.digest_of(text) != body["scores_sha256"]:
        raise StoreError(
            f"the scores of round {body['round']}, attempt {body['attempt']} of job '{job}' are "
            "not those that the audit trail names",
            fix="find out who changed the store; restore it from a copy whose chain is whole",
        )
    return Observation(body["round"], scores_of_words(json.loads(text)))


def _events(connection: Connection, job: str, *kinds: str) -> Iterable[Row[Any]]:
    table = schema.events
    rows = connection.execute(select(table).where(table.c.job == job).order_by(table.c.seq))
    return [row for row in rows if json.loads(row.entry)["kind"] in kinds]


def _change(row: Row[Any]) -> Change:
    said = json.loads(row.entry)
    return Change(transition_of(said["body"]), said["time"], said["body"]["by"])


def decision_of(client: str, number: int, after: State, reason: str) -> Decision:
    """A person's decision, with words that every database takes."""
    return Decision(client, number, after, storable(reason))
