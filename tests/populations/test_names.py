"""Names of a population: those that there always were, and none of them kept."""

from __future__ import annotations

import tracemalloc

import pytest

from hansa.core.keys import ReplayKey
from hansa.populations.names import Numbered
from hansa.samplers import Cyclic, Everyone, FixedSize, Poisson


def test_they_are_numbered_from_one():
    names = Numbered(12_345)
    assert (names[0], names[41], names[-1]) == ("client-0001", "client-0042", "client-12345")
    assert names[:2] == ("client-0001", "client-0002")
    assert list(Numbered(3)) == ["client-0001", "client-0002", "client-0003"]
    assert len(names) == 12_345
    assert "client-0007" in Numbered(9)
    assert "client-0010" not in Numbered(9)
    for place in (12_345, -12_346):
        with pytest.raises(IndexError):
            names[place]


@pytest.mark.parametrize(
    "sampler",
    [
        Everyone(500),
        Poisson(0.1, 500),
        Poisson(0.1, 500, 100),
        FixedSize(20, 500),
        Cyclic(10, 500, 0.5),
    ],
)
def test_samplers_draw_from_them_what_they_draw_from_a_tuple(sampler):
    key = ReplayKey.of_seed(1)
    assert sampler.draw(Numbered(500), key, 3) == sampler.draw(tuple(Numbered(500)), key, 3)


@pytest.mark.parametrize("sampler", [FixedSize(100, 1_000_000), Poisson(1e-4, 1_000_000)])
def test_a_draw_from_a_million_makes_the_names_that_are_drawn(sampler):
    """A million names would be 60 MB and more."""
    tracemalloc.start()
    cohort = sampler.draw(Numbered(1_000_000), ReplayKey.of_seed(1))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 40 < len(cohort) < 200
    assert most < 20e6
