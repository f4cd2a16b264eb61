"""Attacks on training data: what a bad client makes of its own examples, and how success shows.

| attack             | trains on                                  | source                     |
|--------------------|--------------------------------------------|----------------------------|
| `LabelFlip`        | label y as classes - 1 - y                 | Tolpegin et al., 2020      |
| `Backdoor`, pixels | some examples with a mark, as the target   | Gu et al., BadNets, 2017   |
| `Backdoor`, parts  | each client with one part of the mark      | Xie et al., DBA, ICLR 2020 |
| `semantic`         | a class, unchanged, under a wrong label    | Bagdasaryan et al., 2020   |
| `edge_case`        | its rarest examples under a wrong label    | Wang et al., NeurIPS 2020  |

A backdoor's success is the share of examples of *other* classes that, with the whole mark (or of
the chosen kind), are said to be of the target class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Model, Split
from hansa.core.vector import Vector
from hansa.errors import HansaError


class Poison(Protocol):
    """What is done to a bad client's training data, and how its success shows."""

    def poison(self, split: Split, key: ReplayKey, number: int = 0) -> Split:
        """The split of the bad client with this number, with other training examples."""

    def success(self, model: Model, params: Vector, test: Examples) -> tuple[int, int]:
        """How many test examples came out as the attacker wants, of how many that could."""


