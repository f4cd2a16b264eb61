"""What a round showed becomes scores, and scores become standings: `core.standing.Judge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hansa.core.standing import GroupLikeness, Seen
from hansa.defend.groups import group_scores
from hansa.defend.scores import REFUSED, Score, scores_of
from hansa.defend.standing import CAP
from hansa.defend.standings import Standings, Transition


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known after a round.

    Attributes:
      standings: of all clients.
      changes: all transitions of the run so far, in order.
      round: the round that was observed last.
      attempt: its try.
      scores: of the clients that were seen in it, or of their groups.
    """

    standings: Standings
    changes: tuple[Transition, ...] = ()
    round: int = -1
    attempt: int = 0
    scores: Mapping[str, Score] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores each training round, and lets standings follow.

    Attributes:
      most: most clients that may be quarantined at a time.
      trusted: the client whose data the job trusts; empty if there is none.
      grouped: whether only sums of groups can be read: these are scored then.
    """

    most: int
    trusted: str = ""
    grouped: bool = False

    @property
    def cap(self) -> float:
        """What a watched client counts."""
        return CAP

    def weight(self, standing: Judged | None, client: str) -> float:
        """What a client counts: 1 before the first round."""
        return 1.0 if standing is None else standing.standings.weight(client)

    def observe(self, standing: Judged | None, seen: Seen) -> Judged:
        """The standings after one more round, void or not: refused updates speak in both."""
        before = Judged(Standings(self.most)) if standing is None else standing
        scores = scored(seen, self.trusted, grouped=self.grouped)
        return judged(before, seen.round, seen.attempt, scores)


def scored(seen: Seen, trusted: str = "", *, grouped: bool = False) -> Mapping[str, Score]:
    """The scores of what was seen, beside a client that is trusted.

    They are `hansa.defend.groups.GroupScores` where groups were seen.
    """
    if isinstance(seen.likeness, GroupLikeness):
        return group_scores(seen.likeness, seen.refused)
    if grouped:
        return group_scores(None, seen.refused)
    if seen.likeness is None:
        return MappingProxyType(dict.fromkeys(seen.refused, REFUSED))
    clients, products = seen.likeness.clients, seen.likeness.products
    return scores_of(clients, products, seen.refused, trusted=trusted, late=seen.late)


def judged(before: Judged, number: int, attempt: int, scores: Mapping[str, Score]) -> Judged:
    """What is known after a round with these scores."""
    after, changes = before.standings.observe(number, scores)
    return Judged(after, (*before.changes, *changes), number, attempt, scores)
