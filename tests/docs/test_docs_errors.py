"""`docs/errors.md` and the tree in `hansa.errors` against the classes themselves."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from hansa import errors
from hansa.cli import run
from hansa.errors import HansaError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, HansaError)
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    text = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_error_is_described_with_its_exit_code():
    told = {row[0].strip("`"): int(row[1]) for row in rows("All errors")}
    assert told == {name: found.exit_code for name, found in CLASSES.items()}


def test_every_description_says_what_it_means_and_what_to_do():
    for name, _, meaning, deed in rows("All errors"):
        assert meaning.endswith("."), name
        assert deed.endswith("."), name


def test_every_exit_code_is_described():
    told = [int(row[0]) for row in rows("Exit codes")]
    known = {0, run.WRONG_COMMAND_LINE, run.INTERRUPTED, run.READER_GONE}
    assert told == sorted(known | {found.exit_code for found in CLASSES.values()})
    table = re.findall(r"^\| (\d+) +\|", run.__doc__ or "", re.MULTILINE)
    assert [int(code) for code in table] == told


def test_the_tree_in_the_docstring_is_the_tree():
    """A class stands under its base; a single reason stands under the refusal that holds it."""
    held_by = {"PlanError": "PlanRefused"}
    path: list[str] = []
    told: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(    [ │├└─]*)([A-Z]\w+) {2,}", line)
        if match:
            depth = (len(match[1]) - 4) // 4
            del path[depth:]
            told[match[2]] = path[-1] if path else ""
            path.append(match[2])
    expected = {
        name: "" if found is HansaError else found.__mro__[1].__name__
        for name, found in CLASSES.items()
    }
    assert told == {**expected, **held_by}


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_has_a_docstring(name):
    assert inspect.getdoc(CLASSES[name])
    assert CLASSES[name].__doc__ != HansaError.__doc__ or name == "HansaError"


def test_the_python_of_the_page_runs(capsys):
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0], {})
    assert capsys.readouterr().out == ""
