"""The table of docs/correlated-noise.md, computed again."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from hansa.privacy.matrices import Kind, choose, prefix_error

PAGE = Path(__file__).resolve().parents[3] / "docs/correlated-noise.md"
NUMBER = r" ([\d.,]+) \|"
ROWS = [
    [float(cell.replace(",", "")) for cell in row]
    for row in re.findall(r"^\|" + 7 * NUMBER, PAGE.read_text("utf-8"), re.MULTILINE)
]
KINDS: tuple[Kind, ...] = ("identity", "tree", "banded", "blt")


def test_there_is_a_table():
    assert len(ROWS) >= 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(f"{n:g}" for n in row[:3]))
def test_the_errors_are_those_of_the_matrices(row):
    rounds, separation, participations = (int(number) for number in row[:3])
    for kind, told in zip(KINDS, row[3:], strict=True):
        strategy = choose(kind, rounds, separation, participations)
        assert strategy.participations == participations
        assert told == pytest.approx(math.sqrt(prefix_error(strategy).mean), abs=0.0051)
