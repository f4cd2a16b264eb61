"""How far each update of a round stands out from the others, by signs that honest data rarely give.

    (n, n) scalar products of the updates ──► signs of each client ──► one score each, 0 to 10

All signs follow from scalar products: no update is kept, and none is looked at twice.

| sign      | value                                     | who shows it                           |
|-----------|-------------------------------------------|----------------------------------------|
| norm      | length over the round's median length     | scaling, replaced models, loud noise   |
| cosine    | cosine to the geometric median of all     | whoever pulls against the others       |
| closest   | cosine to the client most like it         | noise: honest work has a common part   |
| spectral  | projection on the axis of most variance   | groups that pull one way (as DnC)      |
| trusted   | cosine to one trusted client's update     | who would raise the loss on its data   |
| staleness | age of the update in rounds               | nobody: it is told, and never counts   |

A sign's z says how unusual the value is, only to the bad side: norms that are too long, cosines
that are too small, projections that are too large. Quantities of one round are compared with its
median and 1.4826 times its median absolute deviation, which a minority cannot move, or with the
least spread below where all are alike. The cosine is judged as it is: to point against the others
is unusual whatever they have in common.

That an update is old is held against nobody, so the z of its age is 0: an appeal can see it. The
other signs are of updates as the rule sees them, which shortens old ones, and judge an old one like
any other: a looser bound for them hides slow clients that lie, and honest slow ones do without
(`bench/defend_signs.py`, `docs/standing.md`).

A step of length h along the update u changes the trusted client's loss by h times the scalar
product of u and the loss's gradient, to first order, and what that client sends points against its
gradient. So a negative cosine is a loss that rises, on examples of a client that is trusted: also
where an honest client trains on what the trusted one has never seen. It cannot speak against a
client by itself. The trusted client is not scored: everybody is compared with it.

What no sign shows: updates within what honest ones differ by (ALIE, small backdoors, labels that
are wrong where data are skewed), and work that was not done but points the right way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.centres import weiszfeld
from hansa.aggregators.robust.kept import FEWEST
from hansa.errors import HansaError

MOST = 10.0
"""The largest score; an update that breaks its contract has it."""

NORM_SPREAD = 0.25
"""Least spread of logarithms of lengths: 28 %."""

CLOSEST_SPREAD = 0.5
"""Least spread of logarithms of cosines to the closest client: a factor of 1.65."""

CLOSEST_LEAST = 0.02
"""Cosines below are taken as this one: there is nothing in common."""

SPECTRAL_SPREAD = 1.0
"""Least spread of projections, in median lengths."""

AGAINST = 8.0
"""z of an update that is opposite to the centre, linear from a right angle on."""

TRUSTED = 2.0
"""z of an update that is opposite to the trusted client's, linear from a right angle on."""

DIGITS = 4
"""Decimals that are kept: what is read is what counts, and what is counted again."""

_SMOOTHING = 1e-6
"""Of the geometric median, as a share of the median distance."""

_MAD = 1.4826
"""Median absolute deviations in a standard deviation of normal numbers."""


NOBODY: Mapping[str, int] = MappingProxyType({})
"""No client."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of one client in one round.

    Attributes:
      value: what was measured, in the table's units.
      z: how unusual it is to the bad side, in robust standard deviations; 0 or more.
    """

    value: float
    z: float


