"""What events and jobs cost a block, in micro-RDP; and the order at which most of them fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hansa.budget.block import MICRO, ORDERS, Block, capacity
from hansa.core.events import Event, NoOp, SelfComposed
from hansa.core.parts import Relation
from hansa.core.plan import Plan, releases
from hansa.errors import Refused


@dataclass(frozen=True, slots=True)
class Need:
    """What one job costs one block.

    Attributes:
      urdp: all releases that it declares, in micro-RDP.
      each: its dearest release.
      releases: how many releases cost something.
    """

    urdp: int
    each: int
    releases: int


def micro_rdp(event: Event, order: int, relation: Relation) -> int:
    """The Renyi divergence of an event at one order, in micro-RDP, rounded up.

    Args:
      event: what was done to the data.
      order: a whole number from 2 to 256.
      relation: the two datasets that are compared.

    Raises:
      Refused: it is infinite at this order: there is no guarantee that could be counted.
      HansaError: no bound is known for the event under the relation.
    """
    from hansa.privacy.accountants import renyi

    found = renyi(event, order, relation)
    if not math.isfinite(found):
        raise Refused(
            f"{event!r} has no finite Renyi divergence of order {order}, so that no budget covers "
            "it",
            fix="add noise to what the job releases, or create a block with a smaller order",
        )
    return math.ceil(found * MICRO)


def need(plan: Plan, order: int) -> Need:
    """What a plan costs at an order: the sum of its charges, each rounded up by itself.

    Raises:
      Refused: it has no finite guarantee at this order.
      HansaError: no bound is known for one of its events.
    """
    charges = [plan.charge(number) for number in range(releases(plan.job))]
    cost: dict[Event, int] = {NoOp(): 0}
    for event in charges:
        if event not in cost:
            cost[event] = micro_rdp(event, order, plan.relation)
    each = [cost[event] for event in charges]
    return Need(sum(each), max(each, default=0), sum(1 for urdp in each if urdp))


def fits(free: int, job: Need) -> Mapping[str, int]:
    """How many more such jobs, and how many of its dearest releases, fit in what is free."""
    return {
        "jobs": free // job.urdp if job.urdp else 0,
        "releases": free // job.each if job.each else 0,
    }


def propose_order(
    workload: Sequence[Event], epsilon: float, delta: float, relation: Relation
) -> int:
    """The order at which a workload fits most often into (epsilon, delta).

    Without a workload: the order that fits most plain Gaussian releases. Their divergence grows
    like the order, so it is the order with the largest capacity per order.

    Args:
      workload: events of the jobs that are planned, each as a whole.
      epsilon: of the block.
      delta: of the block.
      relation: of the block.

    Raises:
      Refused: no order leaves anything of epsilon, or fits the workload.
    """
    from hansa.privacy.accountants import renyi

    def times(order: int) -> float:
        room = capacity(order, epsilon, delta)
        if not workload or room == 0:
            return room / order
        cost = math.fsum(_times(event) * renyi(_once(event), order, relation) for event in workload)
        return room / (cost * MICRO) if cost > 0 else 0.0

    best = max(ORDERS, key=times)
    if times(best) <= 0:
        raise Refused(
            f"epsilon {epsilon:g} at delta {delta:g} has no room at any Renyi order for this",
            fix="use a larger epsilon or delta, or jobs with more noise",
        )
    return best


def _once(event: Event) -> Event:
    return event.event if isinstance(event, SelfComposed) else event


def _times(event: Event) -> int:
    return event.count if isinstance(event, SelfComposed) else 1


def cost_at(block: Block, event: Event) -> int:
    """What an event costs a block, in micro-RDP."""
    return micro_rdp(event, block.order, block.relation)
