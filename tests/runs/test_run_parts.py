"""Charts, fingerprints, environments and files, each by itself."""

from __future__ import annotations

import errno
import subprocess
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core.parts import Examples, Split
from hansa.errors import HansaError
from hansa.runs import chart, disk
from hansa.runs.chart import Line
from hansa.runs.environment import git_of
from hansa.runs.fingerprint import differing, fingerprints, spread
from tests.support.toy import POPULATION, TOY

SVG = "{http://www.w3.org/2000/svg}"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_ticks_are_few_round_and_inside(low, width):
    high = low + width
    found = chart.ticks(low, high)
    if not high > low:
        assert found == [low]
        return
    slack = 1e-6 * (abs(low) + abs(high)) + 1e-9
    assert len(found) <= 7
    assert all(low - slack <= tick <= high + slack for tick in found)
    gaps = np.diff(found)
    assert np.allclose(gaps, gaps[0]) if len(gaps) else True


def test_ticks_by_hand():
    assert chart.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert chart.ticks(0.43, 0.87) == [0.5, 0.6, 0.7, 0.8]
    assert chart.ticks(3, 3) == [3]


def test_a_point_is_where_its_value_is():
    text = chart.picture([Line("a<b", {"loss": [(0, 1.0), (4, 2.0)]})], "t & u", {"loss": "lower"})
    root = ET.fromstring(text)
    [line] = root.findall(f".//{SVG}polyline")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in line.attrib["points"].split())
    assert x1 - x0 == pytest.approx(chart.WIDTH - 56 - 12)
    assert y0 - y1 == pytest.approx((chart.HEIGHT - 60) / 1.1, abs=0.2)
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert "loss (lower is better)" in texts
    assert root.find(f"{SVG}title").text == "t & u"  # type: ignore[union-attr]


def test_many_runs_and_none():
    lines = [Line(f"run {i}", {"loss": [(0, 1.0), (1, i)]}) for i in range(30)]
    root = ET.fromstring(chart.picture(lines, "many", {}))
    assert len(root.findall(f".//{SVG}polyline")) == 30
    assert sum("#cccccc" in e.attrib.get("stroke", "") for e in root.iter()) == 20
    names = [e.text for e in root.iter(f"{SVG}text") if e.text and e.text.startswith("run ")]
    assert names == [f"run {i}" for i in range(10)]
    assert "no metrics leave the clients" in chart.picture([Line("x", {})], "none", {})
    assert "not measured" in chart.picture([Line("x", {"loss": []})], "gap", {})


@given(st.integers(1, 200))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_clients_are_read_spread_over_all(size):
    names = [str(i) for i in range(size)]
    order = list(spread(names))
    assert sorted(order, key=int) == names
    if size >= 16:
        assert {int(name) * 4 // size for name in order[:8]} == {0, 1, 2, 3}


def test_fingerprints_follow_from_the_examples_alone():
    found = fingerprints(TOY, POPULATION)
    assert sorted(found) == list(POPULATION)
    assert len(set(found.values())) == len(POPULATION)
    assert differing(TOY, found) == []
    assert len(fingerprints(TOY, POPULATION, seconds=0)) == 1

    def changed(site):
        split = TOY.data(site)
        if site.name == "client-0002":
            targets = split.train.targets.copy()
            targets[0] ^= 1
            return Split(Examples(split.train.inputs, targets), split.test)
        if site.name == "client-0004":
            raise ValueError("gone")
        return split

    other: Any = SimpleNamespace(data=changed)
    assert sorted(differing(other, found)) == ["client-0002", "client-0004"]


def test_the_commit_of_a_folder(tmp_path):
    assert git_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    (tmp_path / "task.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    clean = git_of(tmp_path)
    assert clean is not None
    assert len(str(clean["commit"])) == 40
    assert clean["changed"] is False
    (tmp_path / "task.py").write_text("2\n")
    assert git_of(tmp_path) == {"commit": clean["commit"], "changed": True}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    disk.write_text(path, "old", sync=True)

    def half(file):
        file.write(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HansaError, match="No space left") as caught:
        disk.write_whole(path, half)
    assert "free disk space" in caught.value.fix
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_has_no_infinite_numbers(tmp_path):
    disk.write_json(tmp_path / "x.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": "ü"})
    assert disk.read_json(tmp_path / "x.json") == {"a": None, "b": [1.5, None], "c": "ü"}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(HansaError, match="is damaged"):
        disk.read_json(tmp_path / "x.json")
