"""Appeal by replay: all transitions are counted again from what was recorded, and compared.

recorded scores, decisions of people ──► the same pure functions ──► the same transitions?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from hansa.defend.scores import Score
from hansa.defend.standing import State
from hansa.defend.standings import Standings, Transition
from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class Observation:
    """The scores of one round, as they were recorded."""

    round: int
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about one client.

    Attributes:
      client: about whom.
      round: the next round then.
      after: WATCH for a release, EXPELLED for an expulsion.
      reason: as the person gave it.
    """

    client: str
    round: int
    after: State
    reason: str


Entry: TypeAlias = Observation | Decision


@dataclass(frozen=True, slots=True)
class History:
    """What was recorded of a job.

    Attributes:
      entries: observations and decisions, in order.
      changes: the transitions that were recorded, in order.
      standings: where everybody stands now, as recorded.
    """

    entries: Sequence[Entry]
    changes: Sequence[Transition]
    standings: Standings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a replay.

    Attributes:
      rounds: observations that were counted again.
      changes: transitions that they give.
      differences: what was recorded otherwise, in words; empty if all agrees.
    """

    rounds: int
    changes: tuple[Transition, ...]
    differences: tuple[str, ...] = field(default=())


def decided(standings: Standings, decision: Decision) -> tuple[Standings, Transition]:
    """The standings after a person's decision.

    Raises:
      HansaError: the client is not quarantined.
    """
    act = standings.release if decision.after is State.WATCH else standings.expel
    return act(decision.client, decision.round, decision.reason)


def replay(history: History) -> Verdict:
    """Counts again from the first round on.

    | history                                   | differences                             |
    |-------------------------------------------|-----------------------------------------|
    | as it was written                         | none                                    |
    | a score was changed                       | the transitions that follow from it     |
    | a transition was added, left out, changed | that one                                |
    | a decision about who was not quarantined  | that one                                |
    | a standing now does not follow            | that client                             |
    """
    standings = Standings(history.standings.most)
    changes: list[Transition] = []
    wrong: list[str] = []
    rounds = 0
    for entry in history.entries:
        if isinstance(entry, Observation):
            rounds += 1
            standings, new = standings.observe(entry.round, entry.scores)
            changes += new
            continue
        try:
            standings, change = decided(standings, entry)
            changes.append(change)
        except HansaError as error:
            wrong.append(f"round {entry.round}: a decision cannot be: {error.message}")
    wrong += _compared(history.changes, changes)
    clients = sorted({*standings.clients, *history.standings.clients})
    wrong += [
        f"'{c}' is recorded as {history.standings[c].state.value} and is {standings[c].state.value}"
        if history.standings[c].state is not standings[c].state
        else f"what is recorded of '{c}' does not follow from its scores"
        for c in clients
        if history.standings[c] != standings[c]
    ]
    return Verdict(rounds, tuple(changes), tuple(wrong))


def _compared(recorded: Sequence[Transition], counted: Sequence[Transition]) -> Iterable[str]:
    for change in recorded:
        if change not in counted:
            yield f"recorded, and does not follow: {told(change)}"
    for change in counted:
        if change not in recorded:
            yield f"follows, and is not recorded: {told(change)}"


def told(change: Transition) -> str:
    """A transition in words, with its reason."""
    return (
        f"round {change.round}: {change.client} {change.before.value} -> {change.after.value}: "
        f"{change.reason}"
    )
