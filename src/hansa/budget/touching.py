"""Which blocks a job draws from, and which jobs may not run beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from hansa.budget.block import Block
from hansa.errors import Refused

if TYPE_CHECKING:
    from hansa.core.plan import Plan

NOT_COVERED = "no budget across jobs covers this"
"""What is said of a job that touches no block."""


def touched(
    blocks: Iterable[Block], plan: Plan, population: str, sites: Collection[str]
) -> tuple[Block, ...]:
    """The blocks that a job draws from, by name; each of them must have room.

    Args:
      blocks: all that there are.
      plan: of the job.
      population: name of the federation.
      sites: who takes part.

    Raises:
      Refused: the job has no differential privacy, or counts in another unit or relation than a
        block that it touches.
    """
    owners, purpose = frozenset(sites), plan.job.privacy.purpose
    found = [block for block in blocks if block.matches(population, owners, purpose)]
    for block in found:
        _check(block, plan)
    return tuple(sorted(found, key=lambda block: block.name))


def _check(block: Block, plan: Plan) -> None:
    if not plan.private:
        raise Refused(
            f"the privacy budget '{block.name}' covers this job, and the job has no differential "
            "privacy: what it reveals cannot be counted",
            fix='write mechanism = "gaussian" with an epsilon in [privacy], or run the job where '
            "no budget covers it",
        )
    unit = plan.job.privacy.unit
    if unit == "example":
        raise Refused(
            f"the privacy budget '{block.name}' covers this job, whose noise and rates only its "
            "sites know: what it costs one example cannot be counted here",
            fix="let the sites keep a [budget] of their own, and run the job where no budget of "
            "the coordinator covers it",
        )
    if unit != block.unit:
        raise Refused(
            f"the privacy budget '{block.name}' counts by {block.unit}, the job by {unit}",
            fix=f'write unit = "{block.unit}" in [privacy], or ask for a budget by {unit}',
        )
    if plan.relation is not block.relation:
        raise Refused(
            f"the privacy budget '{block.name}' compares {block.relation.value}, the job "
            f"{plan.relation.value}: their numbers cannot be added up",
            fix="use a sampler with the budget's relation (poisson and everyone: one unit more or "
            "less; fixed: one unit replaced), or ask for a budget of the job's",
        )
