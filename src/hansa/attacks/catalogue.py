"""The attacks by name: what each needs to know, and what it makes of it.

| knows  | sees                                                                |
|--------|---------------------------------------------------------------------|
| own    | its own data, model and updates: what one site can do by itself     |
| honest | the updates of all honest clients of the round, before it sends     |
| rule   | the same, and the rule: it looks for the strength that harms most   |

An attack that would know all honest updates can be given those of the bad clients' own honest
training instead; it is then one that bad clients can do together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from hansa.attacks import adaptive, history, updates
from hansa.attacks.adaptive import Rule
from hansa.attacks.data import Backdoor, LabelFlip, Poison, Trigger, edge_case, semantic
from hansa.attacks.malformed import LIES, Lie
from hansa.attacks.projected import Projected, heaviest
from hansa.attacks.updates import Array, Rows
from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientWork, Examples
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.nearest import suggest


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What bad clients know when they send; f of them, in the population's order.

    Attributes:
      honest: (m, d) updates that pass for honest: all of the round, or those of their own data.
      own: (f, d) what their own training gave, on poisoned data if they poison it.
      old: (f, d) the same from the first round that each took part in.
      previous: (d,) what the model moved by before this round; zeros in the first.
      cohort: clients of the round.
      key: what they draw from.
      rule: what will be applied; None if they do not know it.
    """

    honest: Array = field(repr=False)
    own: Array = field(repr=False)
    old: Array = field(repr=False)
    previous: Vector = field(repr=False)
    cohort: int
    key: ReplayKey
    rule: Rule | None = None

    @property
    def f(self) -> int:
        """Number of bad clients in the round."""
        return len(self.own)

    @property
    def rng(self) -> np.random.Generator:
        """What noise is drawn from."""
        return self.key.generator("attack")

    @property
    def known_rule(self) -> Rule:
        """The rule.

        Raises:
          HansaError: it is not known here.
        """
        if self.rule is None:
            raise HansaError(
                "this attack adapts to a rule that it does not know",
                fix="run it in a simulation without masks and quantization, or take another attack",
            )
        return self.rule


Rework = Callable[[ClientWork[Any], Vector], ClientWork[Any]]
"""The plan's training of a client and what the model moved by before, to the bad clients' own."""

Poisoner = Callable[[Sequence[Examples], int], Poison]
"""The bad clients' training examples and the number of classes, to what is done to them."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What bad clients do.

    Attributes:
      name: its name.
      knows: the most that it needs to know.
      send: their updates, per unit of weight; None: what their training gave.
      work: how they train; None: as the plan says.
      poisoner: what is done to their data; None: nothing.
      lie: what is done to an encoded update; None: nothing.
      together: whether the bad clients are one organisation under several names.
    """

    name: str
    knows: Literal["own", "honest", "rule"] = "honest"
    send: Callable[[Knowledge], Rows] | None = None
    work: Rework | None = None
    poisoner: Poisoner | None = None
    lie: Lie | None = None
    together: bool = False

    @property
    def changes(self) -> bool:
        """Whether what bad clients encode is not what training by the plan gives."""
        return self.send is not None or self.work is not None

    def work_of(self, plan: Plan, previous: Vector) -> ClientWork[Any] | None:
        """How bad clients train once the model moved by (d,) `previous`; None: as planned."""
        return None if self.work is None else self.work(plan.parts.algorithm.work, previous)


def _target_backdoor(parts: int) -> Poisoner:
    def made(known: Sequence[Examples], classes: int) -> Poison:  # noqa: ARG001  seam
        some = next((e for e in known if len(e)), known[0])
        return Backdoor(Trigger.corner(some), target=0, parts=parts)

    return made


def _commonest(known: Sequence[Examples], classes: int) -> int:
    """The class of most of the bad clients' examples, other than 0."""
    counts = np.zeros(classes, np.int64)
    for examples in known:
        counts += np.bincount(examples.targets.astype(np.int64), minlength=classes)
    return int(np.argmax(counts[1:])) + 1


