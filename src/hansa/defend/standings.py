"""The standing of all clients of a run: pure state, fed with the scores of one round at a time.

    standings = Standings.of(population, quorum)
    standings, transitions = standings.observe(number, scores_of(clients, products, refused))
    standings.quarantined

Nothing depends on an engine, on the order of clients or on when an update came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hansa.defend import groups
from hansa.defend.groups import Evidence, GroupScores
from hansa.defend.scores import Score
from hansa.defend.standing import Standing, State, expelled, observe, released
from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one client's state, with what it rests on.

    Attributes:
      client: whose.
      round: the round after which it holds.
      before: the state before.
      after: the state since.
      reason: why, in words.
      recent: the scores, or estimates, of the rounds that it rests on, oldest first.
      score: what the client, or its group, showed in the last of them; None where a person
        decided.
    """

    client: str
    round: int
    before: State
    after: State
    reason: str
    recent: tuple[float, ...]
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Standings:
    """Who counts with what weight.

    Attributes:
      most: most clients that are quarantined by their scores at a time. Beyond it clients are
        watched on: a majority cannot be outvoted, and a run needs its quorum.
      clients: by name; who is not there is trusted.
      evidence: of the last rounds, oldest first, where only groups are scored.
    """

    most: int
    clients: Mapping[str, Standing] = field(default_factory=lambda: MappingProxyType({}))
    evidence: tuple[Evidence, ...] = ()

    @classmethod
    def of(cls, population: int, quorum: int) -> Standings:
        """Everybody is trusted; more than half of the population and the quorum always remain."""
        return cls(max(population - max(quorum, population // 2 + 1), 0))

    def __getitem__(self, client: str) -> Standing:
        return self.clients.get(client, Standing())

    def weight(self, client: str) -> float:
        """What the client counts: 1, 0.5 or 0."""
        return self[client].weight

    @property
    def quarantined(self) -> frozenset[str]:
        """Clients that do not count: quarantined or expelled."""
        return frozenset(c for c, standing in self.clients.items() if standing.weight == 0)

    @property
    def watched(self) -> frozenset[str]:
        """Clients that count half, or all where only groups are scored."""
        return frozenset(c for c, s in self.clients.items() if s.state is State.WATCH)

    def observe(
        self, number: int, scores: Mapping[str, Score]
    ) -> tuple[Standings, tuple[Transition, ...]]:
        """The standings after a round, and what changed, by name.

        Where more clients are due for quarantine than may be, those with the highest mean are
        first, and of equals the first by name.

        Args:
          number: of the round.
          scores: of the clients that were seen in it, or of their groups.
        """
        if isinstance(scores, GroupScores):
            return self._observe_groups(number, scores)

        def step(client: str, quarantine: bool) -> Standing:
            return observe(self[client], scores[client], quarantine=quarantine)

        return self._moved(number, scores, step, lambda standing: standing.due)

    def _observe_groups(
        self, number: int, scores: GroupScores
    ) -> tuple[Standings, tuple[Transition, ...]]:
        """As `observe`, from what each client adds to the scores of its groups."""
        evidence = (*self.evidence, Evidence.of(number, scores))[-groups.WINDOW :]
        since = {client: standing.since for client, standing in self.clients.items()}
        found = groups.estimates(evidence, since)

        def step(client: str, quarantine: bool) -> Standing:
            return groups.inferred(self[client], found.get(client, 0.0), quarantine=quarantine)

        after, changes = self._moved(number, scores, step, groups.due)
        return replace(after, evidence=evidence), changes

    def _moved(
        self,
        number: int,
        scores: Mapping[str, Score],
        step: Callable[[str, bool], Standing],
        due: Callable[[Standing], bool],
    ) -> tuple[Standings, tuple[Transition, ...]]:
        """Lets each client that was seen take its step; who is due and may not go, stays."""
        tried = {client: step(client, False) for client in scores}
        ready = sorted((c for c in tried if due(tried[c])), key=lambda c: (-tried[c].mean, c))
        room = max(self.most - len(self.quarantined), 0)
        chosen = frozenset(ready[:room])
        after = {client: step(client, client in chosen) for client in sorted(scores)}
        changes = tuple(
            Transition(c, number, self[c].state, s.state, reason_of(s), s.recent, scores[c])
            for c, s in after.items()
            if s.state is not self[c].state
        )
        return self._with(after), changes

    def release(self, client: str, number: int, reason: str) -> tuple[Standings, Transition]:
        """A person lets a quarantined client in again, watched.

        Raises:
          HansaError: it is not quarantined.
        """
        before = self[client]
        if before.state is not State.QUARANTINED:
            raise HansaError(
                f"'{client}' is {before.state.value}, not quarantined",
                fix="only who is quarantined can be released; who was expelled needs a new invite",
            )
        return self._decided(client, number, released(before, number), reason)

    def expel(self, client: str, number: int, reason: str) -> tuple[Standings, Transition]:
        """A person sends a quarantined client away for good.

        Raises:
          HansaError: it is not quarantined.
        """
        before = self[client]
        if before.state is not State.QUARANTINED:
            raise HansaError(
                f"'{client}' is {before.state.value}, not quarantined",
                fix="only who is quarantined can be expelled; any site can be shut out by "
                "'hansa revoke SITE'",
            )
        return self._decided(client, number, expelled(before), reason)

    def _decided(
        self, client: str, number: int, after: Standing, reason: str
    ) -> tuple[Standings, Transition]:
        before = self[client]
        change = Transition(client, number, before.state, after.state, reason, before.recent)
        return self._with({client: after}), change

    def _with(self, changed: Mapping[str, Standing]) -> Standings:
        return replace(self, clients=MappingProxyType({**self.clients, **changed}))


def reason_of(standing: Standing) -> str:
    """Why a client stands where its scores have put it, in words."""
    if not standing.rounds:
        return "a person let it in again"
    if standing.estimate is not None:
        return groups.reason(standing)
    if standing.state is State.TRUSTED:
        return "none of its last 10 rounds speaks against it"
    told = f"{standing.against} of its last {len(standing.recent)} rounds speak against it"
    if standing.state is State.QUARANTINED:
        return f"{told}, and its mean score is {standing.mean:.1f}"
    return told if standing.against else f"its scores have stayed high: {standing.drift:.1f} so far"


def names(standings: Standings, state: State) -> Sequence[str]:
    """The clients in a state, by name."""
    return sorted(c for c, standing in standings.clients.items() if standing.state is state)
