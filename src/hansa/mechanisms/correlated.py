"""Noise that the coordinator adds, and takes back in the rounds that follow: DP-FTRL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hansa.core.events import Event
from hansa.core.keys import KeyedNoise, Noise, Words
from hansa.core.parts import Relation
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import HansaError, PlanError
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.matrices import Kind, Strategy, choose
from hansa.privacy.matrices.stream import Draw, Memory, advance
from hansa.privacy.statement_parts import Generation


@dataclass(frozen=True, slots=True)
class CorrelatedGaussian:
    """Adds the rows of s C^-1 Z to the deltas' sums of successive rounds, so that they cancel.

    A model is the sum of its rounds, and in that sum most of the noise cancels. It needs no
    sampling: its guarantee holds for clients who come when they like, as long as the same one comes
    at most k times and at least b rounds apart (Kairouz et al., ICML 2021, arXiv 2103.00039;
    Choquette-Choo et al., NeurIPS 2023, arXiv 2306.08153; McMahan et al., 2024, arXiv
    2408.08868). Whoever chooses the clients sees to that: the sampler.

    s is noise multiplier * sensitivity of a row * sensitivity of C / sqrt(k), so that k
    participations cost together as much as k Gaussians of that multiplier. Where participations are
    `orthogonal` each of them is one; otherwise only all together are, so that no sampling amplifies
    them, and a client that took part less often has a guarantee that is no better.

    As in `CentralGaussian`, sums and noise are rounded to a grid. What is released is C^-1 (C X +
    s Z) rounded, with X on the grid: post-processing of Gaussian noise on C X. The rounding of X
    moves a row that a client took part in by at most two steps in each coordinate, and no other
    row; the sensitivity counts that in.

    v1 is central: the coordinator adds the noise, after secure aggregation if there is any. Noise
    that clients add themselves cannot be correlated without showing the coordinator what to take
    back, so the two are not combined.

    | segment                               | event                          | released |
    |---------------------------------------|--------------------------------|----------|
    | delta                                 | Gaussian(noise_multiplier)     | yes      |
    | metrics, with noise of their own      | Gaussian(metrics_noise_...)    | yes      |
    | metrics of size 0                     | NoOp                           | no       |
    | weight                                | NoOp                           | no       |
    | within: a norm bound that adapts      | PlanError                      |          |
    | no norm bound                         | PlanError                      |          |
    | a mean by a realised count            | PlanError                      |          |
    | noise multiplier not above 0          | PlanError                      |          |
    | noise of the clients' own             | PlanError                      |          |
    | no such schema, or too many rounds    | PlanError                      |          |

    Attributes:
      strategy: kind of the matrix C: identity, tree, banded or blt.
      rounds: T, most deltas that will be released.
      separation: b, fewest rounds from one participation of a client to its next; 1 = every round.
      participations: k, most participations of a client; 0 = as many as fit.
      noise_multiplier: of one participation; the whole run costs as much as k such Gaussians.
      metrics_noise_multiplier: of the metric sums of one participation, with independent noise.
      relation: the two datasets that the guarantee compares.
    """

    strategy: Kind
    rounds: int
    separation: int
    participations: int
    noise_multiplier: float
    metrics_noise_multiplier: float = 0.0
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __str__(self) -> str:
        matrix = self.matrix
        often = "once" if matrix.participations == 1 else f"{matrix.participations:,} times"
        apart = (
            f", at least {matrix.separation:,} rounds apart" if matrix.participations > 1 else ""
        )
        return (
            f"Gaussian noise of {self.noise_multiplier:g} sensitivities for each participation, "
            f"correlated over {self.rounds:,} rounds so that it cancels in the model "
            f"({_NAMES[matrix.kind]}; {matrix.source}); holds for clients that take part at most "
            f"{often}{apart} ({self.relation.value})"
        )

    @property
    def matrix(self) -> Strategy:
        """The matrix that is taken, with its sensitivity.

        Raises:
          PlanError: the numbers are no schema, or no matrix is recorded for so many rounds.
        """
        try:
            return choose(self.strategy, self.rounds, self.separation, self.participations)
        except HansaError as error:
            raise PlanError(self, error.message, error.fix) from error

    @property
    def orthogonal(self) -> bool:
        """Whether each participation is a Gaussian of its own, which sampling can amplify.

        Only for sampling within groups that take turns: a client of group r mod b is drawn in
        rounds r, r + b, ... (Choquette-Choo et al., NeurIPS 2023, arXiv 2306.08153, theorem 4).
        """
        return self.matrix.orthogonal

    def infer(self, spec: UpdateSpec) -> Event:
        """What one participation reveals in the segment.

        Raises:
          PlanError: see the table.
        """
        if spec.segment == "within":
            raise PlanError(
                self,
                "a norm bound that adapts changes the unit of the noise from round to round, so "
                "that it does not cancel",
                "set privacy.clip_quantile = 0",
            )
        if spec.segment == "delta" and spec.size:
            if spec.noise > 0:
                raise PlanError(
                    self,
                    "clients add noise of their own, which nobody can take back in later rounds",
                    "let the coordinator alone add noise, or use independent noise",
                )
            _ = self.matrix
        try:
            return self._independent.infer(spec)
        except PlanError as error:
            raise PlanError(self, error.because, error.fix) from error

    def releases(self, spec: UpdateSpec) -> bool:
        """Deltas and metric sums; never a weight."""
        return self._independent.releases(spec)

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:
        """The (size,) float64 sum with independent noise, for the metrics; `total` is consumed.

        A delta would be released at the same price, but with noise that no other round takes back.
        """
        return self._independent.apply(total, spec, noise)

    def remember(self, spec: UpdateSpec, rows: int, noise: KeyedNoise) -> Memory:
        """What the noise needs to go on after `rows` releases; all rows before are drawn again."""
        memory, matrix = Memory(), self.matrix
        if not matrix.kept:
            return Memory(row=rows)
        for row in range(rows):
            memory, _ = advance(matrix, memory, _draw(noise, row, spec.size))
        return memory

    def correlate(
        self, memory: Memory, row: int, total: Vector, spec: UpdateSpec, noise: KeyedNoise
    ) -> tuple[Memory, Vector]:
        """The memory after release number `row`, from 0, and the (size,) float64 sum with noise.

        Sum and noise are both on the grid. `memory` and `total` are consumed. The same noise gives
        the same row, so that a release that was not recorded can be made again.

        Raises:
          HansaError: the memory is of another row, or the matrix has no such row.
        """
        if row != memory.row:
            raise HansaError(
                f"the noise of release {row} cannot follow from what is remembered of release "
                f"{memory.row}",
                fix="call remember for the release that comes next",
            )
        if row >= self.rounds:
            raise HansaError(
                f"release {row + 1} is one more than the {self.rounds} that the noise was made for",
                fix="submit a job with more rounds, whose noise is found for all of them",
            )
        memory, drawn = advance(self.matrix, memory, _draw(noise, row, spec.size))
        return memory, self._row.apply(total, spec, _Given(drawn))

    def scale(self, spec: UpdateSpec) -> tuple[float, float]:
        """Standard deviation of the samples of s Z and the step of the grid, in model units."""
        return self._row.scale(spec)

    def generation(self, spec: UpdateSpec) -> Generation:
        """Normal samples in floating point, rounded to a grid after they were correlated."""
        return self._row.generation(spec)

    @property
    def _independent(self) -> CentralGaussian:
        return CentralGaussian(self.noise_multiplier, self.metrics_noise_multiplier, self.relation)

    @property
    def _row(self) -> CentralGaussian:
        """What releases a row: the same mechanism, handed the row's noise.

        Its grid leaves room for 64 standard deviations of a sample; no row's noise has more than 7
        times the deviation of a sample, and no sample more than 9.
        """
        matrix = self.matrix
        share = matrix.sens / math.sqrt(matrix.participations)
        return CentralGaussian(self.noise_multiplier * share, relation=self.relation)


@dataclass(frozen=True, slots=True)
class _Given:
    """Noise that was drawn already; whoever asks gets a copy, as the next row may need it."""

    samples: NDArray[np.float64]

    @property
    def replayable(self) -> bool:
        return False

    def normal(self, size: int) -> NDArray[np.float64]:
        return self.samples[:size].copy()

    def words(self, *path: str | int) -> Words:
        raise NotImplementedError(f"a row has no random words for {path}")


def _draw(noise: KeyedNoise, row: int, size: int) -> Draw:
    """The samples that a row completes: its own, and those of the nodes that end with it."""

    def draw(level: int) -> NDArray[np.float64]:
        path = ("row", row) if level == 0 else ("row", row, "level", level)
        return noise.derive(*path).normal(size)

    return draw


_NAMES = {
    "identity": "independent noise",
    "tree": "tree aggregation",
    "banded": "banded matrix",
    "blt": "buffered linear Toeplitz matrix",
}
