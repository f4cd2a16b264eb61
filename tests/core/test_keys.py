"""Keyed and fresh randomness."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import stats

from hansa.core.keys import NoiseSource, ReplayKey

KEY = ReplayKey.of_seed(7)


def test_a_stream_is_the_same_on_every_machine():
    """Recomputed from the definition: SHA-256 of the canonical path, then Philox."""
    seed = hashlib.sha256(b"hansa/replay/7").digest()
    path = f'["{seed.hex()}","round",3,"client","kiel"]'
    derived = hashlib.sha256(path.encode()).digest()
    assert KEY.derive("round", 3, "client", "kiel").key == derived
    philox = np.random.Philox(key=int.from_bytes(derived[:16], "big"))
    expected = np.random.Generator(philox).integers(0, 1000, 5)
    assert (KEY.generator("round", 3, "client", "kiel").integers(0, 1000, 5) == expected).all()


def test_streams_do_not_depend_on_the_order_of_asking():
    first = [KEY.generator(n).random(4).tolist() for n in ("a", "b", "c")]
    second = [KEY.generator(n).random(4).tolist() for n in ("c", "b", "a")]
    assert first == second[::-1]


def test_streams_of_different_purposes_differ():
    paths = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"), (1,)]
    assert len({KEY.derive(*path).key for path in paths}) == len(paths)
    assert KEY.derive("a") != ReplayKey.of_seed(8).derive("a")


def test_the_two_kinds_of_noise_say_what_they_are():
    assert KEY.replayable
    assert not NoiseSource().replayable
    assert (KEY.normal(10) == KEY.normal(10)).all()
    assert (NoiseSource().normal(10) != NoiseSource().normal(10)).any()


@pytest.mark.parametrize("noise", [KEY, NoiseSource()])
@pytest.mark.parametrize("size", [0, 1, 7, 65_537])
def test_noise_has_the_size_that_is_asked_for(noise, size):
    drawn = noise.normal(size)
    assert drawn.shape == (size,)
    assert drawn.dtype == np.float64
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("noise", [KEY, NoiseSource()])
def test_noise_is_standard_normal(noise):
    """Kolmogorov-Smirnov at a level of 1e-6, which sees a scale that is 5 % wrong."""
    drawn = noise.normal(200_001)
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert stats.kstest(0.95 * drawn, "norm").pvalue < 1e-6
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / np.sqrt(len(drawn))


def test_fresh_noise_does_not_repeat_itself():
    drawn = NoiseSource().normal(200_000)
    assert len(np.unique(drawn)) > 0.999 * len(drawn)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize("noise", [KEY, NoiseSource()])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_words_have_the_size_that_is_asked_for(noise, size):
    drawn = noise.words("purpose")(size)
    assert drawn.shape == (size,)
    assert drawn.dtype == np.uint64


@pytest.mark.parametrize("noise", [KEY, NoiseSource()])
def test_all_bits_of_a_word_are_fair_coins(noise):
    drawn = noise.words("purpose")(50_000)
    ones = [int(((drawn >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert np.abs(np.array(ones) - 25_000).max() < 6 * np.sqrt(50_000 / 4)


@pytest.mark.parametrize("noise", [KEY, NoiseSource()])
def test_words_go_on_where_they_were(noise):
    draw = noise.words("purpose")
    assert len(np.unique([draw(100), draw(100)])) == 200


def test_words_for_one_purpose_can_be_replayed_with_a_key_only():
    assert (KEY.words("a", 1)(9) == KEY.words("a", 1)(9)).all()
    assert (KEY.words("a", 1)(9) != KEY.words("a", 2)(9)).any()
    assert (NoiseSource().words("a")(9) != NoiseSource().words("a")(9)).any()
