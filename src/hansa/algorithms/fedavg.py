"""FedAvg (McMahan et al., "Communication-Efficient Learning of Deep Networks", AISTATS 2017).

    each round:
        each client k of the cohort:
            w_k = w; for each batch of its n_k examples: w_k = w_k - client_lr * gradient at w_k
            D_k = w_k - w
        server: w = w + server_lr * sum(n_k * D_k) / sum(n_k)

With `server_lr` 1 the new model is the mean of the clients' models, as in the paper.
"""

from __future__ import annotations

from hansa.algorithms.optimizers.sgd import ServerSGD
from hansa.core.parts import Algorithm
from hansa.work.sgd import LocalSGD


def fedavg(
    *,
    client_lr: float = 0.1,
    local_epochs: int = 0,
    local_steps: int = 0,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server_lr: float = 1.0,
) -> Algorithm:
    """Local descent, then the mean of the clients' models.

    Args:
      client_lr: learning rate of the clients.
      local_epochs: passes over a client's examples in a round; 1 if local_steps is not given.
      local_steps: batches in a round, instead of passes.
      batch_size: examples in a batch; 0 = all of a client's.
      momentum: share of the velocity that a client keeps from step to step.
      weight_decay: pull of the clients' steps towards zero.
      server_lr: learning rate of the server.

    Raises:
      PlanError: a number is out of range, or both local_epochs and local_steps are given.
    """
    return Algorithm(
        "fedavg",
        LocalSGD(
            client_lr=client_lr,
            local_epochs=local_epochs,
            local_steps=local_steps,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        ServerSGD(server_lr=server_lr),
    )