def _boosted(k: Knowledge) -> Rows:
    """Their own updates so long that a mean becomes them: n / f times (model replacement)."""
    return updates.single(np.asarray(k.own, np.float64) * (k.cohort / k.f))


_ALL = (
    Attack("none", "own"),
    Attack("sign_flip", send=lambda k: updates.sign_flip(k.honest, k.f)),
    Attack("sign_flip_5", send=lambda k: updates.sign_flip(k.honest, k.f, 5.0)),
    Attack("gaussian", send=lambda k: updates.gaussian(k.honest, k.f, k.rng)),
    Attack("scaling", send=lambda k: updates.scaling(k.honest, k.f)),
    Attack("alie", send=lambda k: updates.alie(k.honest, k.f, 1.5)),
    Attack("alie_max", send=lambda k: updates.alie(k.honest, k.f, updates.alie_z(k.cohort, k.f))),
    Attack("ipm_0.1", send=lambda k: updates.ipm(k.honest, k.f, 0.1)),
    Attack("ipm_0.5", send=lambda k: updates.ipm(k.honest, k.f, 0.5)),
    Attack("ipm_3", send=lambda k: updates.ipm(k.honest, k.f, 3.0)),
    Attack("min_max", send=lambda k: updates.min_max(k.honest, k.f)),
    Attack("min_sum", send=lambda k: updates.min_sum(k.honest, k.f)),
    Attack("mimic", send=lambda k: updates.mimic(k.honest, k.f, None)),
    Attack("rop", send=lambda k: history.rop(k.honest, k.f, k.previous)),
    Attack("free_rider", "own", send=lambda k: updates.free_rider(k.previous, k.f, k.rng)),
    Attack(
        "sybils",
        "own",
        send=lambda k: updates.sybils(-5.0 * k.own.mean(axis=0), k.f, k.rng),
        together=True,
    ),
    Attack("replay", "own", send=lambda k: updates.replay(k.old, k.f)),
    Attack("label_flip", "own", poisoner=lambda _, classes: LabelFlip(classes)),
    Attack("backdoor", "own", poisoner=_target_backdoor(1)),
    Attack("backdoor_boosted", "own", send=_boosted, poisoner=_target_backdoor(1)),
    Attack(
        "neurotoxin",
        "own",
        work=lambda work, previous: Projected(work, heaviest(previous)),
        poisoner=_target_backdoor(1),
    ),
    Attack("backdoor_parts", "own", poisoner=_target_backdoor(4)),
    Attack("backdoor_semantic", "own", poisoner=lambda known, c: semantic(_commonest(known, c), 0)),
    Attack(
        "backdoor_edge",
        "own",
        poisoner=lambda known, c: edge_case(known, _commonest(known, c), 0, 0.25),
    ),
    Attack(
        "adaptive_alie",
        "rule",
        send=lambda k: adaptive.adaptive_alie(k.honest, k.f, k.known_rule),
    ),
    Attack(
        "adaptive_ipm", "rule", send=lambda k: adaptive.adaptive_ipm(k.honest, k.f, k.known_rule)
    ),
    Attack(
        "adaptive_min_max",
        "rule",
        send=lambda k: adaptive.adaptive_min_max(k.honest, k.f, k.known_rule),
    ),
    *(Attack(name, "own", lie=lie) for name, lie in LIES.items()),
)

ATTACKS: Mapping[str, Attack] = MappingProxyType({attack.name: attack for attack in _ALL})
"""All attacks; `none` is honest."""


def attack_named(name: str) -> Attack:
    """The attack of this name.

    Raises:
      HansaError: there is none.
    """
    found = ATTACKS.get(name)
    if found is None:
        raise HansaError(f"there is no attack '{name}'", fix=suggest(name, ATTACKS, "attacks"))
    return found
