"""Limits, the page, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from typing import Any

import pytest

from hansa.errors import Refused
from hansa.redteam.gate import Limit, broken
from hansa.redteam.page import page
from hansa.redteam.report import Report
from hansa.redteam.rows import Row
from tests.support.cli import make_jobs, run_here


def a_row(**words: Any) -> Row:
    names = [f.name for f in fields(Row)]
    usual: dict[str, Any] = dict.fromkeys(names)
    usual |= {"attack": "scaling", "share": 0.2, "skew": "own", "rule": "dnc", "seeds": 2}
    return Row(**{**usual, "ended": "", "sites": {}, "classes": {}, **words})


@pytest.mark.parametrize(
    ("text", "least", "words", "told"),
    [
        ("accuracy=0.8", True, {"accuracy": 0.8}, ""),
        ("accuracy=0.8", True, {"accuracy": 0.79}, "accuracy 0.79 is under 0.8"),
        ("accuracy=0.8", True, {}, "accuracy is not known"),
        ("attack_success=0.1", False, {"attack_success": 0.1}, ""),
        ("attack_success=0.1", False, {"attack_success": 0.2}, "attack success 0.2 is over 0.1"),
        ("attack_success=0.1", False, {"share": 0.0, "attack": "none"}, ""),
        ("detected=0.9", True, {"share": 0.0, "attack": "none"}, ""),
        ("detected=0.9", True, {}, "detected is not known"),
        ("false_positives=0.01", False, {"share": 0.0}, "false positives is not known"),
    ],
)
def test_a_limit_is_kept_or_broken(text, least, words, told):
    row = a_row(**words)
    limit = Limit.read(text, least=least)
    assert limit.broken(row) == told
    assert broken([limit], [row]) == ([(row, told)] if told else [])


@pytest.mark.parametrize(
    ("text", "least", "fix"),
    [
        ("acuracy=1", True, "accuracy"),
        ("attack_success=1", True, "accuracy"),  # that it is low is no fault
        ("accuracy=1", False, "attack_success"),
        ("accuracy", True, "accuracy=0.8"),
        ("accuracy=nan", True, "accuracy=0.8"),
    ],
)
def test_other_limits_are_refused(text, least, fix):
    with pytest.raises(Refused) as error:
        Limit.read(text, least=least)
    assert fix in error.value.fix


class _Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[Any] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_by_itself_and_shows_every_number():
    rows = (
        a_row(attack="none", share=0.0, accuracy=0.9123),
        a_row(attack="<b>", accuracy=0.5555, attack_success=0.0777, worst_group=0.25),
    )
    text = page(Report("a&b", 3, 10, 0.2, rows, (Limit("accuracy", 0.6, True),)))
    read = _Read()
    read.feed(text)
    assert not read.open
    assert not read.links
    assert "<b>" not in text
    shown = " ".join(read.text)
    for number in ("91.2", "55.5", "7.8", "25.0", "20%"):
        assert number in shown
    assert "accuracy 0.555 is under 0.6" in shown or "accuracy 0.556 is under 0.6" in shown
    assert not re.search(r"https?://", text)


def test_a_harmless_cell_is_light_and_a_ruined_one_dark():
    rows = (a_row(accuracy=1.0), a_row(accuracy=0.0, share=0.4))
    text = page(Report("a", 3, 10, 0.2, rows))
    light, dark = re.findall(r"background:#(\w{6});color:(#\w+)\">(?:100\.0|0\.0)<", text)[:2]
    assert sum(bytes.fromhex(light[0])) > 3 * 200 > 3 * 100 > sum(bytes.fromhex(dark[0]))
    assert light[1] == "#111"
    assert dark[1] == "#fff"


def test_the_command_runs_writes_and_ends_with_the_gates_answer(tmp_path):
    make_jobs(tmp_path)
    words: tuple[str, ...] = (
        "redteam",
        "toy",
        "--clients",
        "10",
        "--rounds",
        "2",
        "--attacks",
        "scaling",
    )
    words += ("--shares", "0.2", "--skews", "own", "--out", "found")
    done = run_here(*words, "--json", "--fail-under", "accuracy=0.0", cwd=tmp_path)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [(r["attack"], r["share"], r["skew"], r["rule"]) for r in said["rows"]] == [
        ("none", 0.0, "own", "mean"),
        ("scaling", 0.2, "own", "mean"),
    ]
    assert {"accuracy", "attack_success", "detected", "false_positives"} <= set(said["rows"][1])
    assert said["rows"][1]["detected"] is None
    assert json.loads((tmp_path / "found" / "redteam.json").read_text()) == said
    assert (tmp_path / "found" / "redteam.html").read_text().startswith("<!DOCTYPE html>")
    gate = run_here(*words, "--fail-over", "attack_success=0.1", cwd=tmp_path)
    assert gate.code == 2
    assert "attack success" in gate.out
    assert "known" in gate.err
    assert "\x1b" not in gate.out + gate.err
    assert max(map(len, (gate.out + gate.err).splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--shares", "x"), 64, "no number"),
        (("--seeds", "-1"), 64, "no whole number"),
        (("--shares", "0.01"), 2, "is nobody"),
        (("--fail-under", "beauty=1"), 2, "no lowest value"),
        (("--set", "rounds.quorum=3", "--rules", "dnc"), 2, "rounds.quorum to at least 5"),
    ],
)
def test_wrong_input_is_refused_with_a_fix(tmp_path, words, code, told):
    make_jobs(tmp_path)
    done = run_here("redteam", "toy", "--clients", "10", *words, cwd=tmp_path)
    assert done.code == code
    assert told in " ".join(done.err.split())
    assert "Fix:" in done.err


def test_a_job_whose_rounds_do_not_wait_is_refused_with_options_that_work(tmp_path):
    make_jobs(tmp_path)
    job = tmp_path / "toy" / "job.toml"
    arrival = 'population = 10\nsampler = "arrival"\nbuffer = 5\nconcurrency = 8\nmax_staleness = 3'
    job.write_text(job.read_text().replace("population = 4", arrival))
    words = ("redteam", "toy", "--attacks", "scaling", "--skews", "own", "--shares", "0.2")
    refused = run_here(*words, cwd=tmp_path)
    assert refused.code == 2
    assert "wait for their cohort" in " ".join(refused.err.split())
    options = re.findall(r"--set\s+(cohort\.\w+=\w+)", refused.err)
    assert len(options) == 4
    changed = [word for option in options for word in ("--set", option)]
    done = run_here(*words, *changed, cwd=tmp_path)
    assert done.code == 0, done.err
