"""Facts of a task: the layout of its updates, and what is read from somebody else's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hansa.core import canonical
from hansa.core.job import facts_of_json
from hansa.core.vector import Segment
from hansa.errors import HansaError
from tests.support.toy import FACTS


def as_json() -> Any:
    return json.loads(canonical.dumps(FACTS))


def test_a_layout_has_room_for_delta_weight_and_metric_sums():
    sums = 2 + sum(m.size for m in FACTS.metrics)
    assert FACTS.layout(with_metrics=True).segments == (
        Segment("delta", FACTS.schema.size),
        Segment("weight", 1),
        Segment("metrics", sums),
    )
    assert FACTS.layout(with_metrics=False).segments[2] == Segment("metrics", 0)


def test_facts_travel_as_json():
    assert facts_of_json(as_json()) == FACTS


def _without(key: str) -> Any:
    return {k: v for k, v in as_json().items() if k != key}


def _with_tensors(*tensors: Any) -> Any:
    return {**as_json(), "schema": {"is": "Schema", "tensors": list(tensors)}}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "facts",
        _without("schema"),
        _without("metrics"),
        _without("digest"),
        {**as_json(), "metrics": [{"is": "Nothing"}]},
        _with_tensors(),
        _with_tensors({"name": "w", "shape": [2]}, {"name": "w", "shape": [2]}),
        _with_tensors({"name": "w", "shape": [-1]}),
        _with_tensors({"name": "w", "shape": [True]}),
        _with_tensors({"name": "w", "shape": ["2"]}),
        _with_tensors({"name": "w", "shape": 2}),
        _with_tensors({"shape": [2]}),
    ],
)
def test_what_is_no_tasks_facts_is_refused(value):
    with pytest.raises(HansaError) as caught:
        facts_of_json(value)
    assert caught.value.fix
