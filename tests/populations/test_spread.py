"""Divisions in numbers and in pictures, against hand counts."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.populations import (
    Spread,
    counts_of,
    dealt,
    dirichlet,
    iid,
    natural,
    picture,
    quantity,
    shards,
    spread_of,
)
from hansa.populations.picture import MOST

KEY = ReplayKey.of_seed(0)
TENS = np.repeat(np.arange(10), 400)


def spread(parts: list[NDArray[Any]]) -> Spread:
    return spread_of(counts_of([TENS[part] for part in parts])[0])


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize("alpha", [0.1, 0.5, 50.0])
def test_quantity_differs_in_size_alone(alpha):
    """A share has variance (1/K)(1 - 1/K) / (K alpha + 1), and every mix is that of the whole."""
    clients = 40
    sizes = np.array(
        [
            [len(part) for part in quantity(TENS, clients, KEY.derive("try", i), alpha)]
            for i in range(60)
        ]
    )
    assert (sizes.sum(axis=1) == 4000).all()
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert (sizes / 4000).var() == pytest.approx(expected, rel=0.25)
    large = [p for p in quantity(TENS, clients, KEY, alpha) if len(p) > 300]
    for part in large:
        assert np.abs(np.bincount(TENS[part], minlength=10) / len(part) - 0.1).max() < 0.1


@settings(derandomize=True, deadline=None, max_examples=60)
@given(keys=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80), clients=st.integers(1, 6))
def test_groups_stay_together_and_nothing_is_lost(keys, clients):
    whose = np.array(keys)
    groups = natural(whose)
    assert list(groups) == sorted(set(keys))
    assert all((whose[mine] == name).all() for name, mine in groups.items())
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(len(keys)))
    if len(groups) < clients:
        with pytest.raises(HansaError, match="cannot be dealt"):
            dealt(whose, clients, KEY)
        return
    parts = dealt(whose, clients, KEY)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(keys)))
    held = [set(whose[part].tolist()) for part in parts]
    assert sum(len(each) for each in held) == len(groups), "a group is at two clients"
    assert all(held), "a client got nothing"


def test_groups_are_dealt_evenly():
    """Greedy by size is at most 4/3 of the best (Graham, 1969); here the best is known."""
    whose = np.repeat(np.arange(12), [60, 50, 40, 30, 30, 20, 20, 10, 10, 10, 10, 10])
    sizes = [len(part) for part in dealt(whose, 3, KEY)]
    assert max(sizes) <= 4 / 3 * 100
    one, again, other = (dealt(whose, 3, ReplayKey.of_seed(seed)) for seed in (1, 1, 2))
    assert [p.tolist() for p in one] == [p.tolist() for p in again]
    assert [p.tolist() for p in one] != [p.tolist() for p in other]


# ------------------------------------------------------------------ numbers


def test_a_division_in_numbers_by_hand():
    """Sizes 0, 2, 6; class 0 and 5: (0, 0), (2, 0), (2, 4); the whole is half and half."""
    labels = [np.array([], np.int64), np.array([0, 0]), np.array([0, 0, 5, 5, 5, 5])]
    counts, classes = counts_of(labels)
    assert classes == (0, 5)
    assert counts.tolist() == [[0, 0], [2, 0], [2, 4]]
    found = spread_of(counts)
    assert (found.clients, found.empty, found.examples) == (3, 1, 8)
    assert (found.smallest, found.median, found.largest) == (0, 2.0, 6)
    assert (found.classes, found.classes_each) == (2, 1.5)
    # Gini: sum of |a - b| over all ordered pairs is 2 (2 + 6 + 4) = 24; 24 / (2 * 3**2 * 8/3) = 1/2
    assert found.inequality == pytest.approx(0.5)
    # Distances 1/2 and |1/3 - 1/2| = 1/6, over examples: (2/2 + 6/6) / 8
    assert found.distance == pytest.approx((2 * 0.5 + 6 / 6) / 8)


def test_nobody_with_anything_has_numbers_too():
    counts, classes = counts_of([np.array([], np.int64)] * 3)
    found = spread_of(counts)
    assert classes == ()
    assert (found.examples, found.inequality, found.distance, found.empty) == (0, 0.0, 0.0, 3)


def test_rules_are_as_far_apart_as_they_say():
    assert spread(iid(TENS, 20, KEY)).distance < 0.1
    assert spread(iid(TENS, 20, KEY)).inequality < 0.01
    assert spread(quantity(TENS, 20, KEY, 0.3)).inequality > 0.4
    assert spread(quantity(TENS, 20, KEY, 0.3)).distance < 0.15
    assert spread(shards(TENS, 100, KEY, 1)).distance == pytest.approx(0.9)
    uneven = [spread(dirichlet(TENS, 20, KEY, alpha)).distance for alpha in (100.0, 1.0, 0.1)]
    assert uneven == sorted(uneven)


# ------------------------------------------------------------------ pictures


def bars(svg: str) -> list[ET.Element]:
    name = "{http://www.w3.org/2000/svg}"
    return [r for r in ET.fromstring(svg).iter(f"{name}rect") if r.find(f"{name}title") is not None]


def test_bars_are_as_long_as_their_counts():
    counts = np.array([[10, 30], [5, 5], [0, 0]])
    svg = picture(counts, ["a & b", "c", "<d>"], (3, 7), "x < y")
    found = [(r.get("fill"), float(r.get("width") or 0)) for r in bars(svg)]
    widths = [width for _, width in found]
    assert widths == pytest.approx([155.0, 465.0, 77.5, 77.5])
    assert found[0][0] == found[2][0] != found[1][0] == found[3][0]
    assert "a &amp; b: 30 of class 7" in svg
    assert "3 clients, 50 examples" in svg


def test_many_clients_are_shown_evenly():
    counts = np.arange(1, 1001)[:, np.newaxis]
    svg = picture(counts, [f"client-{i}" for i in range(1000)], (0,), "many")
    found = bars(svg)
    assert len(found) == MOST
    widths = [float(r.get("width") or 0) for r in found]
    assert widths == sorted(widths, reverse=True)
    assert (widths[0], round(widths[-1], 1)) == (620.0, 0.6)
    assert f"{MOST} of 1,000 clients" in svg
