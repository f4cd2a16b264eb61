"""What an attacker makes of some runs: a score for each canary, beside the coin that decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hansa.privacy.audits.one_run import Coins, Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of canaries.

    Attributes:
      scores: (m,) above 0 for canaries that seem to be in.
      coins: (m,) true for those that were.
    """

    scores: Floats
    coins: Coins

    def first(self, count: int) -> Scores:
        """Of the first canaries only."""
        return Scores(self.scores[:count], self.coins[:count])

    def centred(self) -> Scores:
        """Of which about half are above 0: for scores whose middle nobody knows beforehand.

        The middle is halfway between the quartiles, one of which is among the canaries that are
        in and one among those that are out, if they can be told apart. It does not know the coins.
        """
        low, high = np.quantile(self.scores, (0.25, 0.75))
        return Scores(self.scores - (low + high) / 2, self.coins)


def pooled(runs: Sequence[Scores]) -> Scores:
    """Those of independent runs on disjoint canaries, by parallel composition one run."""
    return Scores(
        np.concatenate([run.scores for run in runs]), np.concatenate([run.coins for run in runs])
    )
