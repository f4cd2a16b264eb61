"""What going back is worth where nobody can look at an update: masked rounds, one client lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hansa.attacks import updates
from hansa.attacks.catalogue import Attack
from hansa.core.job import Aggregation, Defend, Quantization, Rounds, SecureAggregation
from hansa.core.round import RoundRecord
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from tests.support.spoiled import REVERSED, Spoiled
from tests.support.toy import TOY, data, plan, run, start, world

ROUNDS, FROM = 12, 5
FLIPPED = Attack("flipped", "own", send=lambda k: updates.sign_flip(k.own, k.f, 40.0))
WORDS: dict[str, Any] = {
    "rounds": Rounds(count=ROUNDS, watch="accuracy"),
    "aggregation": Aggregation(clip=30.0, max_weight=40),
    "quantization": Quantization(step=1e-3),
    "secure_aggregation": SecureAggregation(enabled=True),
}


def accuracy(tolerance: float, attack: Attack | None = None) -> tuple[float, list[RoundRecord]]:
    """Of the model that a job ends with, over all held-out examples."""
    its = plan(**WORDS, defend=Defend(rollback=tolerance))
    bad = frozenset(range(FROM, ROUNDS)) if attack else frozenset()
    inline = InlineEngine(TOY, data)
    place = world(its, Spoiled(inline, "client-0003", bad, attack or REVERSED))
    state = run(train(its, initial_state(its, start()), place))
    tests = [data(client).test for client in place.population]
    right = [(TOY.predict(state.params, t).probabilities.argmax(1) == t.targets) for t in tests]
    value = sum(int(each.sum()) for each in right) / sum(len(each) for each in right)
    return value, place.journal.records  # type: ignore[attr-defined]


@pytest.mark.parametrize("attack", [REVERSED, FLIPPED], ids=lambda a: a.name)
def test_a_client_that_ruins_a_masked_model_does_not_with_a_tolerance(attack: Attack) -> None:
    whole, _ = accuracy(0.0)
    ruined, _ = accuracy(0.0, attack)
    saved, records = accuracy(0.1, attack)
    assert whole > 0.9
    assert ruined < 0.7
    assert saved >= whole - 0.1
    assert sum(record.rejected is not None for record in records) >= 3
    assert all(record.members and not record.void for record in records)


def test_without_an_attack_nothing_changes() -> None:
    _, kept = accuracy(0.0)
    _, judged = accuracy(0.1)
    assert [r.model for r in kept] == [r.model for r in judged]
    assert not any(record.rejected for record in judged)


def test_the_page_says_what_was_measured() -> None:
    page = Path(__file__).parents[2] / "docs" / "rollback.md"
    rows = [line for line in page.read_text("utf-8").split("\n") if line.startswith("|")][2:]
    found = [[float(cell) for cell in re.findall(r"0\.\d{3}", row)] for row in rows]
    assert found == [
        [round(accuracy(tolerance, attack)[0], 3) for attack in (None, REVERSED)]
        for tolerance in (0.0, 0.1)
    ]