NOTHING = Sign(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Score:
    """What one client showed in one round.

    Attributes:
      norm: its length over the median length.
      cosine: to the geometric median.
      closest: cosine to the client most like it.
      spectral: projection on the direction of most variance, in median lengths.
      trusted: cosine to the trusted client's update; nothing where nobody is trusted.
      staleness: rounds that the update is old; its z is always 0.
      refused: whether a check refused what it sent; there are no other signs then.
    """

    norm: Sign = NOTHING
    cosine: Sign = NOTHING
    closest: Sign = NOTHING
    spectral: Sign = NOTHING
    trusted: Sign = NOTHING
    staleness: Sign = NOTHING
    refused: bool = False

    @property
    def total(self) -> float:
        """0 to `MOST`: the root of the sum of squares of the signs, or `MOST` if refused."""
        if self.refused:
            return MOST
        squares = sum(sign.z * sign.z for sign in self.signs.values())
        return min(round(math.sqrt(squares), DIGITS), MOST)

    @property
    def signs(self) -> dict[str, Sign]:
        """The signs by name."""
        return {
            "norm": self.norm,
            "cosine": self.cosine,
            "closest": self.closest,
            "spectral": self.spectral,
            "trusted": self.trusted,
            "staleness": self.staleness,
        }


REFUSED = Score(refused=True)
"""The score of a client whose update broke its contract."""


def scores_of(
    clients: Sequence[str],
    products: NDArray[np.float64],
    refused: Sequence[str] = (),
    *,
    trusted: str = "",
    late: Mapping[str, int] = NOBODY,
) -> Mapping[str, Score]:
    """The scores of one round.

    | updates                              | scores                                     |
    |--------------------------------------|--------------------------------------------|
    | fewer than 5                         | none but the refused: nobody stands out    |
    | all the same, or all zero            | 0                                          |
    | one of zeros among others            | 0: no length, no direction                 |
    | in another order                     | the same                                   |
    | a client is both counted and refused | refused                                    |
    | the trusted client's                 | none, unless it is refused                 |
    | the trusted client is not there      | as if nobody were trusted                  |

    Args:
      clients: whose updates they are, n names.
      products: (n, n) scalar products of the updates per unit of weight.
      refused: clients whose update a check refused.
      trusted: the client whose data the job trusts; empty if there is none.
      late: how many rounds old each update is that is not fresh, by its client.

    Raises:
      HansaError: not one product for each pair of clients, or one that is not finite.
    """
    n = len(clients)
    if products.shape != (n, n) or len(set(clients)) != n or not np.isfinite(products).all():
        raise HansaError(
            f"scores need finite (n, n) products of {n} clients with a name each",
            fix="give one row and one column for each client, and each client once",
        )
    order = sorted(range(n), key=lambda i: clients[i])
    names = [clients[i] for i in order]
    found: list[Score] = []
    if n >= FEWEST:
        ages = np.array([late.get(name, 0) for name in names])
        place = names.index(trusted) if trusted in names else None
        found = _signs(products[np.ix_(order, order)], ages, place)
    scores = {n: score for n, score in zip(names, found, strict=False) if n != trusted}
    return MappingProxyType({**scores, **dict.fromkeys(sorted(refused), REFUSED)})


def _signs(gram: NDArray[np.float64], ages: NDArray[np.int64], trusted: int | None) -> list[Score]:
    """Signs of n updates from their (n, n) products, (n,) ages, and the trusted one's place."""
    lengths = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    typical = float(np.median(lengths))
    if typical <= 0:
        return [Score(staleness=_sign(age, 0.0)) for age in ages]
    gram, lengths = gram / typical**2, lengths / typical
    real = lengths > 0
    weights = weiszfeld(gram, _SMOOTHING)
    cosine = _to_centre(gram, lengths, weights)
    closest = _to_closest(gram, lengths)
    spectral = _projections(gram, weights)
    norm_z = _unusual(np.log(np.maximum(lengths, 1e-12)), NORM_SPREAD)
    closest_z = _unusual(-np.log(np.maximum(closest, CLOSEST_LEAST)), CLOSEST_SPREAD) * real
    spectral_z = _unusual(spectral, SPECTRAL_SPREAD)
    against = AGAINST * np.maximum(-cosine, 0.0)
    to_trusted = _to_one(gram, lengths, trusted)
    rising = TRUSTED * np.maximum(-to_trusted, 0.0)
    return [
        Score(
            norm=_sign(lengths[i], norm_z[i]),
            cosine=_sign(cosine[i], against[i]),
            closest=_sign(closest[i], closest_z[i]),
            spectral=_sign(spectral[i], spectral_z[i]),
            trusted=_sign(to_trusted[i], rising[i]),
            staleness=_sign(ages[i], 0.0),
        )
        for i in range(len(lengths))
    ]


def _sign(value: float, z: float) -> Sign:
    return Sign(round(float(value), DIGITS), round(float(z), DIGITS))


def _to_centre(
    gram: NDArray[np.float64], lengths: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) cosines to the weighted mean; 0 where one of both has no length."""
    along = gram @ weights
    both = lengths * math.sqrt(max(float(weights @ along), 0.0))
    return np.asarray(
        np.clip(np.divide(along, both, out=np.zeros_like(along), where=both > 0), -1, 1)
    )


def _to_one(
    gram: NDArray[np.float64], lengths: NDArray[np.float64], place: int | None
) -> NDArray[np.float64]:
    """(n,) cosines to one of the updates; 0 where there is none, or no length."""
    if place is None:
        return np.zeros(len(lengths))
    return _to_centre(gram, lengths, np.eye(len(lengths))[place])


def _to_closest(gram: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) largest cosines to another one; 0 where one of both has no length."""
    both = np.outer(lengths, lengths)
    cosines = np.divide(gram, both, out=np.zeros_like(gram), where=both > 0)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(np.clip(cosines.max(axis=1), -1, 1))


def _projections(gram: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) lengths along the direction in which updates differ most from their robust centre."""
    shift = np.eye(len(gram)) - weights
    centred = shift @ gram @ shift.T
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    return np.asarray(np.abs(vectors[:, -1]) * math.sqrt(max(float(values[-1]), 0.0)))


def _unusual(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """(n,) robust z-scores, 0 below the median."""
    middle = np.median(values)
    spread = max(_MAD * float(np.median(np.abs(values - middle))), least)
    return np.asarray(np.maximum((values - middle) / spread, 0.0))
