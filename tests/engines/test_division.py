"""Who trains whom: everybody once, fair shares, near the data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.engines.division import divide

NAMES = [f"c{number}" for number in range(12)]
LENGTHS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 100))
HOMES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5))


@given(st.integers(0, 12), LENGTHS, HOMES, st.integers(1, 5))
def test_everybody_is_in_one_share_and_no_share_is_much_too_long(number, lengths, homes, actors):
    placed = [(position % 2, name) for position, name in enumerate(NAMES[:number])]
    shares = divide(placed, lengths, homes, range(actors))
    assert sorted(each for share in shares.values() for each in share) == sorted(placed)
    assert all(shares.values())
    assert set(shares) <= set(range(actors))
    known = [lengths[name] for _, name in placed if name in lengths]
    mean = sum(known) / len(known) if known else 1
    taken = {a: sum(lengths.get(n, mean) for _, n in share) for a, share in shares.items()}
    if placed:
        longest = max(lengths.get(name, mean) for _, name in placed)
        assert max(taken.values()) <= sum(taken.values()) / actors + longest + 1e-9


def test_the_longest_are_shared_out_first():
    lengths = {"a": 8, "b": 7, "c": 6, "d": 5, "e": 4}
    shares = divide([(0, name) for name in "abcde"], lengths, {}, [7, 9])
    assert {a: [name for _, name in share] for a, share in shares.items()} == {
        7: ["a", "d", "e"],
        9: ["b", "c"],
    }


def test_a_client_stays_with_its_data_unless_that_is_unfair():
    lengths = dict.fromkeys("abcd", 10)
    placed = [(0, name) for name in "abcd"]
    homes = {"a": 2, "b": 2, "c": 1, "d": 1}
    assert divide(placed, lengths, homes, [1, 2]) == {
        1: ((0, "c"), (0, "d")),
        2: ((0, "a"), (0, "b")),
    }
    crowded = divide(placed, lengths, dict.fromkeys("abcd", 2), [1, 2])
    assert [len(crowded[1]), len(crowded[2])] == [2, 2]
    assert divide(placed[:1], lengths, homes, [1, 2]) == {2: ((0, "a"),)}
    gone = divide(placed, lengths, dict.fromkeys("abcd", 5), [1, 2])
    assert [len(gone[1]), len(gone[2])] == [2, 2]


@pytest.mark.parametrize(("clients", "actors", "expected"), [(0, 2, 0), (1, 3, 1), (2, 3, 2)])
def test_who_gets_nobody_is_left_out(clients, actors, expected):
    assert len(divide([(0, n) for n in NAMES[:clients]], {}, {}, range(actors))) == expected
