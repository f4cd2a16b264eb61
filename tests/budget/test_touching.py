"""Which blocks a job draws from, and which jobs are refused beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hansa.budget.block import Block
from hansa.budget.touching import touched
from hansa.core.plan import Plan
from hansa.errors import Refused
from tests.support.budgets import block, plan

SITES = ("kiel", "riga")


def names(blocks: Sequence[Block], job: Plan, population: str = "hanse") -> list[str]:
    return [found.name for found in touched(blocks, job, population, SITES)]


def test_a_job_draws_from_every_block_that_matches_in_the_order_of_their_names():
    blocks = [
        block("z"),
        block("owner", owner="kiel"),
        block("stranger", owner="lund"),
        block("here", population="hanse"),
        block("elsewhere", population="other"),
        block("heart", purpose="heart"),
    ]
    assert names(blocks, plan()) == ["here", "owner", "z"]
    assert names(blocks, plan(purpose="heart")) == ["heart", "here", "owner", "z"]
    assert names([], plan()) == []


def test_a_job_without_privacy_touches_no_block():
    open_job = plan(mechanism="none")
    assert names([block(owner="lund")], open_job) == []
    with pytest.raises(Refused, match="no differential privacy") as caught:
        names([block()], open_job)
    assert "mechanism" in caught.value.fix


def test_other_units_and_relations_are_not_added_up():
    with pytest.raises(Refused, match="counts by example, the job by client"):
        names([block(unit="example")], plan())
    with pytest.raises(Refused, match="cannot be added up"):
        names([block(relation="replace_one")], plan())
    with pytest.raises(Refused, match="cannot be added up"):
        names([block()], plan(sampler="fixed"))
    assert names([block(relation="replace_one")], plan(sampler="fixed")) == ["patients"]
    assert names([block(relation="replace_one", owner="lund")], plan()) == []
