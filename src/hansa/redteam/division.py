"""A job's own division of its data among clients, and others of the same examples.

| skew            | who holds what                                                           |
|-----------------|--------------------------------------------------------------------------|
| own             | what the task gives to each client                                       |
| iid             | all examples of all clients, dealt out by chance                         |
| dirichlet_ALPHA | the same, each class by shares from a Dirichlet distribution (Yurochkin  |
|                 | et al., ICML 2019): the smaller ALPHA, the more clients differ           |

Training and held-out examples of a client are divided by the same shares, and stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Site, Split, Task
from hansa.errors import Refused
from hansa.populations import counts_of, dirichlet, iid

OWN = "own"
_DIRICHLET = "dirichlet_"


@dataclass(frozen=True, slots=True)
class Division:
    """Who holds which examples.

    Attributes:
      name: of the skew.
      clients: names, in the population's order.
      splits: what each holds.
      classes: number of classes.
      minority: the quarter of the clients, at least one, whose mixes of classes lie furthest from
        the whole.
    """

    name: str
    clients: tuple[str, ...]
    splits: Mapping[str, Split] = field(repr=False)
    classes: int
    minority: frozenset[str]

    def data(self, client: str) -> Split:
        """What a client holds."""
        return self.splits[client]


def read_own(task: Task, clients: Sequence[str]) -> Division:
    """The task's own division.

    Raises:
      Refused: the targets are no classes, or nothing is held out.
    """
    splits = {client: task.data(Site(client, {})) for client in clients}
    for client, split in splits.items():
        for examples in (split.train, split.test):
            targets = examples.targets
            if len(examples) and (targets.ndim != 1 or targets.dtype.kind not in "iub"):
                raise Refused(
                    f"the targets of '{client}' are no classes: {targets.dtype} of shape "
                    f"{targets.shape}",
                    fix="attack a job whose targets are one whole number per example",
                )
    if not any(len(split.test) for split in splits.values()):
        raise Refused(
            "no client holds any examples out, so that no accuracy can be measured",
            fix="let the task's data() give test examples",
        )
    return _made(OWN, tuple(clients), splits)


def divided(own: Division, skew: str, key: ReplayKey) -> Division:
    """The same examples in another division.

    Args:
      own: the task's own.
      skew: a name of the table above.
      key: what is drawn follows from it.

    Raises:
      Refused: the examples of the clients are of different shapes.
    """
    divide = skew_named(skew)
    if divide is None:
        return own
    train, test = _pooled(own, "train"), _pooled(own, "test")
    labels, cut = np.concatenate([train.targets, test.targets]), len(train)
    parts = divide(labels, len(own.clients), key.derive("skew", skew))
    splits = {
        client: Split(train.take(part[part < cut]), test.take(part[part >= cut] - cut))
        for client, part in zip(own.clients, parts, strict=True)
    }
    return _made(skew, own.clients, splits)


Divide = Callable[[NDArray[np.int64], int, ReplayKey], list[NDArray[np.int64]]]


def skew_named(name: str) -> Divide | None:
    """What divides examples; None for the job's own division.

    Raises:
      Refused: there is no such skew.
    """
    if name == OWN:
        return None
    if name == "iid":
        return iid
    try:
        alpha = float(name.removeprefix(_DIRICHLET)) if name.startswith(_DIRICHLET) else 0.0
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < 1e6:
        raise Refused(
            f"there is no skew '{name}'",
            fix="write own, iid, or dirichlet_ALPHA with a positive number: dirichlet_0.3",
        )
    return lambda labels, clients, key: dirichlet(labels, clients, key, alpha)


def _pooled(own: Division, half: str) -> Examples:
    """Training or held-out examples of all clients, in their order.

    Raises:
      Refused: they are of different shapes.
    """
    each = [getattr(own.splits[client], half) for client in own.clients]
    held = [examples for examples in each if len(examples)] or each[:1]
    if len({examples.inputs.shape[1:] for examples in held}) > 1:
        raise Refused(
            "the inputs of the clients differ in shape, so that they cannot be divided anew",
            fix="leave --skews out: the job's own division needs no pool",
        )
    return Examples(
        np.concatenate([examples.inputs for examples in held]),
        np.concatenate([examples.targets for examples in held]).astype(np.int64),
    )


def _made(name: str, clients: tuple[str, ...], splits: Mapping[str, Split]) -> Division:
    highest = max(
        int(examples.targets.max())
        for split in splits.values()
        for examples in (split.train, split.test)
        if len(examples)
    )
    return Division(name, clients, splits, highest + 1, _minority(clients, splits))


def _minority(clients: Sequence[str], splits: Mapping[str, Split]) -> frozenset[str]:
    """Those furthest from the whole, by total variation between mixes of classes."""
    held = [c for c in clients if len(splits[c].train) and len(splits[c].test)]
    if not held:
        return frozenset()
    counts, _ = counts_of([splits[c].train.targets.astype(np.int64) for c in held])
    whole = counts.sum(axis=0) / counts.sum()
    apart = np.abs(counts / counts.sum(axis=1, keepdims=True) - whole).sum(axis=1)
    order = np.argsort(-apart, kind="stable")[: max(len(held) // 4, 1)]
    return frozenset(held[i] for i in order.tolist())
