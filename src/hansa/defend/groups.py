"""Scores of groups where only sums of groups can be read, and what a client adds to them.

    products of the groups' means ──► a score per group ──► excess over the round's median
                                                               │  the last `WINDOW` rounds
                                                               ▼
    what each client's presence adds to its group's score ◄── ridge regression on who was where

Groups are drawn anew in each round. Whoever spoils its group spoils every one that it is in; an
honest client shares a group with one of f bad clients in a share f (m - 1) / (n - 1) of its rounds,
where n clients form groups of m. The excess of a group is taken for the sum of what its members
add, and all of them are estimated together (least squares with a penalty; Hoerl and Kennard,
Technometrics 1970), so that a bad client explains the bad groups of its honest companions:

    minimise  sum over groups of (excess - sum over members of a_i)^2 + PATIENCE * sum of a_i^2

**The penalty is evidence for a client**: as if it had been in `PATIENCE` groups by itself that were
like the median. Without evidence the estimate is 0, and one bad round is no reason for anything.

**Excess counts up to `LIMIT`, and quarantine begins at half of it**: a rule over g groups bears
fewer than g / 2 bad clients, and those share less than half of an honest client's groups. So they
cannot have it quarantined, on average over the draws, though they know them beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from hansa.core.standing import GroupLikeness
from hansa.defend.scores import DIGITS, REFUSED, Score, scores_of
from hansa.defend.standing import WINDOW as LOOKED_BACK
from hansa.defend.standing import Standing, State

WINDOW = 50
"""Rounds whose groups are remembered."""

PATIENCE = 10.0
"""Rounds like the median that are counted in favour of each client."""

LIMIT = 3.0
"""What a group's score may exceed the round's median by; more counts as this."""

QUARANTINE_AT = LIMIT / 2
"""What a client adds to its groups' scores, from which on it is quarantined."""

WATCH_AT = LIMIT / 3
"""What a client adds to its groups' scores, from which on it is watched."""

_EXACT = 1e-20
"""Squared residual of the solution, as a share of the squared right side."""


@dataclass(frozen=True, slots=True)
class GroupScore:
    """What one group showed in one round.

    Attributes:
      members: whose updates are in its sum, by name.
      score: how far its mean stands out from those of the other groups.
    """

    members: tuple[str, ...]
    score: Score


@dataclass(frozen=True, slots=True, eq=False)
class GroupScores(Mapping[str, Score]):
    """The scores of a round's groups; as a mapping, each client's is that of its group.

    Attributes:
      groups: in the order of their members; a client is in one of them.
    """

    groups: tuple[GroupScore, ...]
    _of: Mapping[str, Score] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = {client: group.score for group in self.groups for client in group.members}
        object.__setattr__(self, "_of", found)

    def __getitem__(self, client: str) -> Score:
        return self._of[client]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupScores) and self.groups == other.groups

    def __hash__(self) -> int:
        return hash(self.groups)


