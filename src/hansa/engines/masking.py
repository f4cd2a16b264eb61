"""What a masked round is about: the same words on both sides, each from its own knowledge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hansa.aggregators.grouped import Grouped
from hansa.core.contribute import Purpose, RoundTask, layout_of
from hansa.core.parts import Partial
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.secagg.session import Session
from hansa.stages.mask import Mask


def session_of(
    plan: Plan,
    mask: Mask,
    purpose: Purpose,
    place: tuple[int, int],
    model: str,
    *,
    federation: str,
    job: str,
    nonce: bytes = bytes(32),
    clip: float | None = None,
) -> Session:
    """The session of a round, as whoever asks knows the round.

    Args:
      plan: the plan that this party compiled.
      mask: the plan's own stage.
      purpose: of the round.
      place: number of the round and of the attempt.
      model: SHA-256 of the parameters that this party holds.
      federation: its name.
      job: the job's id.
      nonce: 32 bytes of the coordinator's.
      clip: norm bound of the round, where it adapts: it is bound to the session like the model, for
        whoever told clients different bounds could make one of them count more than the others.
    """
    return Session(
        federation=federation,
        job=job,
        purpose=purpose.value,
        round=place[0],
        attempt=place[1],
        plan=plan.digest,
        model=model if clip is None else f"{model}/{clip.hex()}",
        size=layout_of(plan, purpose).size,
        bits=plan.facts["weight"].bits,
        cohort=plan.facts["weight"].quorum,
        rule=mask.rule,
        nonce=nonce.hex(),
    )


def groups_of(task: RoundTask, mask: Mask, cohort: Sequence[str]) -> list[tuple[str, ...]]:
    """Who is summed with whom: everybody, or random groups that differ by at most one in size.

    Groups are drawn from the job's key, so that a simulation and a federation draw the same; a site
    cannot choose its group, and two that collude meet as often as chance lets them.
    """
    if mask.groups == 1:
        return [tuple(cohort)]
    key = task.key.derive("groups", task.purpose.value, task.round, task.attempt)
    order = key.generator("order").permutation(len(cohort))
    names = sorted(cohort)
    return [
        tuple(sorted(names[place] for place in part))
        for part in np.array_split(order, mask.groups)
        if len(part)
    ]


def revealed(plan: Plan, total: Vector, members: tuple[str, ...]) -> Partial:
    """A sum of ring elements in the form that the plan's aggregator goes on with."""
    aggregator = plan.parts.aggregator
    return (
        aggregator.group(total, members)
        if isinstance(aggregator, Grouped)
        else Partial(total, members)
    )
