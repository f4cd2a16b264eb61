"""Shamir's secret sharing of 32-byte secrets (CACM 1979) over the prime field of 2**256 + 297.

The prime is the smallest above 2**256, so a 32-byte secret is one element and a share takes 33
bytes. Arithmetic is that of Python's integers, which is not constant in time: shares are made and
combined inside the party that may know the secret, and used once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

PRIME: Final = 2**256 + 297
SHARE_BYTES: Final = 33


def split(secret: bytes, threshold: int, points: Sequence[int]) -> list[bytes]:
    """One share of a secret for each point; any `threshold` of them give it back.

    Args:
      secret: (32 bytes).
      threshold: degree of the polynomial plus one.
      points: distinct, between 1 and 2**32.

    Raises:
      ValueError: a point is zero, taken twice or too large, or there are too few.
    """
    if len(set(points)) != len(points) or not all(0 < point < 2**32 for point in points):
        raise ValueError("points must be distinct and between 1 and 2**32")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"a threshold of {threshold} does not fit {len(points)} points")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    return [_value(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret (32 bytes) from at least `threshold` shares by their points; more are not used.

    Raises:
      ValueError: too few shares, one is no element of the field, or they give no 32-byte secret.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares, {threshold} are needed")
    points = tuple(sorted(shares))[:threshold]
    values = [int.from_bytes(shares[point], "big") for point in points]
    if any(
        value >= PRIME or len(shares[point]) != SHARE_BYTES
        for point, value in zip(points, values, strict=True)
    ):
        raise ValueError("a share is no element of the field")
    secret = (
        sum(weight * value for weight, value in zip(_weights(points), values, strict=True)) % PRIME
    )
    if secret >> 256:
        raise ValueError("the shares do not belong together")
    return secret.to_bytes(32, "big")


def _value(coefficients: Sequence[int], point: int) -> int:
    """The polynomial at a point, highest coefficient first; points are small: one reduction."""
    value = 0
    for coefficient in coefficients:
        value = value * point + coefficient
    return value % PRIME


@lru_cache(maxsize=4096)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's coefficients at zero; the same survivors serve many secrets."""
    product = 1
    for point in points:
        product = product * point % PRIME
    weights = []
    for point in points:
        below = point
        for other in points:
            if other != point:
                below = below * (other - point) % PRIME
        weights.append(product * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
