"""A client's standing: what its scores of many rounds add up to, and what follows.

                3 of its last 10 rounds,            5 of its last 10,
                or a slow drift                     and its mean is as high
    trusted ───────────────────────────► watch ───────────────────────────► quarantined
    counts in full  ◄─────────────────── counts half  ◄──────────────────── does not count,
                     none of its last 10               a person releases it  is not asked
                                                                              │ a person decides
                                                                              ▼
                                                                            expelled

A round speaks against a client if its score is `SUSPICIOUS` or more. The mean is exponential with a
half-life of ten rounds, without a bias to its start at zero. The drift is a cumulative sum (Page,
Biometrika 1954) of what scores exceed `ALLOWANCE` by, each counted up to `SUSPICIOUS`: it finds
clients that stay just below. It leads to watch and never further, since a client with rare data may
stay there for honest reasons.

Rounds are those in which the client was seen; a round without it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from hansa.defend.scores import DIGITS, Score

SUSPICIOUS = 4.5
"""Score from which on a round speaks against a client."""

WINDOW = 10
"""Rounds that are looked back on."""

WATCH_AFTER = 3
"""Rounds of the window that speak against a client: watch."""

QUARANTINE_AFTER = 5
"""Rounds of the window that speak against a client: quarantine, if its mean does as well."""

HALF_LIFE = 10
"""Rounds after which a score counts half in the mean."""

ALLOWANCE = 3.0
"""Score that a client may have for ever."""

DRIFTED = 15.0
"""Sum of what exceeded the allowance from which on a client is watched."""

CAP = 0.5
"""What a watched client counts."""

_DECAY: float = 2 ** (-1 / HALF_LIFE)


class State(Enum):
    """Where a client stands."""

    TRUSTED = "trusted"
    WATCH = "watch"
    QUARANTINED = "quarantined"
    EXPELLED = "expelled"

    @property
    def weight(self) -> float:
        """What the client counts: 1, `CAP` or 0."""
        return {State.TRUSTED: 1.0, State.WATCH: CAP}.get(self, 0.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one client.

    Attributes:
      state: where it stands.
      rounds: rounds that it was seen in since it was last trusted anew.
      recent: its scores of the last `WINDOW` of them, oldest first.
      average: exponential mean from a start of zero.
      drift: cumulative sum of what its scores exceeded the allowance by.
      estimate: what it adds to the score of its group, where only groups are scored; `recent` are
        earlier estimates then, and nothing else is counted. None where clients are scored.
      since: the round before which groups that it was in are forgotten.
    """

    state: State = State.TRUSTED
    rounds: int = 0
    recent: tuple[float, ...] = ()
    average: float = 0.0
    drift: float = 0.0
    estimate: float | None = None
    since: int = 0

    @property
    def mean(self) -> float:
        """Exponential mean of the scores, as if it had always been what it was; 0 at first.

        Where only groups are scored, the estimate.
        """
        if self.estimate is not None:
            return self.estimate
        return self.average / (1 - _DECAY**self.rounds) if self.rounds else 0.0

    @property
    def against(self) -> int:
        """Rounds of the window that speak against it."""
        return sum(score >= SUSPICIOUS for score in self.recent)

    @property
    def weight(self) -> float:
        """What it counts; in a sum of a group, where nobody can be made to count half, all."""
        if self.state is State.WATCH and self.estimate is not None:
            return 1.0
        return self.state.weight

    @property
    def due(self) -> bool:
        """Whether its rounds are enough for quarantine."""
        return (
            self.state in (State.TRUSTED, State.WATCH)
            and self.against >= QUARANTINE_AFTER
            and round(self.mean, DIGITS) >= SUSPICIOUS  # as scores are: of equal ones, the same
        )


def observe(standing: Standing, score: Score, *, quarantine: bool = True) -> Standing:
    """The standing after one more round.

    | before                | the round                              | after                |
    |-----------------------|----------------------------------------|----------------------|
    | quarantined, expelled | any                                    | the same, unchanged  |
    | trusted               | the third of ten against it            | watch                |
    | watch                 | the fifth of ten, with a mean as high  | quarantined          |
    | watch                 | the tenth in a row that is not, and no | trusted              |
    |                       | drift left that would watch it again   |                      |

    Args:
      standing: before.
      score: what the client showed.
      quarantine: whether it may be quarantined now; if not, it is watched on.
    """
    if standing.state not in (State.TRUSTED, State.WATCH):
        return standing
    total = score.total
    seen = replace(
        standing,
        rounds=standing.rounds + 1,
        recent=(*standing.recent, total)[-WINDOW:],
        average=_DECAY * standing.average + (1 - _DECAY) * total,
        drift=max(0.0, standing.drift + min(total, SUSPICIOUS) - ALLOWANCE),
    )
    return replace(seen, state=_next(seen, quarantine))


def _next(seen: Standing, quarantine: bool) -> State:
    if seen.due and quarantine:
        return State.QUARANTINED
    if seen.against >= WATCH_AFTER or seen.drift >= DRIFTED:
        return State.WATCH
    cleared = len(seen.recent) == WINDOW and not seen.against
    return State.TRUSTED if cleared else seen.state


def released(standing: Standing, number: int) -> Standing:
    """The standing of a client that a person let in again: watched, all forgotten.

    Args:
      standing: before.
      number: the next round; groups of earlier ones are not held against it.
    """
    if standing.estimate is None:
        return Standing(State.WATCH)
    return Standing(State.WATCH, estimate=0.0, since=number)


def expelled(standing: Standing) -> Standing:
    """The standing of a client that a person sent away, with what was held against it."""
    return replace(standing, state=State.EXPELLED)
