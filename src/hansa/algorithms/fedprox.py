"""FedProx (Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020).

FedAvg whose clients minimise their loss plus `proximal / 2 * |w_k - w|^2`, so that clients with
unlike data or many steps do not drift far from the model that they received:

    each round:
        each client k of the cohort:
            w_k = w; for each batch of its n_k examples:
                w_k = w_k - client_lr * (gradient at w_k + proximal * (w_k - w))
            D_k = w_k - w
        server: w = w + server_lr * sum(n_k * D_k) / sum(n_k)

With `proximal` 0 it is FedAvg.
"""

from __future__ import annotations

from hansa.algorithms.optimizers.sgd import ServerSGD
from hansa.core.parts import Algorithm
from hansa.work.sgd import LocalSGD


def fedprox(
    *,
    client_lr: float = 0.1,
    local_epochs: int = 0,
    local_steps: int = 0,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    proximal: float = 0.01,
    server_lr: float = 1.0,
) -> Algorithm:
    """Local descent held near the received model, then the mean of the clients' models.

    Args:
      client_lr: learning rate of the clients.
      local_epochs: passes over a client's examples in a round; 1 if local_steps is not given.
      local_steps: batches in a round, instead of passes.
      batch_size: examples in a batch; 0 = all of a client's.
      momentum: share of the velocity that a client keeps from step to step.
      weight_decay: pull of the clients' steps towards zero.
      proximal: pull of the clients' steps towards the received parameters, mu of the paper.
      server_lr: learning rate of the server.

    Raises:
      PlanError: a number is out of range, or both local_epochs and local_steps are given.
    """
    return Algorithm(
        "fedprox",
        LocalSGD(
            client_lr=client_lr,
            local_epochs=local_epochs,
            local_steps=local_steps,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
            proximal=proximal,
        ),
        ServerSGD(server_lr=server_lr),
    )
