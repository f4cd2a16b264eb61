"""Batches that each example joins by itself: Poisson sampling, which amplifies privacy.

Amplification is proved for independent draws with the stated probability (Abadi et al., CCS 2016),
not for shuffled batches of one size, so the draws compare whole random words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import Noise, Words
from hansa.core.vector import blocks
from hansa.errors import HansaError


def poisson_batches(
    examples: int, rate: float, steps: int, noise: Noise
) -> Iterator[NDArray[np.intp]]:
    """Positions of each step's examples, in order; a batch may be empty.

    Each example is in each batch with probability floor(rate * 2**64) / 2**64 exactly,
    independently of all others: if its own random 64-bit word is below that many. A rate of 1
    takes all.

    Args:
      examples: how many there are.
      rate: probability of one example in one batch, in (0, 1].
      steps: number of batches.
      noise: where the random words come from; one that repeats gives the same batches again.

    Raises:
      HansaError: `rate` is not in (0, 1]; at once, not with the first batch.
    """
    if not 0 < rate <= 1:
        raise HansaError(
            f"an example cannot be drawn with probability {rate:g}",
            fix="use a rate above 0 and at most 1",
        )
    words, below = noise.words("batches"), int(math.ldexp(rate, 64))
    return (_drawn(examples, below, words) for _ in range(steps))


def _drawn(examples: int, below: int, words: Words) -> NDArray[np.intp]:
    """Positions of the examples whose words are below a bound in 0..2**64."""
    if below == 2**64:  # more than a word can hold: every word is below
        return np.arange(examples, dtype=np.intp)
    bound = np.uint64(below)
    parts = [
        np.flatnonzero(words(block.stop - block.start) < bound) + block.start
        for block in blocks(examples)
    ]
    return np.concatenate([np.empty(0, np.intp), *parts])
