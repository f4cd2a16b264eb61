"""The discrete Gaussian as Canonne, Kamath and Steinke (2020) describe it, with Python's fractions.

    python bench/peer_exact_sampler.py SIGMA ...

Algorithms 1 to 3 of arXiv 2004.00010 with exact rational arithmetic and the system's random
numbers: the way of the authors' reference sampler, one sample at a time. Needs nothing installed.
Prints one JSON object: million samples per second of CPU time, by sigma.
"""

from __future__ import annotations

import json
import random
import sys
import time
from fractions import Fraction

SECONDS = 1.0
SYSTEM = random.SystemRandom()


def bernoulli(p: Fraction) -> bool:
    """True with probability p, exactly."""
    return SYSTEM.randrange(p.denominator) < p.numerator


def bernoulli_exp(x: Fraction) -> bool:
    """True with probability exp(-x), algorithm 1."""
    while x > 1:
        if not bernoulli_exp(Fraction(1)):
            return False
        x -= 1
    k = 1
    while bernoulli(x / k):
        k += 1
    return k % 2 == 1


def discrete_laplace(scale: int) -> int:
    """P(x) proportional to exp(-|x| / scale), algorithm 2."""
    while True:
        u = SYSTEM.randrange(scale)
        if not bernoulli_exp(Fraction(u, scale)):
            continue
        v = 0
        while bernoulli_exp(Fraction(1)):
            v += 1
        magnitude, negative = u + scale * v, SYSTEM.randrange(2)
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def discrete_gaussian(sigma: Fraction) -> int:
    """P(x) proportional to exp(-x**2 / (2 sigma**2)), algorithm 3."""
    variance, scale = sigma**2, int(sigma) + 1
    while True:
        x = discrete_laplace(scale)
        if bernoulli_exp((abs(x) - variance / scale) ** 2 / (2 * variance)):
            return x


def main(sigmas: list[float]) -> None:
    """Measures each sigma for about a second."""
    found = {}
    for sigma in sigmas:
        count, started = 0, time.process_time()
        while time.process_time() - started < SECONDS:
            discrete_gaussian(Fraction(sigma))
            count += 1
        found[f"sigma{sigma:g}"] = count / (time.process_time() - started) / 1e6
    sys.stdout.write(json.dumps({"what": "exact fractions, Python", **found}) + "\n")


if __name__ == "__main__":
    main([float(word) for word in sys.argv[1:]])
