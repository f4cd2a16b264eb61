"""Masks: pseudo-random ring vectors from 32-byte seeds, added where they are needed.

A mask is the keystream of AES-256 in counter mode from a zero counter block (NIST SP 800-38A), as
little-endian words: 32 bits wide for moduli 2**32 and 2**24, 16 bits wide for 2**16. Each seed is
used for one mask. A power of two divides the number of words, so no residue is more likely than
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words: TypeAlias = NDArray[Any]
"""Ring elements, uint32 or, modulo 2**16, uint16."""

BLOCK_BYTES: Final = 1 << 17
"""Keystream made at once: it and the sums it is added to stay in the processor's cache."""

_ZEROS: Final = bytes(BLOCK_BYTES)


def word(bits: int) -> np.dtype[Any]:
    """The type that sums modulo 2**bits are computed in."""
    return np.dtype("<u2" if bits == 16 else "<u4")


def apply(words: Words, bits: int, plus: Sequence[bytes] = (), minus: Sequence[bytes] = ()) -> None:
    """Adds the masks of some seeds to `words` and takes those of others away, in place.

    Args:
      words: (d,) ring elements of the type `word(bits)`.
      bits: modulus 2**bits.
      plus: seeds (32 bytes each) of masks to add.
      minus: seeds of masks to subtract.
    """
    adding, taking = [_stream(seed) for seed in plus], [_stream(seed) for seed in minus]
    buffer = bytearray(BLOCK_BYTES)
    stream = np.frombuffer(buffer, words.dtype)
    for start in range(0, len(words), len(stream)):
        part = words[start : start + len(stream)]
        mask, zeros = stream[: len(part)], _ZEROS[: part.nbytes]
        for made in adding:
            made.update_into(zeros, buffer)
            part += mask
        for made in taking:
            made.update_into(zeros, buffer)
            part -= mask
        if bits == 24:
            part &= np.uint32((1 << 24) - 1)


def _stream(seed: bytes) -> Any:
    return Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