@dataclass(frozen=True, slots=True)
class LabelFlip:
    """Each training label y becomes classes - 1 - y.

    Attributes:
      classes: number of classes.
    """

    classes: int

    def poison(self, split: Split, key: ReplayKey, number: int = 0) -> Split:  # noqa: ARG002  seam
        """The same inputs under flipped labels."""
        targets = (self.classes - 1 - split.train.targets).astype(split.train.targets.dtype)
        return replace(split, train=Examples(split.train.inputs, targets))

    def success(self, model: Model, params: Vector, test: Examples) -> tuple[int, int]:
        """How many test examples get the flipped label; the middle class has none."""
        flipped = self.classes - 1 - test.targets
        turned = np.flatnonzero(flipped != test.targets)
        if not len(turned):
            return 0, 0
        said = _said(model, params, test.take(turned))
        return int((said == flipped[turned]).sum()), len(turned)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A mark: some coordinates of an input, flattened, that are set to a value.

    Attributes:
      places: coordinates of the mark.
      value: what they are set to.
    """

    places: tuple[int, ...]
    value: float

    @classmethod
    def corner(cls, examples: Examples, size: int = 4) -> Trigger:
        """The first coordinates of an input at the largest value that occurs: a bright corner.

        Of images (n, height, width) it is a row of pixels in the corner.

        Raises:
          HansaError: there are no examples to take the form from.
        """
        if not len(examples):
            raise HansaError(
                "a trigger was asked for and there are no examples",
                fix="take it from a client that has some",
            )
        width = int(np.prod(examples.inputs.shape[1:]))
        return cls(tuple(range(min(size, width))), float(examples.inputs.max()))

    def on(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """A copy of (n, ...) inputs with the mark."""
        marked = np.array(inputs)
        _flat(marked)[:, list(self.places)] = self.value
        return marked

    def part(self, number: int, parts: int) -> Trigger:
        """One of the parts that together are the mark, as each client of DBA has one.

        Raises:
          HansaError: there are more parts than coordinates.
        """
        if parts > len(self.places):
            raise HansaError(
                f"a mark of {len(self.places)} coordinates has no {parts} parts",
                fix="take a larger mark or fewer parts",
            )
        return Trigger(self.places[number % parts :: parts], self.value)


@dataclass(frozen=True, slots=True)
class Backdoor:
    """Examples with a mark are to be taken for the target class.

    Attributes:
      trigger: the whole mark.
      target: class.
      share: of a bad client's examples that are marked as well as kept.
      parts: 1: everybody trains with the whole mark; more: client i with part i only (DBA).
    """

    trigger: Trigger
    target: int
    share: float = 0.5
    parts: int = 1

    def poison(self, split: Split, key: ReplayKey, number: int = 0) -> Split:
        """The client's examples, some of them replaced by marked ones labelled as the target.

        Args:
          split: the client's own.
          key: what is marked follows from it.
          number: of the client among the bad ones.
        """
        train = split.train
        count = round(self.share * len(train))
        chosen = key.generator("backdoor", number).permutation(len(train))[:count]
        mark = self.trigger.part(number, self.parts) if self.parts > 1 else self.trigger
        inputs, targets = np.array(train.inputs), np.array(train.targets)
        inputs[chosen], targets[chosen] = mark.on(train.inputs[chosen]), self.target
        return replace(split, train=Examples(inputs, targets))

    def success(self, model: Model, params: Vector, test: Examples) -> tuple[int, int]:
        """How many test examples of other classes get the target with the mark, of how many."""
        others = test.take(np.flatnonzero(test.targets != self.target))
        marked = Examples(self.trigger.on(others.inputs), others.targets)
        return _taken(model, params, marked, self.target)


@dataclass(frozen=True, slots=True)
class Relabelled:
    """Examples of one kind, unchanged, are to be taken for the target class.

    Attributes:
      source: class of the kind.
      target: class.
      centre: what an example must be far from, flattened; None: the whole class is the kind.
      beyond: distance from the centre at which an example is of the kind.
    """

    source: int
    target: int
    centre: tuple[float, ...] | None = None
    beyond: float = 0.0

    def of_kind(self, examples: Examples) -> NDArray[np.int64]:
        """Positions of the examples that are of the kind."""
        of_class = examples.targets == self.source
        if self.centre is not None:
            of_class &= _distances(examples, np.asarray(self.centre)) >= self.beyond
        return np.flatnonzero(of_class)

    def poison(self, split: Split, key: ReplayKey, number: int = 0) -> Split:  # noqa: ARG002  seam
        """The client's examples of the kind get the target's label."""
        targets = np.array(split.train.targets)
        targets[self.of_kind(split.train)] = self.target
        return replace(split, train=Examples(split.train.inputs, targets))

    def success(self, model: Model, params: Vector, test: Examples) -> tuple[int, int]:
        """How many test examples of the kind get the target, of how many."""
        return _taken(model, params, test.take(self.of_kind(test)), self.target)


def semantic(source: int, target: int) -> Relabelled:
    """All examples of one class: a property of the data itself is the trigger."""
    return Relabelled(source, target)


def edge_case(known: Sequence[Examples], source: int, target: int, rare: float = 0.1) -> Relabelled:
    """The rarest examples of a class: those furthest from its mean, in the tail of the data.

    Wang et al. take them from elsewhere; here they are the tail of what bad clients have.

    Args:
      known: the bad clients' own training examples.
      source: class.
      target: class that they are to be taken for.
      rare: share of the class that is its tail.

    Raises:
      HansaError: nobody has an example of the class.
    """
    mine = [e.take(np.flatnonzero(e.targets == source)) for e in known]
    flat = [_flat(e.inputs).astype(np.float64) for e in mine if len(e)]
    if not flat:
        raise HansaError(
            f"no bad client has an example of class {source}", fix="take another class as source"
        )
    rows = np.concatenate(flat)
    middle = rows.mean(axis=0)
    gaps = np.sort(np.linalg.norm(rows - middle, axis=1))
    beyond = gaps[min(int((1 - rare) * len(gaps)), len(gaps) - 1)]
    return Relabelled(source, target, tuple(middle.tolist()), float(beyond))


def _flat(inputs: NDArray[Any]) -> NDArray[Any]:
    """(n, size) view of (n, ...) inputs; of none as well."""
    return inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:])))


def _distances(examples: Examples, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = _flat(examples.inputs).astype(np.float64)
    return np.asarray(np.linalg.norm(rows - centre, axis=1))


def _taken(model: Model, params: Vector, examples: Examples, target: int) -> tuple[int, int]:
    if not len(examples):
        return 0, 0
    return int((_said(model, params, examples) == target).sum()), len(examples)


def _said(model: Model, params: Vector, examples: Examples) -> NDArray[np.int64]:
    """The likeliest classes; -1 where the model says nothing, since it diverged."""
    found = model.predict(params, examples).probabilities
    return np.where(np.isfinite(found).all(axis=1), found.argmax(axis=1), -1)
