"""Tables, paragraphs and problems, without a process around them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.cli import output
from hansa.cli.output import GAP, NARROWEST, Progress, columns, fail
from hansa.errors import HansaError, JobError, JobRefused, PlanError, PlanRefused
from hansa.report import Problem, part_words, problems, size_words
from tests.support.cli import environment

words = st.lists(st.text("abcdef", min_size=1, max_size=NARROWEST), max_size=8).map(" ".join)
tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(words, min_size=n, max_size=n), min_size=1, max_size=5)
)


@given(tables, st.integers(60, 120))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_a_table_fits_and_loses_no_word(rows, most):
    """Each column's words, read downwards, are those that were put in."""
    lines = columns(rows[0], rows[1:], most)
    assert all(len(line) <= most for line in lines)
    assert sorted(" ".join(lines).split()) == sorted(
        w for row in rows for c in row for w in c.split()
    )


def test_a_table_by_hand():
    lines = columns(("A", "Bee"), [["one", "x"], ["two three", "y\nz z"]], 80)
    assert lines == ["A          Bee", "one        x", "two three  y", "           z z"]
    assert columns(("A", "B"), [], 80) == ["A  B"]


def test_the_widest_column_gives_way_first():
    lines = columns(("Name", "Text"), [["a" * 12, "word " * 30]], 50)
    assert lines[1].startswith("a" * 12 + " " * GAP + "word word")
    assert max(map(len, lines)) <= 50


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (HansaError("m", fix="f"), [Problem("", "m", "f")]),
        (JobError("m", fix="f", file="j.toml", line=3), [Problem("j.toml:3", "m", "f")]),
        (JobError("m", fix="f", file="j.toml"), [Problem("j.toml", "m", "f")]),
        (PlanError("Clip(1)", "b", "f"), [Problem("Clip(1)", "b", "f")]),
        (
            PlanRefused([PlanError("a", "b", "c"), PlanError("d", "e", "f")]),
            [Problem("a", "b", "c"), Problem("d", "e", "f")],
        ),
        (
            JobRefused(
                [JobError("m", fix="f", file="j", line=1), JobError("n", fix="g", file="j")]
            ),
            [Problem("j:1", "m", "f"), Problem("j", "n", "g")],
        ),
    ],
)
def test_problems_of_an_error(error, parts, capsys):
    assert list(problems(error)) == parts
    assert fail(error) == error.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("Fix: ") == len(parts)
    assert ("reasons" in said.err) == (len(parts) > 1)


def test_an_error_nobody_foresaw_is_a_failure():
    assert fail(ValueError("x")) == 1
    assert problems(ValueError("x"))[0].because == "Hansa itself failed: ValueError: x"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1234, "1.23 kB"), (6_800_000, "6.8 MB")],
)
def test_sizes(count, said):
    assert size_words(count) == said


def test_parts_without_the_spelling_of_python():
    assert part_words("Mean(divisor=<Divisor.FIXED: 'a constant'>)") == "Mean(divisor=fixed)"
    assert part_words('X(r=<Reader.EACH: "each client\'s">, s=0.5)') == "X(r=each, s=0.5)"
    assert part_words("Q(step=9.5367431640625e-07, n=1.25)") == "Q(step=9.537e-07, n=1.25)"


def test_progress_in_a_log(capsys):
    with Progress("round", 2) as progress:
        progress.step("loss 1")
        progress.note("round 2 was void")
        progress.step()
    assert capsys.readouterr().err.splitlines() == [
        "round 1/2  loss 1",
        "round 2 was void",
        "round 2/2",
    ]


def test_a_log_says_now_and_then_how_fast_it_goes(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("hansa.cli.output.time.monotonic", lambda: now[0])
    with Progress("round", 40) as progress:
        progress.begin(10)
        for _ in range(30):
            now[0] += 3
            progress.step("loss 1", clients=6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "round 11/40  loss 1"
    assert lines[3:6] == [
        "round 14/40  loss 1",
        "    2 clients/s, 1 min 18 s left",
        "round 15/40  loss 1",
    ]
    assert sum("left" in line for line in lines) == 7
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_bar_fits_its_terminal_and_has_no_colour_if_none_is_wanted(columns):
    """In a pseudo terminal, as a person has it."""
    script = (
        "import time; from hansa.cli.output import Progress\n"
        "with Progress('round', 12) as p:\n"
        "    p.begin(3)\n"
        "    for i in range(9):\n"
        "        time.sleep(0.03); p.step('loss 0.1234  accuracy 0.5678', clients=50)\n"
    )
    said = on_a_terminal([sys.executable, "-c", script], columns, NO_COLOR="1")
    shown = [line for line in re.split(r"[\r\n]+", said) if "12/12" in line]
    assert shown
    assert re.search(r"\d clients/s", shown[-1])
    assert ("loss 0.1234" in shown[-1]) == (columns >= 80)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[-1])
    assert len(plain) <= columns
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", said)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (9000, "2 h 30 min")],
)
def test_durations(seconds, said):
    assert output.duration(seconds) == said


def on_a_terminal(words: list[str], columns: int, **more: str) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in environment(**more).items() if k != "COLUMNS"}
    process = subprocess.Popen(words, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal is closed at the other end
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    assert process.wait(30) == 0
    return said.decode("utf-8")
