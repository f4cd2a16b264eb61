"""The discrete Gaussian distribution, sampled without floating-point error.

N_Z(0, sigma**2) gives the integer x a probability proportional to exp(-x**2 / (2 sigma**2)). Noise
that is an integer, on data that are integers, has no low bits to leak through (Mironov, CCS 2012).

Up to a sigma of 16 a table of all integers is inverted: one uniform number, one sample. Beyond, it
is a rejection sampler over cells of equal width t, in the manner of Canonne, Kamath and Steinke
(NeurIPS 2020, arXiv 2004.00010), with a table where they toss geometric coins:

    cell k      with probability proportional to exp(-(t k)**2 / (2 sigma**2)), by a table
    x = t k + u with u uniform in 0 .. t - 1
    accept x    with probability exp(-u (u + 2 t k) / (2 sigma**2))
    sign        a fair coin; a negative zero is rejected, or 0 would count twice

Every decision compares a uniform number U with a real number p. 32 bits of U and p in float64
decide all but about one in 2**22; where they lie too close to tell, 256 more bits of U are drawn
and p is computed to 100 decimal digits.

| error                                             | per sample | where it goes             |
|---------------------------------------------------|------------|---------------------------|
| a comparison of 256 bits that is still undecided  | < 2**-240  | delta: less than 2**-200  |
| what is left out, beyond 18 sigma                 | < 2**-230  | for 2**30 samples, which  |
| rounding of the table                             | < 2**-240  | is nothing beside a delta |

How long it takes depends on how often it rejects, not on how large the noise is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import Words
from hansa.core.vector import blocks
from hansa.errors import HansaError

MOST_SIGMA = 2.0**40
"""Larger noise is refused: up to here all products are exact or good to a few units in 2**53."""

_CELLS_PER_SIGMA = 8
"""5 % of the proposals are rejected; more cells would only make the table larger."""

_KNOWN = 32
"""Bits of U that decide nearly always."""

_BITS = 256
"""Bits of U where those do not decide."""

_MARGIN = 2.0 ** -(_KNOWN + 1) + 2.0**-44
"""Half a step of U, and more than the error of a float64 probability: see `_acceptance`."""

_SIGN = np.uint64(2**63)
_BLOCK = 32_768
_PRECISE = Context(prec=100, Emin=-100_000)


@dataclass(frozen=True, slots=True)
class _Table:
    """What is computed once for a sigma.

    Attributes:
      width: integers in a cell, t.
      first: integer of the first cell: 0, or the lowest of all where a cell is one integer.
      cells: P(cell < k) * 2**256 for k = 1, 2, ..., rounded.
      words: the highest 32 bits of each, after a 0 for the first cell.
      twice_variance: 2 sigma**2, exactly.
    """

    width: int
    first: int
    cells: tuple[int, ...] = field(repr=False)
    words: NDArray[np.uint32] = field(repr=False)
    twice_variance: Fraction


def discrete_gaussian(size: int, sigma: float, words: Words) -> NDArray[np.int64]:
    """(size,) independent samples of N_Z(0, sigma**2).

    Args:
      size: how many.
      sigma: the parameter; the standard deviation is at most that.
      words: uniform 64-bit words, secret wherever the noise protects anybody.

    Raises:
      HansaError: sigma is not above 0 and at most 2**40.
    """
    if not 0 < sigma <= MOST_SIGMA:
        raise HansaError(
            f"a discrete Gaussian of parameter {sigma:g} cannot be drawn",
            fix="use noise above 0 and a step that is not that much smaller",
        )
    table, samples = _table(sigma), np.empty(size, np.int64)
    for block in blocks(size, _BLOCK):
        target = samples[block]
        if table.width == 1:
            target[:] = _cells(_halves(len(target), words), table, words)
            target += table.first
        else:
            _fill(target, table, words)
    return samples


def _fill(target: NDArray[np.int64], table: _Table, words: Words) -> None:
    filled = 0
    while filled < len(target):
        missing = len(target) - filled
        some = _propose(missing + missing // 16 + 16, table, words)[:missing]
        target[filled : filled + len(some)] = some
        filled += len(some)


def _propose(count: int, table: _Table, words: Words) -> NDArray[np.int64]:
    """The accepted ones of `count` proposals, where cells are wide."""
    cell = _cells(_halves(count, words), table, words)
    drawn = words(count)
    negative, place = drawn >= _SIGN, drawn & (_SIGN - np.uint64(1))
    width = np.uint64(table.width)
    cut = _SIGN // width * width
    offset = (place - place // width * width).astype(np.int64)
    magnitude = cell * table.width + offset
    accepted = (place < cut) & ~(negative & (magnitude == 0))
    accepted &= _accept(offset, cell, table, words)
    return np.asarray(np.where(negative, -magnitude, magnitude)[accepted], np.int64)


def _halves(count: int, words: Words) -> NDArray[np.uint32]:
    """(count,) words of 32 bits, the same on every machine."""
    return words((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]


def _cells(uniform: NDArray[np.uint32], table: _Table, words: Words) -> NDArray[np.int64]:
    cell = np.searchsorted(table.words, uniform, side="right") - 1
    # The word of a boundary itself does not tell on which side of the boundary U lies.
    for i in np.flatnonzero(table.words[cell] == uniform):
        cell[i] = bisect_right(table.cells, _more_bits(int(uniform[i]), words))
    return cell


def _accept(
    offset: NDArray[np.int64], cell: NDArray[np.int64], table: _Table, words: Words
) -> NDArray[np.bool_]:
    """Bernoulli(exp(-u (u + 2 t k) / (2 sigma**2))) for each u and k."""
    uniform = _halves(len(offset), words)
    middle = (uniform + 0.5) * 2.0**-_KNOWN
    ahead = _acceptance(offset, cell, table) - middle
    accepted = ahead > 0
    for i in np.flatnonzero(np.abs(ahead) <= _MARGIN):
        number = _more_bits(int(uniform[i]), words)
        accepted[i] = number < _exactly(int(offset[i]), int(cell[i]), table)
    return accepted


def _acceptance(
    offset: NDArray[np.int64], cell: NDArray[np.int64], table: _Table
) -> NDArray[np.float64]:
    """The probability in float64.

    Its exponent is below 3 with a relative error of at most five roundings, so it is off by less
    than 15 * 2**-53, which the exponential turns into a relative error below 2**-48.
    """
    exponent = offset.astype(np.float64)
    exponent *= exponent + 2.0 * table.width * cell
    exponent *= -1.0 / float(table.twice_variance)
    return np.exp(exponent, out=exponent)


def _exactly(offset: int, cell: int, table: _Table) -> int:
    """The same probability times 2**256."""
    return _scaled(Fraction(offset * (offset + 2 * table.width * cell)) / table.twice_variance)


def _more_bits(word: int, words: Words) -> int:
    """256 bits of a uniform number of which the first 32 are known."""
    for more in words(_BITS // 64):
        word = word << 64 | int(more)
    return word >> _KNOWN


def _scaled(exponent: Fraction) -> int:
    """exp(-exponent) * 2**256, rounded; the error is less than one."""
    ratio = _PRECISE.divide(Decimal(-exponent.numerator), Decimal(exponent.denominator))
    return int(_PRECISE.multiply(_PRECISE.exp(ratio), Decimal(2**_BITS)))


@cache
def _table(sigma: float) -> _Table:
    width = max(1, math.floor(sigma / _CELLS_PER_SIGMA))
    twice_variance = 2 * Fraction(sigma) ** 2
    weights: list[int] = []
    while not weights or weights[-1]:
        weights.append(_scaled((width * len(weights)) ** 2 / twice_variance))
    weights.pop()
    first = 0
    if width == 1:
        first = 1 - len(weights)
        weights = [*weights[:0:-1], *weights]
    total, below, cells = sum(weights), 0, []
    for weight in weights[:-1]:  # what is beyond the last boundary belongs to the last cell
        below += weight
        cells.append((below << _BITS) // total)
    words = np.array([0, *(cell >> (_BITS - _KNOWN) for cell in cells)], np.uint32)
    return _Table(width, first, tuple(cells), words, twice_variance)
