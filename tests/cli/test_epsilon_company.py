"""No epsilon without its company: every text and every JSON object of the package that gives one.

An epsilon by itself says nothing. Wherever one is put into a sentence, the sentence also says delta
and the unit; wherever one is a key of JSON, the object says them too or holds the statement.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hansa

PACKAGE = Path(hansa.__file__).parent

SETTINGS = {"privacy.epsilon", "job.privacy.epsilon", "self.job.privacy.epsilon", "demands.epsilon"}
"""Expressions that quote what somebody asked for: a limit, not a promise."""

EXCUSED = {
    "cli/budget.py": "rows of a table of limits, with a line about their delta below it",
    "cli/site.py": "rows of a table of limits, with a line about their unit and delta below it",
    "budget/block.py": "quotes the limits of a budget",
    "budget/book.py": "quotes the limits of a budget",
    "budget/cost.py": "quotes the limits of a budget",
    "privacy/statement_facts.py": "a sentence of the statement, which has it all",
    "privacy/statement_page.py": "a row of the page that has delta, unit and all else beside it",
    "privacy/statement.py": "says that two counts of one plan differ",
    "privacy/calibrate.py": "quotes the target that the caller gave",
    "privacy/distributed.py": "quotes the target that the caller gave",
    "jobfile/rules.py": "quotes a key of the job file",
    "cli/plan.py": "rows of a table whose head names delta and unit",
}
"""Modules with an epsilon alone in a sentence, and why its company is elsewhere."""


def in_package() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "audits" not in p.parts)


def sentence(node: ast.JoinedStr) -> str:
    """The words of a formatted string, with a mark where an epsilon is put in."""
    words = []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            words.append(str(piece.value))
        elif isinstance(piece, ast.FormattedValue):
            said = ast.unparse(piece.value)
            words.append("<EPSILON>" if computed(piece.value) else f"<{said}>")
    return "".join(words)


def computed(node: ast.AST) -> bool:
    """Whether an expression holds an epsilon that was counted, not one that was asked for."""
    return "epsilon" in names_in(node) and ast.unparse(node) not in SETTINGS


def names_in(node: ast.AST) -> set[str]:
    found = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return found | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def sentences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and "<EPSILON>" in (text := sentence(node)):
            yield node.lineno, text


def alone(tree: ast.AST) -> list[str]:
    """What a module says about an epsilon without delta and unit beside it."""
    found = [
        f"line {line}: {text}"
        for line, text in sentences(tree)
        if not ("delta" in text and "unit" in text)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = {k.value for k in node.keys if isinstance(k, ast.Constant)}
            if "epsilon" in keys and not ("statement" in keys or {"delta", "unit"} <= keys):
                found.append(f"line {node.lineno}: a JSON object {sorted(map(str, keys))}")
    return found


@pytest.mark.parametrize("path", in_package(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_epsilon_is_alone(path):
    found = alone(ast.parse(path.read_text("utf-8")))
    if str(path.relative_to(PACKAGE)) not in EXCUSED:
        assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'say(f"epsilon {plan.epsilon:.4g}")',
        'say(f"epsilon {epsilon:.4g} at delta {delta:g}")',
        'emit({"epsilon": plan.epsilon})',
        'emit({"epsilon": 1.0, "delta": 1e-5})',
    ],
)
def test_the_search_finds_one_that_is(code):
    assert alone(ast.parse(code))


def test_the_search_finds_those_with_company_too():
    said = [
        text for path in in_package() for _, text in sentences(ast.parse(path.read_text("utf-8")))
    ]
    assert len(said) >= 3
