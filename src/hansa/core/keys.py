"""Randomness: keyed and replayable for everything that must be repeatable, fresh for privacy.

`ReplayKey` and `NoiseSource` are different types on purpose. Whoever knows a replay key can
recompute everything drawn from it, so noise drawn from one protects nobody: a real federation
takes its noise from `NoiseSource` only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core import canonical
from hansa.core.vector import blocks

Words: TypeAlias = Callable[[int], NDArray[np.uint64]]
"""Independent uniform 64-bit words, (size,) at a time; each call gives the next ones."""


class Noise(Protocol):
    """Where noise is taken from: by mechanisms, and by clients that add their own share."""

    @property
    def replayable(self) -> bool:
        """Whether anyone can draw the same noise again."""

    def normal(self, size: int) -> NDArray[np.float64]:
        """(size,) independent standard normal samples."""

    def words(self, *path: str | int) -> Words:
        """Random bits for one purpose, for samplers that compute in integers."""


@dataclass(frozen=True, slots=True)
class ReplayKey:
    """A key from which independent random streams are derived by naming their purpose.

    Streams depend on the path alone, never on the order in which they are asked for.
    """

    key: bytes = field(repr=False)

    @classmethod
    def of_seed(cls, seed: int) -> ReplayKey:
        """The key for a job's seed."""
        return cls(hashlib.sha256(f"hansa/replay/{seed}".encode()).digest())

    def derive(self, *path: str | int) -> ReplayKey:
        """The key for one purpose, such as `("round", 3, "client", "kiel", "batches")`."""
        text = canonical.dumps([self.key.hex(), *path])
        return ReplayKey(hashlib.sha256(text.encode("ascii")).digest())

    def generator(self, *path: str | int) -> np.random.Generator:
        """A generator for one purpose (Philox: counter-based, same stream on every machine)."""
        seed = int.from_bytes(self.derive(*path).key[:16], "big")
        return np.random.Generator(np.random.Philox(key=seed))

    @property
    def replayable(self) -> bool:
        """True: noise from a key can be subtracted by whoever knows the key."""
        return True

    def normal(self, size: int) -> NDArray[np.float64]:
        """(size,) standard normal samples; for simulation only."""
        return self.generator("normal").standard_normal(size)

    def words(self, *path: str | int) -> Words:
        """The same words for the same purpose; for simulation only."""
        source = self.generator("words", *path).bit_generator

        def draw(size: int) -> NDArray[np.uint64]:
            return np.asarray(source.random_raw(size), np.uint64)

        return draw


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Noise from the operating system's entropy: never the same twice, known to nobody."""

    @property
    def replayable(self) -> bool:
        """False: every draw is new."""
        return False

    def normal(self, size: int) -> NDArray[np.float64]:
        """(size,) standard normal samples by Box and Muller (1958) from 53-bit uniforms.

        Floating point makes the tails and the lowest bits imperfect, so callers round the noise
        to a coarse grid before they add it (Mironov, CCS 2012).
        """
        samples = np.empty(size, np.float64)
        for block in blocks(size):
            samples[block] = _box_muller(block.stop - block.start)
        return samples

    def words(self, *path: str | int) -> Words:  # noqa: ARG002  # every draw is new, whatever for
        """The system's own words: no state here, so that a forked process repeats nothing."""
        return lambda size: np.frombuffer(os.urandom(8 * size), np.uint64)


def _box_muller(size: int) -> NDArray[np.float64]:
    half = (size + 1) // 2
    bits = np.frombuffer(os.urandom(16 * half), np.uint64) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1): the logarithm exists
    radius = np.sqrt(-2.0 * np.log(uniform[:half]))
    angle = (2.0 * np.pi) * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
