"""Seams of standing: what rules that look at each update can tell of clients, and who judges it.

                 cohort ──► asked: without those that weigh nothing
    gather ──► partial ──► likeness: products of the updates, or of groups' means; no update
                  │            │
                  ▼            ▼
    finish, or finish_capped   judge.observe ──► standing, part of the state of the next round

The core passes on what was seen; what it means is the judge's, and what it says of a client is in
no round's record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from hansa.core.parts import Aggregator, Dropout, Facts, Partial
from hansa.core.vector import Layout, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """How the updates of a round lie to each other.

    Attributes:
      clients: whose they are, n names, each once.
      products: (n, n) scalar products of their deltas per unit of weight, as the rule sees them:
        old ones shortened.
    """

    clients: tuple[str, ...]
    products: NDArray[Any] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class GroupLikeness:
    """How the sums of a round's groups lie to each other, where no single update can be read.

    Attributes:
      groups: the members of each of g groups; a client is in one of them.
      products: (g, g) scalar products of the groups' mean deltas per unit of weight.
      refused: members of groups with sums that no honest clients can have.
    """

    groups: tuple[tuple[str, ...], ...]
    products: NDArray[Any] = field(repr=False)
    refused: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a training round showed of its clients.

    Attributes:
      round: its number.
      attempt: its try.
      likeness: of those who counted, or of their groups; None if too few came.
      refused: clients whose update broke its contract.
      late: how many rounds old each update was that was not fresh, by its client.
    """

    round: int
    attempt: int
    likeness: Likeness | GroupLikeness | None
    refused: tuple[str, ...]
    late: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@runtime_checkable
class Compares(Aggregator, Protocol):
    """An aggregator that keeps updates until the end, so that they can be compared."""

    def likeness(self, partial: Partial) -> Likeness:
        """Of all updates with weight; `partial` stays as it is."""

    def finish_capped(
        self, partial: Partial, layout: Layout, facts: Facts, capped: frozenset[str], cap: float
    ) -> Vector:
        """As `finish`, where what some clients change in the result counts a share `cap`.

        `partial` is consumed.
        """


@runtime_checkable
class ComparesGroups(Aggregator, Protocol):
    """An aggregator that keeps the sums of groups until the end, so that they can be compared."""

    def group_likeness(
        self,
        partial: Partial,
        decode: Callable[[Vector], Vector],
        layout: Layout,
        facts: Facts,
    ) -> GroupLikeness:
        """Of all groups with weight; `partial` stays as it is.

        Args:
          partial: what was folded.
          decode: the stages' server halves, for one sum; consumes it.
          layout: segments.
          facts: of each segment.
        """


class Judge(Protocol):
    """Who makes a standing of what was seen: pure, state in and state out."""

    @property
    def cap(self) -> float:
        """What a client counts that is neither trusted nor left out."""

    def weight(self, standing: Any, client: str) -> float:
        """What a client counts: 1, `cap` or 0.

        Args:
          standing: what `observe` returned last; None before the first round.
          client: its name.
        """

    def observe(self, standing: Any, seen: Seen) -> Any:
        """The standing of all clients after one more round, a frozen value."""


def asked(judge: Judge | None, standing: Any, drawn: Sequence[str], quorum: int) -> tuple[str, ...]:
    """The clients of a draw that are asked: all where the others cannot make a round.

    Who weighs nothing and is asked all the same counts as a client that is capped.
    """
    if judge is None:
        return tuple(drawn)
    kept = tuple(client for client in drawn if judge.weight(standing, client) > 0)
    return kept if len(kept) >= quorum else tuple(drawn)


def finished(
    judge: Judge | None,
    standing: Any,
    aggregator: Aggregator,
    partial: Partial,
    layout: Layout,
    facts: Facts,
) -> Vector:
    """The aggregator's total, with what each client counts by its standing."""
    if judge is None or not isinstance(aggregator, Compares):
        return aggregator.finish(partial, layout, facts)
    capped = frozenset(c for c in partial.members if judge.weight(standing, c) < 1)
    if not capped:
        return aggregator.finish(partial, layout, facts)
    return aggregator.finish_capped(partial, layout, facts, capped, judge.cap)


def likeness_of(
    judge: Judge | None,
    aggregator: Aggregator,
    partial: Partial,
    decode: Callable[[Vector], Vector],
    layout: Layout,
    facts: Facts,
) -> Likeness | GroupLikeness | None:
    """What the judge is shown of a round; to be called before its updates are consumed."""
    if judge is None:
        return None
    if isinstance(aggregator, ComparesGroups):
        return aggregator.group_likeness(partial, decode, layout, facts)
    return aggregator.likeness(partial) if isinstance(aggregator, Compares) else None


class Place(Protocol):
    """Which round it is; a `core.contribute.RoundTask` knows."""

    @property
    def round(self) -> int:
        """Its number."""

    @property
    def attempt(self) -> int:
        """Its try."""


def observed(
    judge: Judge | None,
    standing: Any,
    place: Place,
    likeness: Likeness | GroupLikeness | None,
    dropouts: Iterable[Dropout],
    late: Mapping[str, int],
) -> Any:
    """The standing after a round; as it was where nobody judges."""
    if judge is None:
        return standing
    refused = tuple(sorted({dropout.client for dropout in dropouts if dropout.refused}))
    return judge.observe(standing, Seen(place.round, place.attempt, likeness, refused, late))
