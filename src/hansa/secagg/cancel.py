"""Cancelling masks: the secrets that enough clients gave shares of, and what they stand for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from hansa.errors import RoundVoid
from hansa.secagg import masks
from hansa.secagg.agreement import KeyPair, commitment, derive
from hansa.secagg.graph import Graph
from hansa.secagg.messages import Advert, Answer, Survivors, members
from hansa.secagg.parameters import Scheme
from hansa.secagg.session import Session
from hansa.secagg.shamir import combine

AT_ONCE = 256
"""Masks that are expanded side by side: each keeps a cipher's state."""

DRAWS = 1000
"""Choices of shares to try at random where several are wrong, before a round is void."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who takes part, as the server knows it.

    Attributes:
      scheme: degree and threshold.
      graph: who is whose neighbour.
      context: what keys and signatures are bound to.
      leaves: hashes of the adverts, in order.
      adverts: by number.
      numbers: by name.
    """

    scheme: Scheme
    graph: Graph = field(repr=False)
    context: bytes = field(repr=False)
    leaves: bytes = field(repr=False)
    adverts: tuple[Advert, ...] = field(repr=False)
    numbers: Mapping[str, int] = field(repr=False)


def cancel(
    session: Session,
    cohort: Cohort,
    survivors: Survivors,
    commitments: Mapping[int, bytes],
    answers: Mapping[int, Answer],
    total: masks.Words,
) -> None:
    """Takes the survivors' own masks, and the dropped clients' pairwise masks, out of a sum.

    Args:
      session: what the sum is about.
      cohort: who took part.
      survivors: whose vectors are in the sum.
      commitments: to the seeds of own masks, by number.
      answers: shares, by the number of who gave them.
      total: (d,) the sum, changed in place.

    Raises:
      RoundVoid: too few shares of a secret, or shares of another one than was committed to.
    """
    context = cohort.context
    seeds = {holder: answer.seeds for holder, answer in answers.items()}
    keys = {holder: answer.keys for holder, answer in answers.items()}
    plus: list[bytes] = []
    minus: list[bytes] = []
    for number in members(survivors.alive):
        committed = commitments[number]
        shares = _given(cohort, number, seeds)
        seed = _secret(shares, cohort, number, partial(_is_committed, context, committed))
        minus.append(derive(seed, context, b"own", number))
    for number in members(survivors.dropped):
        shares = _given(cohort, number, keys)
        key = cohort.adverts[number].masking_key
        pair = KeyPair.of(_secret(shares, cohort, number, partial(_is_key_of, key)))
        for other in cohort.graph.neighbours(number):
            if survivors.alive >> other & 1:
                public = cohort.adverts[other].masking_key
                seed = pair.agree(public, context, b"pair", (number, other))
                # A survivor with the smaller number added the mask, one with the larger took it.
                (minus if other < number else plus).append(seed)
    for start in range(0, max(len(plus), len(minus)), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        masks.apply(total, session.bits, plus[part], minus[part])


def _given(
    cohort: Cohort, number: int, shares: Mapping[int, Mapping[int, bytes]]
) -> dict[int, bytes]:
    """The shares of one client's secret by their points, from those of each holder."""
    holders = (cohort.graph.neighbours(number) | {number}) & shares.keys()
    return {holder + 1: shares[holder][number] for holder in holders if number in shares[holder]}


def _is_committed(context: bytes, committed: bytes, seed: bytes) -> bool:
    return commitment(seed, context) == committed


def _is_key_of(public: bytes, secret: bytes) -> bool:
    return KeyPair.of(secret).public == public


def _secret(
    shares: Mapping[int, bytes], cohort: Cohort, number: int, right: Callable[[bytes], bool]
) -> bytes:
    """The secret that shares give; while there are spare ones, a few wrong ones do no harm."""
    threshold = cohort.scheme.threshold
    for chosen in _choices(sorted(shares), threshold):
        try:
            secret = combine({point: shares[point] for point in chosen}, threshold)
        except ValueError:
            continue
        if right(secret):
            return secret
    raise RoundVoid(
        f"the shares for '{cohort.adverts[number].name}' are too few, or not those it gave out",
        fix="let the next attempt start afresh; if it repeats, a client sends wrong shares",
    )


def _choices(points: Sequence[int], threshold: int) -> Iterator[Sequence[int]]:
    """Which shares to try: runs around the circle, one of which misses any single point, then any.

    Where nobody lies the first will do, and it is the same one for every secret.
    """
    spare = len(points) - threshold
    for first in range(len(points) if spare > 0 else spare + 1):
        yield (*points[first : first + threshold], *points[: max(first - spare, 0)])
    if spare > 1:
        rng = random.Random(0)
        for _ in range(DRAWS):
            yield rng.sample(points, threshold)
