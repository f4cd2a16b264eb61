"""Flat vectors, schemas and layouts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hansa.core.vector import Layout, Schema, Segment, Tensor, blocks, sha256
from hansa.errors import HansaError

ARRAYS = {"w": np.arange(6.0).reshape(2, 3), "b": np.array([7.0]), "scalar": np.array(9.0)}
SCHEMA = Schema.of(ARRAYS)
LAYOUT = Layout((Segment("delta", 3), Segment("weight", 1), Segment("metrics", 0)))


def test_a_schema_lists_names_and_shapes_in_order():
    assert SCHEMA.tensors == (Tensor("w", (2, 3)), Tensor("b", (1,)), Tensor("scalar", ()))
    assert SCHEMA.size == 8


def test_flattening_and_viewing_are_inverse():
    flat = SCHEMA.flatten(ARRAYS)
    assert flat.dtype == np.float32
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 9]
    for name, view in SCHEMA.views(flat).items():
        assert (view == ARRAYS[name]).all()
        assert view.shape == ARRAYS[name].shape


def test_a_view_writes_through():
    flat = SCHEMA.flatten(ARRAYS)
    SCHEMA.views(flat)["w"][1, 2] = -1
    assert flat[5] == -1


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({k: v for k, v in ARRAYS.items() if k != "b"}, "'b' has shape None, expected"),
        ({**ARRAYS, "more": np.zeros(1)}, "'more'"),
        ({**ARRAYS, "b": np.zeros(2)}, r"'b' has shape \(2,\), expected \(1,\)"),
    ],
)
def test_other_arrays_are_refused(arrays, words):
    with pytest.raises(HansaError, match=words):
        SCHEMA.flatten(arrays)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(HansaError, match="cannot hold 8 parameters"):
        SCHEMA.views(np.zeros(7, np.float32))


def test_schemas_that_differ_have_other_digests():
    others = [
        Schema.of({**ARRAYS, "b": np.zeros(2)}),
        Schema.of({"b": ARRAYS["b"], "w": ARRAYS["w"], "scalar": ARRAYS["scalar"]}),
        Schema.of({"v" if k == "w" else k: v for k, v in ARRAYS.items()}),
    ]
    assert len({SCHEMA.digest, *(o.digest for o in others)}) == 4


def test_a_layout_cuts_an_update_into_segments():
    vector = np.arange(4.0)
    assert LAYOUT.size == 4
    assert LAYOUT.bounds("weight") == (3, 4)
    assert LAYOUT.slice(vector, "delta").tolist() == [0, 1, 2]
    assert LAYOUT.slice(vector, "metrics").size == 0
    assert LAYOUT.slice(vector, "absent").size == 0
    assert LAYOUT.without("delta").bounds("weight") == (0, 1)
    assert LAYOUT.without("absent") == LAYOUT
    assert LAYOUT.digest != LAYOUT.without("metrics").digest


def test_a_hash_is_of_little_endian_bytes():
    values = np.array([1.5, -2.0], np.float32)
    expected = hashlib.sha256(bytes.fromhex("0000c03f000000c0")).hexdigest()
    assert sha256(values) == expected
    assert sha256(values.astype(">f4")) == expected
    assert sha256(np.array([1.5, 0, -2.0, 0], np.float32)[::2]) == expected


def test_blocks_cover_a_vector_once():
    assert [s.indices(10) for s in blocks(10, 4)] == [(0, 4, 1), (4, 8, 1), (8, 10, 1)]
    assert list(blocks(0)) == []
    assert sum(s.stop - s.start for s in blocks(200_000)) == 200_000
