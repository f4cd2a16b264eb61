"""The matrices that are shipped: what is said about them, and which one a run takes."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from hansa.errors import HansaError
from hansa.privacy.matrices import Strategy, choose, prefix_error, toeplitz
from hansa.privacy.matrices.catalogue import MOST_BANDS, read, recorded

DATA = files("hansa.privacy.matrices") / "data"
SHIPPED = [(kind, m) for kind in ("banded", "blt") for m in recorded(kind).matrices]


@pytest.mark.parametrize(
    ("kind", "matrix"), SHIPPED, ids=[f"{k}-{m.rounds}-{m.separation}" for k, m in SHIPPED]
)
def test_ours_are_the_numbers_of_those_who_found_it(kind, matrix):
    """Sensitivity and errors by jax-privacy, for every matrix."""
    schema = (matrix.rounds, matrix.separation, matrix.participations)
    strategy = Strategy(kind, *schema, matrix.coefficients, matrix.decays)
    error = prefix_error(strategy)
    assert strategy.sens == pytest.approx(matrix.sens, rel=1e-9)
    assert error.mean == pytest.approx(matrix.mean_error, rel=1e-6)
    assert error.max == pytest.approx(matrix.max_error, rel=1e-6)
    assert strategy.spread < 7, "the room that the grid leaves"
    assert strategy.bands <= strategy.separation or kind == "blt"


@pytest.mark.parametrize("kind", ["banded", "blt"])
def test_each_schema_is_recorded_once_and_its_origin_said(kind):
    catalogue = recorded(kind)
    schemas = [(m.rounds, m.separation) for m in catalogue.matrices]
    assert len(schemas) == len(set(schemas)) > 10
    assert catalogue.version == "2.0.0"


def test_the_data_are_small():
    assert sum(len(file.read_bytes()) for file in DATA.iterdir()) < 300_000


@pytest.mark.parametrize("kind", ["banded", "blt"])
def test_an_altered_file_is_refused(kind):
    text = (DATA / f"{kind}.json").read_text("ascii")
    content = json.loads(text)
    content["matrices"][3]["mean_error"] *= 1.0000001
    for altered in (json.dumps(content), text.replace('"sha256": "', '"other": "')):
        with pytest.raises(HansaError, match="was altered"):
            read(altered)
    assert read(text)["kind"] == kind


@pytest.mark.parametrize(
    ("schema", "bands", "source"),
    [
        ((64, 8, 0), 8, "64 rounds and participations 8 "),
        ((65, 8, 0), 8, "128 rounds and participations 8 "),
        ((64, 15, 0), 8, "64 rounds and participations 8 "),
        ((64, 15, 1), 64, "64 rounds and participations 64 "),
        ((2000, 500, 0), 64, "2,048 rounds and participations 64 "),
        ((5000, 500, 0), 64, "cut to 64 bands"),
        ((5000, 6, 0), 6, "cut to 6 bands"),
        ((100, 1, 0), 1, "cut to 1 bands"),
        ((1, 1, 0), 1, "cut to 1 bands"),
    ],
)
def test_the_banded_matrix_for_at_least_so_many_rounds(schema, bands, source):
    strategy = choose("banded", *schema)
    assert (strategy.bands, len(strategy.coefficients)) == (bands, bands)
    assert source in strategy.source
    assert strategy.orthogonal
    if "cut" in source:
        assert strategy.coefficients == toeplitz.square_root(bands)


@pytest.mark.parametrize("kind", ["identity", "tree", "banded", "blt"])
@pytest.mark.parametrize(
    "schema", [(1, 1, 0), (7, 20, 0), (30, 4, 99), (300, 299, 2), (8000, 9, 0)]
)
def test_every_schema_has_a_matrix(kind, schema):
    rounds, separation, _ = schema
    strategy = choose(kind, *schema)
    assert strategy.rounds == rounds
    assert 1 <= strategy.participations <= -(-rounds // separation)
    assert strategy.participations == 1 or strategy.separation == separation
    assert strategy.source


def test_what_cannot_be_had_is_refused():
    with pytest.raises(HansaError, match="up to 8,192"):
        choose("blt", 8193, 64)
    for schema in ((0, 1, 1), (10, 0, 1), (10, 1, -1)):
        with pytest.raises(HansaError, match="no schema"):
            choose("tree", *schema)


@pytest.mark.parametrize(
    ("schema", "of_tree", "of_banded"),
    [
        ((512, 512), 0.60, 1.0),
        ((2048, 64), 0.45, 1.3),
        ((300, 16), 0.45, 1.3),
        ((100, 50), 0.6, 1.05),
    ],
)
def test_buffers_beat_the_tree_and_come_close_to_bands(schema, of_tree, of_banded):
    """Three buffers against up to 63 rows that are kept."""
    errors = {kind: prefix_error(choose(kind, *schema)) for kind in ("tree", "banded", "blt")}
    assert errors["blt"].mean < of_tree * errors["tree"].mean
    assert errors["blt"].max < of_tree * errors["tree"].max
    assert errors["blt"].mean < of_banded * errors["banded"].mean
    assert choose("blt", *schema).kept <= 5


@pytest.mark.parametrize("rounds", [20, 50, 100, 200, 400, 700, 1500, 2048])
def test_no_schema_falls_into_a_hole_of_the_grid(rounds):
    """What is recorded for other numbers is nearly as good as what would be found for these."""
    for separation in (8, 16, 50):
        if separation > rounds:
            continue
        errors = {
            kind: prefix_error(choose(kind, rounds, separation))
            for kind in ("tree", "banded", "blt")
        }
        assert errors["blt"].mean < 0.6 * errors["tree"].mean, separation
        assert errors["blt"].mean < 1.35 * errors["banded"].mean, separation


@pytest.mark.parametrize("rounds", [128, 512, 2048])
def test_once_is_close_to_the_best_there_is(rounds):
    """Square roots have the smallest maximal error, and nearly the smallest mean error."""
    root = Strategy("banded", rounds, rounds, 1, toeplitz.square_root(rounds))
    best, found = prefix_error(root), prefix_error(choose("blt", rounds, rounds))
    assert found.mean < 1.01 * best.mean
    assert found.max < 1.15 * best.max


def test_a_client_in_every_round_gains_nothing_from_correlation():
    assert choose("blt", 200, 1).kept == 0
    assert prefix_error(choose("blt", 200, 1)) == prefix_error(choose("identity", 200, 1))
    error = prefix_error(choose("identity", 200, 1))
    assert (error.mean, error.max) == pytest.approx((200 * 201 / 2, 200**2))


def test_more_bands_than_are_useful_are_not_kept():
    assert choose("banded", 2048, 2000).kept == MOST_BANDS - 1
