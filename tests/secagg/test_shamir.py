"""Secret sharing: any threshold of shares give the secret, one less gives nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.secagg.shamir import PRIME, SHARE_BYTES, combine, split

SECRETS = st.binary(min_size=32, max_size=32)
COHORTS = st.integers(1, 14).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(1, 2**32 - 1), min_size=count, max_size=count, unique=True),
        st.integers(1, count),
    )
)


def at(points: Mapping[int, int], where: int) -> int:
    """The polynomial through some points, by Lagrange's formula in exact fractions."""
    value = Fraction(0)
    for point, height in points.items():
        term = Fraction(height)
        for other in points:
            if other != point:
                term *= Fraction(where - other, point - other)
        value += term
    return value.numerator * pow(value.denominator, -1, PRIME) % PRIME


def numbers(shares: Mapping[int, bytes]) -> dict[int, int]:
    return {point: int.from_bytes(share, "big") for point, share in shares.items()}


def is_prime(number: int, rounds: int = 64) -> bool:
    """Miller and Rabin; a composite number passes with a chance below 4**-rounds."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    rng = random.Random(7)
    for _ in range(rounds):
        power = pow(rng.randrange(2, number - 1), odd, number)
        if power not in (1, number - 1) and not any(
            (power := power * power % number) == number - 1 for _ in range(twos - 1)
        ):
            return False
    return True


def test_the_field_is_the_smallest_prime_field_that_holds_32_bytes():
    assert PRIME == 2**256 + 297
    assert is_prime(PRIME)
    assert not any(is_prime(2**256 + above, rounds=8) for above in range(1, 297, 2))
    assert PRIME.bit_length() <= 8 * SHARE_BYTES


@given(SECRETS, COHORTS, st.randoms(use_true_random=False))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_any_threshold_of_the_shares_give_the_secret(secret, cohort, rng):
    points, threshold = cohort
    shares = dict(zip(points, split(secret, threshold, points), strict=True))
    assert all(len(share) == SHARE_BYTES for share in shares.values())
    for _ in range(3):
        chosen = rng.sample(points, threshold)
        assert combine({point: shares[point] for point in chosen}, threshold) == secret
    assert combine(shares, threshold) == secret


@given(SECRETS, COHORTS)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_lagranges_formula_in_fractions_agrees(secret, cohort):
    points, threshold = cohort
    shares = dict(zip(points, split(secret, threshold, points), strict=True))
    some = numbers({point: shares[point] for point in points[:threshold]})
    assert at(some, 0) == int.from_bytes(secret, "big")
    for point in points[threshold:]:  # all shares lie on the one polynomial
        assert at(some, point) == int.from_bytes(shares[point], "big")


@given(SECRETS, SECRETS, st.integers(2, 8))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_one_share_less_is_consistent_with_every_secret(secret, other, threshold):
    """For whatever other secret there is a polynomial through it and through all given shares."""
    points = list(range(1, threshold + 1))
    shares = dict(zip(points, split(secret, threshold, points), strict=True))
    missing = shares.pop(threshold)
    through = {**numbers(shares), 0: int.from_bytes(other, "big")}
    share = at(through, threshold).to_bytes(SHARE_BYTES, "big")
    assert combine({**shares, threshold: share}, threshold) == other
    assert (share == missing) == (other == secret)


def test_shares_of_one_secret_are_fresh_each_time():
    first, second = split(bytes(32), 3, [1, 2, 3]), split(bytes(32), 3, [1, 2, 3])
    assert not set(first) & set(second)


def test_a_share_alone_is_uniform_over_the_field():
    """The top bits of 4096 shares of the same secret: 15 degrees of freedom, chance 1e-9."""
    counts = [0] * 16
    for _ in range(4096):
        counts[int.from_bytes(split(bytes(32), 2, [1, 2])[0], "big") * 16 // PRIME] += 1
    assert sum((count - 256) ** 2 / 256 for count in counts) < 72.5


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\1", b"\1" + bytes(31)])
def test_secrets_at_the_borders_come_back(secret):
    assert combine(dict(zip([1, 5], split(secret, 2, [1, 5]), strict=True)), 2) == secret


@pytest.mark.parametrize("points", [[0, 1, 2], [1, 1, 2], [1, 2, 2**32], [-1, 2, 3]])
def test_points_that_would_give_the_secret_away_or_collide_are_refused(points):
    with pytest.raises(ValueError, match="points must be distinct"):
        split(bytes(32), 2, points)


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_a_threshold_that_does_not_fit_is_refused(threshold):
    with pytest.raises(ValueError, match="does not fit 3 points"):
        split(bytes(32), threshold, [1, 2, 3])


def test_too_few_shares_are_refused():
    shares = dict(zip([1, 2, 3], split(bytes(32), 3, [1, 2, 3]), strict=True))
    del shares[2]
    with pytest.raises(ValueError, match="2 shares, 3 are needed"):
        combine(shares, 3)


@pytest.mark.parametrize(
    "share",
    [
        PRIME.to_bytes(33, "big"),
        b"\xff" * 33,
        b"",
        bytes(32),
        bytes(34),
    ],
)
def test_a_share_that_is_no_element_of_the_field_is_refused(share):
    with pytest.raises(ValueError, match="no element of the field"):
        combine({1: share, 2: bytes(33)}, 2)


def test_shares_whose_secret_would_not_fit_32_bytes_are_refused():
    too_large = (2**256).to_bytes(33, "big")
    with pytest.raises(ValueError, match="do not belong together"):
        combine({1: too_large, 2: too_large}, 2)
