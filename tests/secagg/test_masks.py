"""Masks: the right keystream, that they cancel, and that what they cover looks like nothing."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from hansa.core.vector import Vector
from hansa.secagg.masks import BLOCK_BYTES, apply, word
from tests.support.cohort import masked_update, people

MODULI = (16, 24, 32)
SIZES = (1, 2, 3, 5, 7, 31, 1000, 5001)

FEW = 1e-9
"""Chance that a correct program fails one of the statistical comparisons."""


def keystream(seed: bytes, count: int) -> bytes:
    """AES-256 of counter blocks from zero, one electronic codebook block after the other."""
    cipher = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor()
    blocks = -(-count // 16)
    return cipher.update(b"".join(i.to_bytes(16, "big") for i in range(blocks)))[:count]


def mask(seed: bytes, size: int, bits: int) -> NDArray[np.uint64]:
    """(size,) the mask of a seed without any of the code under test."""
    width = 2 if bits == 16 else 4
    stream = keystream(seed, width * size)
    words = [
        int.from_bytes(stream[at : at + width], "little") for at in range(0, len(stream), width)
    ]
    return np.array(words, np.uint64) % (1 << bits)


def ring(size: int, bits: int, seed: int = 0) -> Vector:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 << bits, size, dtype=np.uint32).astype(word(bits))


# ------------------------------------------------------------------ the keystream


def test_the_independent_keystream_is_that_of_sp_800_38a():
    """F.5.5, CTR-AES256.Encrypt, the output block of the first counter block."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    assert cipher.update(counter).hex() == "0bdf7df1591716335e9a8b15c860c502"


@pytest.mark.parametrize("bits", MODULI)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_is_the_keystream_in_little_endian_words(size, bits):
    words, seed = np.zeros(size, word(bits)), bytes(range(32))
    apply(words, bits, [seed])
    assert (words == mask(seed, size, bits)).all()


@pytest.mark.parametrize("bits", MODULI)
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("blocks", [1, 2])
def test_masks_go_on_over_the_borders_of_blocks(bits, blocks, off):
    size = blocks * BLOCK_BYTES // word(bits).itemsize + off
    words, seed = ring(size, bits), b"\7" * 32
    expected = (words.astype(np.uint64) + mask(seed, size, bits)) % (1 << bits)
    apply(words, bits, [seed])
    assert (words == expected).all()


def test_words_are_little_endian_whatever_the_machine():
    assert [word(bits).str for bits in MODULI] == ["<u2", "<u4", "<u4"]


# ------------------------------------------------------------------ adding and taking away


@given(
    st.sampled_from(MODULI),
    st.integers(1, 300),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_masks_are_added_and_taken_away_modulo_the_ring(bits, size, plus, minus):
    words = ring(size, bits)
    expected = words.astype(np.int64)
    for seed in plus:
        expected += mask(seed, size, bits).astype(np.int64)
    for seed in minus:
        expected -= mask(seed, size, bits).astype(np.int64)
    apply(words, bits, plus, minus)
    assert (words == expected % (1 << bits)).all()


@pytest.mark.parametrize("bits", MODULI)
def test_what_one_adds_the_other_takes_away(bits):
    words, seeds = ring(99_999, bits), [bytes([i]) * 32 for i in range(4)]
    before = words.copy()
    apply(words, bits, seeds)
    assert (words != before).mean() > 0.99
    apply(words, bits, (), seeds)
    assert (words == before).all()
    apply(words, bits, seeds, seeds)
    assert (words == before).all()


# ------------------------------------------------------------------ what a masked update shows


def uniform(values: NDArray[np.integer], cells: int) -> bool:
    """Whether counts of `cells` equally likely values are as even as chance makes them."""
    counts = np.bincount(values, minlength=cells)
    expected = len(values) / cells
    statistic = float(((counts - expected) ** 2 / expected).sum())
    low, high = chi2.ppf([FEW / 2, 1 - FEW / 2], cells - 1)
    return len(counts) == cells and bool(low < statistic < high)


def uncorrelated(one: Vector, other: Vector, bits: int) -> bool:
    """Pearson's coefficient of two vectors, and of their difference in the ring and either."""
    pairs = [(one, other), ((one - other) & ((1 << bits) - 1), other)]
    # The coefficient's standard error is 1 / sqrt(n); 6.2 of them have a chance below 1e-9.
    return all(
        abs(np.corrcoef(a.astype(float), b.astype(float))[0, 1]) < 6.2 / np.sqrt(len(a))
        for a, b in pairs
    )


@pytest.mark.parametrize("bits", MODULI)
def test_a_masked_update_is_uniform_and_tells_nothing_of_the_update_or_the_next_attempt(bits):
    """The vector is as unlike noise as can be: a ramp of small numbers. Both are masked twice."""
    size = 1 << 20
    folk, update = people(3), (np.arange(size) % 1000).astype(np.uint32)
    first = masked_update(folk, update, bits, attempt=0).astype(np.uint32)
    second = masked_update(folk, update, bits, attempt=1).astype(np.uint32)
    for masked in (first, second, (second - first) & np.uint32((1 << bits) - 1)):
        for byte in range(bits // 8):
            assert uniform(masked >> 8 * byte & 255, 256), f"byte {byte}"
        assert uniform(masked & 1, 2)
        assert uniform(masked >> bits - 1, 2)
        assert uniform(masked & 4095, 4096)
        assert uniform(masked >> bits - 12, 4096)
        assert uncorrelated(masked, update, bits)
    assert uncorrelated(first, second, bits)
    assert (first == second).mean() < 1e-3
