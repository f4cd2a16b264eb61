"""Cells in several processes: the same rows and records, whatever becomes of a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.core.job import Aggregation, Cohort, Rounds
from hansa.errors import HansaError, Refused
from hansa.redteam.matrix import Wanted, prepare
from hansa.redteam.record import CELLS, Record
from tests.support import toy
from tests.support.cli import TASK, command, environment, make_jobs, run, run_here

WANTED = Wanted(
    attacks=("gaussian", "label_flip", "backdoor", "adaptive_ipm"),
    shares=(0.2, 0.4),
    skews=("own", "dirichlet_0.3"),
    rules=("own", "mean"),
    seeds=(0, 7),
)
FEW = replace(WANTED, attacks=("gaussian", "label_flip"), shares=(0.2,), skews=("own",), seeds=())

FIRST = '        """Cross-entropy and its gradient."""\n'
TROUBLE = """\
        import os, pathlib, time
        here = pathlib.Path(__file__).parent
        slowly = here / "slowly"
        if slowly.exists() and pathlib.Path(slowly.read_text()).exists():
            slowly.unlink()
            time.sleep(60)
        left = here / "deaths"
        if left.exists() and left.read_text():
            left.write_text(left.read_text()[1:])
            os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a task that dies when it is told to, or hangs for a minute once a file exists."""
    text = TASK.read_text()
    assert FIRST in text
    (tmp_path / "task.py").write_text(text.replace(FIRST, FIRST + TROUBLE))
    return tmp_path


def job(folder: Path = toy.FOLDER) -> Any:
    return toy.job(
        rounds=Rounds(count=3, quorum=5),
        cohort=Cohort(population=10),
        aggregation=Aggregation(rule="trimmed_mean", trim=0.2, weighting="uniform"),
        folder=folder,
    )


def ran(of: Any, wanted: Any, parallel: int, at: Path | None = None, record: Any = None) -> Any:
    told: list[Any] = []
    matrix = prepare(of, wanted)
    rows = matrix.run(record or Record.at(at), lambda *heard: told.append(heard), parallel)
    return [row.to_json() for row in rows], told


def lines(at: Path) -> list[str]:
    return sorted((at / CELLS).read_text().splitlines())


def test_rows_and_records_are_those_of_one_process_to_the_bit(tmp_path):
    one, told = ran(job(), WANTED, 1, tmp_path / "one")
    three, heard = ran(job(), WANTED, 3, tmp_path / "three")
    assert three == one
    assert lines(tmp_path / "three") == lines(tmp_path / "one")
    assert len(lines(tmp_path / "one")) == 2 * 2 * 2 * 9

    def sums(calls: Any) -> Any:
        return sorted((repr(cell), new, json.dumps(found.to_json())) for cell, found, new in calls)

    assert sums(heard) == sums(told)
    poisoned = [row for row in one if row["attack"] in ("label_flip", "backdoor")]
    assert all(row["success_by_itself"] is not None for row in poisoned)


def test_what_is_known_is_not_run_and_its_model_is_trained_again_where_it_is_needed(tmp_path):
    honest = replace(FEW, attacks=("gaussian",))
    ran(job(), honest, 1, tmp_path / "known")
    before = lines(tmp_path / "known")
    rows, told = ran(job(), FEW, 2, tmp_path / "known")
    assert [new for *_, new in told] == [False] * 5 + [True] * 2
    assert {cell.attack for cell, _, new in told if new} == {"label_flip"}
    assert rows == ran(job(), FEW, 1)[0]
    after = lines(tmp_path / "known")
    assert set(before) < set(after)
    assert len(after) == len(set(after)) == len(before) + 2
    again, told = ran(job(), FEW, 2, tmp_path / "known")
    assert again == rows
    assert not any(new for *_, new in told)


def test_the_cell_of_a_worker_that_is_killed_is_run_again(folder):
    expected, _ = ran(job(folder), FEW, 1)
    (folder / "deaths").write_text("xx")
    found, told = ran(job(folder), FEW, 2)
    assert (folder / "deaths").read_text() == ""
    assert found == expected
    assert len(told) == 7  # each once: the mean's own run, and two rules with two attacks


def test_a_cell_whose_workers_are_all_killed_is_named_with_what_to_do(folder, tmp_path):
    (folder / "deaths").write_text("x" * 100)
    with pytest.raises(
        HansaError, match=r"none on own data was ended by SIGKILL, 3 times"
    ) as error:
        ran(job(folder), FEW, 2, tmp_path / "out")
    assert "--parallel" in error.value.fix
    assert 100 - len((folder / "deaths").read_text()) <= 6


@pytest.mark.parametrize(
    ("raised", "kind", "message", "fix"),
    [
        ("ValueError('odd')", HansaError, "a cell raised ValueError: odd", "--parallel 1"),
        ("Refused('no', fix='do')", Refused, "^no", "do"),
        ("HansaError('no', fix='do')", HansaError, "^no", "do"),
    ],
)
def test_what_a_cell_raises_is_raised_here(folder, raised, kind, message, fix):
    with (folder / "task.py").open("a") as task:
        task.write(f"""
    def predict(self, params, examples):
        from hansa.errors import HansaError, Refused
        raise {raised}
