"""Blocks and plans for tests of budgets."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from hansa.budget.block import Block, block_of
from hansa.core.job import Aggregation, Cohort, Privacy, Rounds
from hansa.core.plan import Plan
from hansa.recipes import compile_plan
from tests.support.federation import job

PRIVATE = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=4.0, delta=1e-3)


def block(name: str = "patients", **words: Any) -> Block:
    """A block that covers everything."""
    usual: dict[str, Any] = {
        "name": name,
        "unit": "client",
        "relation": "add_or_remove_one",
        "epsilon": 8.0,
        "delta": 1e-5,
        "order": 4,
    }
    return block_of({**usual, **words})


@lru_cache
def plan(rounds: int = 3, sampler: str = "everyone", **privacy: Any) -> Plan:
    """A small private plan of three sites; `mechanism="none"` for one that is not."""
    words = replace(PRIVATE, **privacy)
    if words.mechanism == "none":
        words = Privacy(purpose=words.purpose)
    cohort = (
        Cohort(population=3)
        if sampler == "everyone"
        else Cohort(population=3, sampler="fixed", size=2)
    )
    return compile_plan(
        job(
            rounds=Rounds(count=rounds, deadline=30.0),
            cohort=cohort,
            privacy=words,
            aggregation=Aggregation(weighting="uniform"),
            risk_tier="low",
        )
    )
