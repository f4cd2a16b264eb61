"""FedSGD (McMahan et al., "Communication-Efficient Learning of Deep Networks", AISTATS 2017).

    each round:
        each client k of the cohort:  g_k = gradient of its mean loss at w, over its n_k examples
        server:                       w = w - server_lr * sum(n_k * g_k) / sum(n_k)

One round is one step of gradient descent on the data of the whole cohort.
"""

from __future__ import annotations

from hansa.algorithms.optimizers.sgd import ServerSGD
from hansa.core.parts import Algorithm
from hansa.work.sgd import FullGradient


def fedsgd(*, server_lr: float = 0.1, server_momentum: float = 0.0) -> Algorithm:
    """Gradient descent with one gradient per client and round.

    Args:
      server_lr: learning rate.
      server_momentum: share of the velocity that the server keeps from round to round.

    Raises:
      PlanError: a number is out of range.
    """
    return Algorithm(
        "fedsgd",
        FullGradient(),
        ServerSGD(server_lr=server_lr, server_momentum=server_momentum),
    )
