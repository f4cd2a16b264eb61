"""FedAdam (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2).

    each round:
        each client k of the cohort:
            w_k = w; for each batch of its n_k examples: w_k = w_k - client_lr * gradient at w_k
            D_k = w_k - w
        server: D = sum(n_k * D_k) / sum(n_k)
                m = beta1 * m + (1 - beta1) * D
                v = beta2 * v + (1 - beta2) * D * D
                w = w + server_lr * m / (sqrt(v) + tau)

v starts at tau squared; there is no bias correction, as in the paper.
"""

from __future__ import annotations

from hansa.algorithms.optimizers.adam import ServerAdam
from hansa.core.parts import Algorithm
from hansa.work.sgd import LocalSGD


def fedadam(
    *,
    client_lr: float = 0.1,
    local_epochs: int = 0,
    local_steps: int = 0,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server_lr: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
) -> Algorithm:
    """Local descent, then Adam at the server.

    Args:
      client_lr: learning rate of the clients.
      local_epochs: passes over a client's examples in a round; 1 if local_steps is not given.
      local_steps: batches in a round, instead of passes.
      batch_size: examples in a batch; 0 = all of a client's.
      momentum: share of the velocity that a client keeps from step to step.
      weight_decay: pull of the clients' steps towards zero.
      server_lr: learning rate of the server.
      beta1: share of the first moment that the server keeps from round to round.
      beta2: share of the second moment that the server keeps from round to round.
      tau: smallest divisor of the server's step: the smaller, the more adaptive.

    Raises:
      PlanError: a number is out of range, or both local_epochs and local_steps are given.
    """
    return Algorithm(
        "fedadam",
        LocalSGD(
            client_lr=client_lr,
            local_epochs=local_epochs,
            local_steps=local_steps,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        ServerAdam(server_lr=server_lr, beta1=beta1, beta2=beta2, tau=tau),
    )
