"""Randomness: keyed and replayable for everything that must be repeatable, fresh for privacy.

`ReplayKey` and `NoiseSource` are different types on purpose. Whoever knows a replay key can
recompute everything drawn from it, so noise drawn from one protects nobody: a real federation
takes its noise from `NoiseSource` only.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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


class KeyedNoise(Noise, Protocol):
    """Noise that whoever holds its key can draw again, one stream for each purpose."""

    def derive(self, *path: str | int) -> KeyedNoise:
        """The noise for one purpose."""


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
        text = canonical.listed(self.key.hex(), *path)
        return ReplayKey(hashlib.sha256(text.encode("ascii")).digest())

    def generator(self, *path: str | int) -> np.random.Generator:
        """A generator for one purpose (Philox: counter-based, same stream on every machine)."""
        seed = int.from_bytes(self.derive(*path).key[:16], "big")
        return np.random.Generator(np.random.Philox(key=seed))

    def permutation(self, size: int, *path: str | int) -> NDArray[np.int64]:
        """What `generator(*path).permutation(size)` gives, sooner: a simulation draws many."""
        seed = self.derive(*path).key
        low, high = int.from_bytes(seed[8:16], "big"), int.from_bytes(seed[:8], "big")
        return _shuffler.permutation(low, high, size)

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


class _Shuffler(threading.local):
    """One generator for each thread, set back to the start of a stream instead of made anew."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def permutation(self, low: int, high: int, size: int) -> NDArray[np.int64]:
        """The first permutation of the stream with a key of two 64-bit words."""
        self._start["state"]["key"][:] = low, high
        self._bits.state = self._start
        return self._generator.permutation(size)


_shuffler = _Shuffler()


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
            samples[block] = _box_muller(block.stop - block.start, os.urandom)
        return samples

    def words(self, *path: str | int) -> Words:  # noqa: ARG002  # every draw is new, whatever for
        """The system's own words: no state here, so that a forked process repeats nothing."""
        return lambda size: np.frombuffer(os.urandom(8 * size), np.uint64)


@dataclass(frozen=True, slots=True)
class SecretNoise:
    """Noise from a secret key: unknown to everybody else, the same again for who holds the key.

    Correlated noise needs it: the noise of one round must be known in the rounds that follow, also
    after a crash. The streams are those of SHAKE-256 (FIPS 202), an extendable-output function.

    Attributes:
      key: 32 secret bytes, from the operating system's entropy, used for one run of one job.
    """

    key: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> SecretNoise:
        """A new key."""
        return cls(os.urandom(32))

    @property
    def replayable(self) -> bool:
        """False: the key is secret."""
        return False

    def derive(self, *path: str | int) -> SecretNoise:
        """The noise for one purpose, such as `("row", 3)`."""
        text = canonical.dumps(["hansa/noise", *path]).encode("ascii")
        return SecretNoise(hmac.digest(self.key, text, "sha256"))

    def normal(self, size: int) -> NDArray[np.float64]:
        """(size,) standard normal samples, as those of `NoiseSource`."""
        samples = np.empty(size, np.float64)
        for number, block in enumerate(blocks(size)):
            size = block.stop - block.start
            samples[block] = _box_muller(size, partial(_secret_bytes, self.key, number))
        return samples

    def words(self, *path: str | int) -> Words:
        """The words for one purpose; each call gives the next ones."""
        key, calls = self.derive("words", *path).key, itertools.count()
        return lambda size: np.frombuffer(_secret_bytes(key, next(calls), 8 * size), np.uint64)


def _secret_bytes(key: bytes, block: int, size: int) -> bytes:
    return hashlib.shake_256(key + block.to_bytes(8, "big")).digest(size)


def _box_muller(size: int, random: Callable[[int], bytes]) -> NDArray[np.float64]:
    half = (size + 1) // 2
    bits = np.frombuffer(random(16 * half), np.uint64) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1): the logarithm exists
    radius = np.sqrt(-2.0 * np.log(uniform[:half]))
    angle = (2.0 * np.pi) * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