def group_scores(likeness: GroupLikeness | None, refused: Sequence[str] = ()) -> GroupScores:
    """The scores of one round's groups, by the signs of `scores_of`.

    | groups                                     | scores                                       |
    |--------------------------------------------|----------------------------------------------|
    | fewer than 5                               | none but the refused: no group stands out    |
    | one whose sums no honest clients can have  | the score of a refused update                |
    | a client whose update was refused by itself| a group of one, refused                      |
    | in another order, members too              | the same                                     |

    Args:
      likeness: how the groups lie to each other; None if too few came.
      refused: clients whose update was refused before it was summed.

    Raises:
      HansaError: not one finite product for each pair of groups.
    """
    found = [GroupScore((client,), REFUSED) for client in refused]
    if likeness is not None:
        found += [GroupScore(tuple(sorted(group)), REFUSED) for group in likeness.refused]
        groups = [tuple(sorted(group)) for group in likeness.groups]
        order = sorted(range(len(groups)), key=lambda at: groups[at])
        names = [f"{number:08d}" for number in range(len(groups))]
        scores = scores_of(names, likeness.products[np.ix_(order, order)])
        found += [
            GroupScore(groups[at], scores[name])
            for name, at in zip(names, order, strict=True)
            if name in scores
        ]
    return GroupScores(tuple(sorted(found, key=lambda group: group.members)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is remembered of one round.

    Attributes:
      round: its number.
      groups: the members of each group, and what its score exceeded the round's median by.
    """

    round: int
    groups: tuple[tuple[tuple[str, ...], float], ...]

    @classmethod
    def of(cls, number: int, scores: GroupScores) -> Evidence:
        """Of a round; the median is that of the groups that were not refused, or 0."""
        usual = [group.score.total for group in scores.groups if not group.score.refused]
        middle = median(usual) if usual else 0.0
        return cls(
            number,
            tuple(
                (group.members, round(min(group.score.total - middle, LIMIT), DIGITS))
                for group in scores.groups
            ),
        )


def estimates(evidence: Iterable[Evidence], since: Mapping[str, int]) -> Mapping[str, float]:
    """What each client adds to the score of a group that it is in.

    | evidence                                   | estimate                                    |
    |--------------------------------------------|---------------------------------------------|
    | none of a client                           | it is not there                             |
    | all groups like the median                 | 0                                           |
    | alone in k groups that exceed it by e      | e k / (k + PATIENCE)                        |
    | two clients that are always together       | each the same, half of what both add        |
    | rounds, groups, members in another order   | the same                                    |

    Time and memory are proportional to the names in the evidence.

    Args:
      evidence: of some rounds.
      since: the round before which what a client was in is forgotten, with all who were in it.
    """
    groups = sorted(
        (members, excess)
        for each in evidence
        for members, excess in each.groups
        if all(each.round >= since.get(client, 0) for client in members)
    )
    clients = sorted({client for members, _ in groups for client in members})
    places = {client: place for place, client in enumerate(clients)}
    rows = np.repeat(np.arange(len(groups)), [len(members) for members, _ in groups])
    columns = np.array([places[client] for members, _ in groups for client in members], np.int64)
    excess = np.array([value for _, value in groups])
    found = _ridge(rows, columns, excess, len(clients))
    return {client: round(float(a), DIGITS) + 0.0 for client, a in zip(clients, found, strict=True)}


def _ridge(
    rows: NDArray[np.int64], columns: NDArray[np.int64], excess: NDArray[np.float64], clients: int
) -> NDArray[np.float64]:
    """(clients,) solution by conjugate gradients: few steps, as groups are drawn at random.

    Args:
      rows: group of each (group, member) pair.
      columns: member of each pair.
      excess: of each group.
      clients: how many.
    """

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """From groups to members."""
        return np.bincount(columns, values[rows], clients).astype(np.float64)

    def normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """To groups and back, and the penalty."""
        groups = np.bincount(rows, values[columns], len(excess)).astype(np.float64)
        return summed(groups) + PATIENCE * values

    solution = np.zeros(clients)
    residual = summed(excess)
    direction, left = residual, float(residual @ residual)
    enough = _EXACT * left
    for _ in range(2 * clients):
        if left <= enough:
            break
        along = normal(direction)
        step = left / float(direction @ along)
        solution = solution + step * direction
        residual = residual - step * along
        before, left = left, float(residual @ residual)
        direction = residual + left / before * direction
    return solution


def due(standing: Standing) -> bool:
    """Whether what a client adds to its groups' scores is enough for quarantine."""
    return standing.state in (State.TRUSTED, State.WATCH) and standing.mean >= QUARANTINE_AT


def inferred(standing: Standing, estimate: float, *, quarantine: bool) -> Standing:
    """The standing after one more round in a group.

    | before                | the estimate                            | after               |
    |-----------------------|-----------------------------------------|---------------------|
    | quarantined, expelled | any                                     | the same, unchanged |
    | trusted, watch        | `QUARANTINE_AT` or more                 | quarantined         |
    | trusted               | `WATCH_AT` or more                      | watch               |
    | watch                 | below that for the tenth time in a row  | trusted             |

    Args:
      standing: before.
      estimate: what the client adds to its groups' scores.
      quarantine: whether it may be quarantined now; if not, it is watched on.
    """
    if standing.state not in (State.TRUSTED, State.WATCH):
        return standing
    recent = (*standing.recent, estimate)[-LOOKED_BACK:]
    seen = replace(standing, rounds=standing.rounds + 1, recent=recent, estimate=estimate)
    if due(seen) and quarantine:
        return replace(seen, state=State.QUARANTINED)
    if estimate >= WATCH_AT:
        return replace(seen, state=State.WATCH)
    cleared = len(recent) == LOOKED_BACK and max(recent) < WATCH_AT
    return replace(seen, state=State.TRUSTED) if cleared else seen


def reason(standing: Standing) -> str:
    """Why a client stands where the scores of its groups have put it, in words."""
    told = f"being in a group added {standing.mean:.1f} to the group's score"
    if standing.state is State.TRUSTED:
        return f"{told}, and less than {WATCH_AT:g} in each of its last {LOOKED_BACK} rounds"
    least = QUARANTINE_AT if standing.mean >= QUARANTINE_AT else WATCH_AT
    return f"{told}, estimated from {standing.rounds} rounds; {least:g} is enough"
