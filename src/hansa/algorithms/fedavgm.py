"""FedAvgM (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019).

FedAvg with momentum at the server:

    each round:
        each client k of the cohort:
            w_k = w; for each batch of its n_k examples: w_k = w_k - client_lr * gradient at w_k
            D_k = w_k - w
        server: v = server_momentum * v + sum(n_k * D_k) / sum(n_k)
                w = w + server_lr * v
"""

from __future__ import annotations

from hansa.algorithms.optimizers.sgd import ServerSGD
from hansa.core.parts import Algorithm
from hansa.work.sgd import LocalSGD


def fedavgm(
    *,
    client_lr: float = 0.1,
    local_epochs: int = 0,
    local_steps: int = 0,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server_lr: float = 1.0,
    server_momentum: float = 0.9,
) -> Algorithm:
    """Local descent, then a server step with momentum.

    Args:
      client_lr: learning rate of the clients.
      local_epochs: passes over a client's examples in a round; 1 if local_steps is not given.
      local_steps: batches in a round, instead of passes.
      batch_size: examples in a batch; 0 = all of a client's.
      momentum: share of the velocity that a client keeps from step to step.
      weight_decay: pull of the clients' steps towards zero.
      server_lr: learning rate of the server.
      server_momentum: share of the velocity that the server keeps from round to round.

    Raises:
      PlanError: a number is out of range, or both local_epochs and local_steps are given.
    """
    return Algorithm(
        "fedavgm",
        LocalSGD(
            client_lr=client_lr,
            local_epochs=local_epochs,
            local_steps=local_steps,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        ServerSGD(server_lr=server_lr, server_momentum=server_momentum),
    )