""")
    with pytest.raises(HansaError, match=message) as error:
        ran(job(folder), FEW, 2)
    assert type(error.value) is kind
    assert fix in error.value.fix


def test_a_record_that_cannot_be_written_ends_everything_at_once(folder):
    (folder / "slowly").write_text(str(folder / "full"))

    class Full(Record):
        def add(self, *_: Any) -> None:
            (folder / "full").touch()
            time.sleep(0.5)  # the other worker is in the middle of a cell
            raise HansaError("the disk is full", fix="make room")

    many = replace(FEW, attacks=("gaussian", "scaling", "mimic"), rules=("own", "mean", "dnc"))
    with pytest.raises(HansaError, match="disk is full"):
        ran(job(folder), many, 2, record=Full())
    assert time.time() - (folder / "full").stat().st_mtime < 30
    assert children_of(os.getpid()) == []


def children_of(pid: int) -> list[int]:
    """Processes of a process that run cells."""
    found = []
    for at in Path("/proc").iterdir():
        try:
            parent = int((at / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"hansa.redteam.worker" in (at / "cmdline").read_bytes():
                found.append(int(at.name))
        except (OSError, ValueError):
            continue
    return found


def gone(pids: list[int]) -> bool:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if not any(Path("/proc", str(pid)).exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


WORDS = ("redteam", "toy", "--clients", "10", "--rounds", "4", "--attacks", "scaling,label_flip",
         "--shares", "0.2", "--skews", "own", "--json", "--out", "out")  # fmt: skip


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    make_jobs(tmp_path)
    task = tmp_path / "toy" / "task.py"
    task.write_text(task.read_text().replace(FIRST, FIRST + TROUBLE))
    return tmp_path


def begun(jobs: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """The command and its workers, one of which hangs in the second cell."""
    (jobs / "toy" / "slowly").write_text(str(jobs / "out" / CELLS))
    process = subprocess.Popen(
        command(*WORDS, "--parallel", "2"), cwd=jobs, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if (jobs / "out" / CELLS).exists():
            time.sleep(0.5)
            return process, children_of(process.pid)
        time.sleep(0.02)
    raise AssertionError("no cell ended in two minutes")


def test_ctrl_c_ends_all_workers_and_the_same_command_goes_on(jobs):
    process, workers = begun(jobs)
    assert workers
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)  # the cell would take a minute
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "the same command goes on" in err
    assert gone(workers)
    (jobs / "toy" / "slowly").unlink(missing_ok=True)
    before = len(lines(jobs / "out"))
    assert 0 < before < 3
    rest = run(*WORDS, "--parallel", "2", cwd=jobs)
    assert rest.code == 0, rest.err
    assert rest.err.count("  known") == before + 1  # the mean's own cell is that of the rule, too
    assert "run 4/4" in rest.err
    alone = run_here(*WORDS[:-2], cwd=jobs)
    assert json.loads(rest.out) == json.loads(alone.out)


def test_workers_end_when_the_command_is_killed(jobs):
    process, workers = begun(jobs)
    assert workers
    process.kill()
    process.wait(30)
    assert gone(workers)
    process.communicate()


def test_no_process_is_no_number(jobs):
    assert run_here(*WORDS, "--parallel", "0", cwd=jobs).code == 64
