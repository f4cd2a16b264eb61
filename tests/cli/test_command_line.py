"""Exit codes, streams, widths, interruption: what every verb has in common."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hansa.cli import main
from hansa.cli.verbs import VERBS
from tests.support.cli import command, environment

ESCAPE = "\x1b"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 64, ""),
        (("--help",), 0, ""),
        (("--version",), 0, ""),
        (("plan", "toy"), 0, ""),
        (("plan", "toy/job.toml"), 0, ""),
        (("plan", "broken"), 2, "Fix: write population"),
        (("plan", "nowhere"), 2, "there is no such file"),
        (("plan",), 64, "JOB"),
        (("plan", "toy", "more"), 64, "more"),
        (("plan", "toy", "--jsn"), 64, "--jsn"),
        (("pln", "toy"), 64, "Did you mean 'plan'?"),
        (("xyzzy",), 64, "There is no verb 'xyzzy'"),
        (("--nothing",), 64, "--nothing"),
        (("simulate", "toy", "--rounds", "0"), 64, "--rounds"),
        (("simulate", "toy", "--rounds", "many"), 64, "--rounds"),
        (("simulate", "toy", "--engine", "steam"), 64, "the engines are"),
        (("new", "toy"), 2, "exists already"),
        (("new", "a b"), 2, "cannot be the name"),
        (("doctor", "--folder", "nowhere"), 1, ""),
    ],
)
def test_exit_codes(hansa, words, code, said):
    done = hansa(*words)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    if code in (2, 64) and words:
        assert done.out == ""
        assert done.err.startswith("Error: ") or "reasons" in done.err
        assert "Fix: " in done.err


def test_debug_shows_the_traceback_and_keeps_the_exit_code(hansa):
    for words in (("--debug", "plan", "nowhere"), ("plan", "nowhere", "--debug")):
        done = hansa(*words)
        assert done.code == 2
        assert "Traceback (most recent call last)" in done.err
        assert "Error: nowhere: there is no such file" in done.err


def test_a_fault_of_hansa_is_one_line_and_not_a_traceback(hansa, tmp_path):
    """An error that nobody foresaw: a program that is on the path in place of a library."""
    (tmp_path / "dp_accounting.py").write_text("raise RuntimeError('out of order')")
    done = hansa("plan", "private", env=environment(PYTHONPATH=str(tmp_path)))
    assert done.code == 1
    assert "Error: Hansa itself failed: RuntimeError: out of order" in done.err
    assert "--debug" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("plan", "--help"),
        ("plan", "toy"),
        ("plan", "private"),
        ("plan", "broken"),
        ("plan", "heart"),
        ("plan", "a" * 30 + "/job.toml"),
        ("simulate", "toy"),
        ("simulate", "broken"),
        ("doctor",),
        ("new", "one"),
        ("nonsense",),
    ],
)
def test_nothing_is_wider_than_80_columns_and_nothing_is_coloured(hansa, words):
    done = hansa(*words)
    lines = (done.out + done.err).splitlines()
    assert lines
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if line != line.rstrip()] == []
    assert ESCAPE not in done.out + done.err


@pytest.mark.parametrize("verb", VERBS)
def test_no_help_is_wider_than_80_columns(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: hansa {verb}")
    assert [line for line in lines if len(line) > 80] == []


def test_uses_the_width_there_is(hansa):
    narrow, wide = (
        hansa("plan", "toy", env=environment(COLUMNS=columns)) for columns in ("60", "120")
    )
    assert max(map(len, narrow.out.splitlines())) > 60 - 20
    assert 80 < max(map(len, wide.out.splitlines())) <= 120
    digests = [line for line in narrow.out.splitlines() if "digest" in line]
    assert all(len(line) <= 60 or len(line.split()[-1]) == 64 for line in narrow.out.splitlines())
    assert len(digests) == 2


@pytest.mark.parametrize(
    "words",
    [("plan", "toy"), ("plan", "broken"), ("simulate", "toy"), ("doctor",), ("new", "fresh")],
)
def test_json_is_one_object_on_stdout(hansa, words):
    done = hansa(*words, "--json")
    assert isinstance(json.loads(done.out), dict)


def test_progress_in_a_log_is_plain_lines_on_stderr(hansa):
    done = hansa("simulate", "toy", "--json")
    assert [line.split("  ")[0] for line in done.err.splitlines()] == [
        "round 1/3",
        "round 2/3",
        "round 3/3",
    ]


def on_terminal(words: tuple[str, ...], folder: Path, **changes: str) -> str:
    """Runs a command whose stdout and stderr are a terminal; gives what it wrote."""
    main, side = pty.openpty()
    environ = environment(**changes)
    if "NO_COLOR" not in changes:
        del environ["NO_COLOR"]
    process = subprocess.Popen(
        command(*words), cwd=folder, env=environ, stdout=side, stderr=side, stdin=side
    )
    os.close(side)
    written = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the last process with the terminal open is gone
            break
        if not piece:
            break
        written += piece
    os.close(main)
    assert process.wait(60) == 0, written
    return written.decode()


def test_progress_on_a_terminal_is_a_bar(hansa, tmp_path):
    written = on_terminal(("simulate", "toy"), tmp_path)
    assert "━━━" in written
    assert "3/3" in written
    assert ESCAPE in written
    assert "round 1/3  " not in written


def test_no_color_on_a_terminal_leaves_the_words(hansa, tmp_path):
    bold = on_terminal(("plan", "toy"), tmp_path)
    plain = on_terminal(("plan", "toy"), tmp_path, NO_COLOR="1")
    assert f"{ESCAPE}[1mClaims{ESCAPE}[0m" in bold
    assert ESCAPE not in plain
    assert "Claims" in plain


def test_interruption_ends_cleanly(hansa, tmp_path):
    process = subprocess.Popen(
        command("simulate", "toy", "--rounds", "1000000"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("round 1/")
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.endswith("\nInterrupted.\n")
    assert "Traceback" not in err
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("words", [("plan", "toy"), ("--help",), ("plan", "toy", "--json")])
def test_a_reader_that_goes_away_is_no_error(hansa, tmp_path, words):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        command(*words), cwd=tmp_path, env=environment(), stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 141


def test_verbs_do_not_depend_on_the_folder_that_they_are_called_from(hansa, tmp_path):
    """A `numpy.py` or `hansa.py` beside a job must not be imported in place of the real one."""
    for name in ("numpy.py", "typer.py", "json.py"):
        (tmp_path / "toy" / name).write_text("raise RuntimeError('wrong file')")
    script = Path(command()[0]).with_name("hansa")
    done = subprocess.run(
        [script, "--version"],
        cwd=tmp_path / "toy",
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
