"""The binary tree over rounds, and the best estimates of its nodes from below.

    level 2          [ 0 1 2 3 ]              C has a row of ones for each complete node;
    level 1      [ 0 1 ]     [ 2 3 ]          a node of level l covers 2^l rounds and is complete
    level 0    [0]   [1]   [2]   [3]          when the last of them is over.

Each node has noise of its own. A node's sum can be had from the node, and from its two children:
the estimate weighs both by their variances (Honaker, "Efficient use of differentially private
binary trees", TPDP 2015, estimation from below; as in Kairouz et al., ICML 2021, arXiv
2103.00039). Prefix sums add up the nodes of the binary digits of their length.

The estimates are linear in C X + s Z, with weights that leave the sums as they are, so that what
is released is X + s (a function of Z): a function of C X + s Z, whatever the weights. Only the
sensitivity of C counts, and that of the plain tree is the same.
"""

from __future__ import annotations

import math

import numpy as np

from hansa.core.metrics import Floats


def levels(rounds: int) -> int:
    """Levels that have a complete node: ceil(log2(rounds + 1))."""
    return rounds.bit_length()


def variances(count: int) -> tuple[float, ...]:
    """Variance of an estimate at each level, relative to that of one node's noise.

    It is also the weight of the node's own noise: 1 / v_l = 1 + 1 / (2 v_(l-1)).
    """
    found = [1.0]
    while len(found) < count:
        found.append(1 / (1 + 1 / (2 * found[-1])))
    return tuple(found)


def prefix_variances(rounds: int) -> Floats:
    """(rounds,) variances of the noise of prefix sums: of disjoint estimates, which add up."""
    lengths = np.arange(1, rounds + 1)
    found = np.zeros(rounds)
    for level, variance in enumerate(variances(levels(rounds))):
        found += variance * (lengths >> level & 1)
    return found


def row_deviation(rounds: int) -> float:
    """Largest standard deviation of what a row adds, relative to that of one node's noise.

    A row that completes a node of level l replaces the estimates of the l nodes that the prefix
    before it consisted of. They are the left children on the way down to the row, and stay in the
    new estimate by the product of the weights on that way.
    """
    weights, worst = variances(levels(rounds)), 0.0
    for top in range(levels(rounds)):
        share, variance = 1.0, 0.0
        for level in range(top, 0, -1):
            variance += (share * weights[level]) ** 2
            share *= 1 - weights[level]
            variance += (share - 1) ** 2 * weights[level - 1]
        worst = max(worst, variance + share**2)
    return math.sqrt(worst)


def squared_sensitivity(rounds: int, separation: int, participations: int) -> int:
    """A bound on the squared sensitivity of C; exact for one participation.

    A node of 2^l rounds sees a client at most m = min(k, ceil(2^l / b)) times, and all nodes of a
    level see it at most k times. What one client adds to the squares is largest if as many nodes as
    possible see it m times. The worst client of each level is counted, so that the sum over levels
    is a bound. It is met where b and T are powers of two and a client comes every b rounds.
    """
    total = 0
    for level in range(levels(rounds)):
        width = 1 << level
        often = min(participations, -(-width // separation))
        full = min(rounds // width, participations // often)
        rest = participations - full * often if full < rounds // width else 0
        total += full * often**2 + rest**2
    return total
