"""One text per value."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core import canonical


class Colour(Enum):
    RED = "r"


@dataclass(frozen=True)
class Part:
    b: int
    a: float = 0.5
    function: object = field(default=None, metadata={"words": False})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (math.inf, '"inf"'),
        (-math.inf, '"-inf"'),
        ("ä", '"\\u00e4"'),
        (Colour.RED, '"red"'),
        ((1, [2]), "[1,[2]]"),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({2: "two"}, '{"2":"two"}'),
        (Part(1, function=print), '{"a":0.5,"b":1,"is":"Part"}'),
    ],
)
def test_each_kind_of_value_has_one_text(value, text):
    assert canonical.dumps(value) == text
    assert canonical.digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        canonical.dumps([math.nan])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", Part])
def test_what_has_no_text_is_refused(value):
    with pytest.raises(TypeError, match="no canonical form"):
        canonical.dumps(value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_plain_json_reads_back_to_itself(value):
    assert json.loads(canonical.dumps(value)) == value


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_the_order_of_keys_does_not_matter(value):
    assert canonical.dumps(dict(reversed(value.items()))) == canonical.dumps(value)
