"""The numbers of a row from outcomes that are written down by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.redteam.cell import Cell, Outcome
from hansa.redteam.measures import Counts, Worth, worst
from hansa.redteam.rows import rows_of

FEW = frozenset({"d"})


def outcome(a: int, b: int, c: int, d: int, bad: str = "", **words: Any) -> Outcome:
    """Right answers of four clients, of 10 each."""
    sites = {n: Counts(v, 10) for n, v in zip("abcd", (a, b, c, d), strict=True)}
    return Outcome(Worth(sites, {"0": Counts(a + b + c + d, 40)}, {}, **words.pop("worth", {})),
                   frozenset(bad), FEW, **words)  # fmt: skip


def cells(rule: str, seed: int = 0, attack: str = "none", share: float = 0.0) -> Cell:
    return Cell(attack, share, "own", rule, seed)


def test_a_row_is_the_mean_over_seeds_beside_the_runs_with_nobody_bad():
    outcomes = {
        cells("", 0): outcome(10, 10, 10, 8),
        cells("", 1): outcome(10, 10, 10, 10),
        cells("dnc", 0): outcome(9, 9, 9, 5),
        cells("dnc", 1): outcome(9, 9, 9, 7),
        cells("dnc", 0, "scaling", 0.25): outcome(
            9, 8, 7, 4, "a", quarantined=frozenset("ab"), ended="void"
        ),
        cells("dnc", 1, "scaling", 0.25): outcome(8, 8, 8, 6, "b", quarantined=frozenset()),
    }
    clean, attacked = rows_of(outcomes)
    assert (clean.attack, clean.accuracy, clean.attack_success) == ("none", 66 / 80, None)
    assert clean.minority == pytest.approx(0.6)
    assert clean.minority_cost == pytest.approx(0.9 - 0.6)
    assert attacked.seeds == 2
    assert attacked.accuracy == pytest.approx((28 + 30) / 80)
    assert attacked.attack_success == pytest.approx(((32 - 28) / 32 + (34 - 30) / 34) / 2)
    assert attacked.detected == pytest.approx((1 + 0) / 2)
    assert attacked.false_positives == pytest.approx((1 / 3 + 0) / 2)
    assert attacked.minority_false_positives == 0
    assert attacked.worst_site == pytest.approx((0.4 + 0.6) / 2)
    assert attacked.minority_cost == pytest.approx(0.9 - 0.5)
    first = [0.8, 0.7, 0.4]
    middle = sum(first) / 3
    second = [0.8, 0.8, 0.6]
    other = sum(second) / 3
    assert attacked.site_spread == pytest.approx(
        (
            (sum((v - middle) ** 2 for v in first) / 3) ** 0.5
            + (sum((v - other) ** 2 for v in second) / 3) ** 0.5
        )
        / 2
    )
    assert attacked.ended == "void"
    assert attacked.sites["a"] == 0.8  # honest in the second run only


def test_success_is_what_the_attacker_wanted_or_what_was_lost_never_below_none():
    wanted = {"worth": {"hits": Counts(3, 12)}, "by_itself": Counts(1, 12)}
    outcomes = {
        cells(""): outcome(5, 5, 5, 5),
        cells("dnc"): outcome(5, 5, 5, 5),
        cells("dnc", 0, "backdoor", 0.25): outcome(5, 5, 5, 5, "a", **wanted),
        cells("dnc", 0, "mimic", 0.25): outcome(9, 9, 9, 9, "a"),
    }
    _, backdoor, mimic = rows_of(outcomes)
    assert (backdoor.attack_success, backdoor.success_by_itself) == (0.25, 1 / 12)
    assert (mimic.attack_success, mimic.success_by_itself) == (0.0, None)
    assert (mimic.detected, mimic.false_positives) == (None, None)


def test_a_bad_client_is_no_site_and_no_minority():
    outcomes = {
        cells(""): outcome(10, 10, 10, 10),
        cells("dnc"): outcome(10, 10, 10, 10),
        cells("dnc", 0, "scaling", 0.25): outcome(5, 5, 5, 0, "d"),
    }
    _, row = rows_of(outcomes)
    assert (row.worst_site, row.minority, row.minority_cost) == (0.5, None, None)
    assert "d" not in row.sites


def test_groups_of_few_examples_say_nothing_about_the_worst():
    assert worst([Counts(0, 4), Counts(3, 5), Counts(9, 10)]) == 0.6
    assert worst([Counts(0, 4)]) is None
