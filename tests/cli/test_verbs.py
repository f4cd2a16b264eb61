"""The table of verbs against what it stands for, and how little is imported to show it."""

from __future__ import annotations

import inspect
import os
import statistics
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import typer

from hansa.cli.group import command_of, root
from hansa.cli.verbs import VERBS
from tests.support.cli import command, environment

HEAVY = ("numpy", "torch", "rich", "grpc", "sqlalchemy", "dp_accounting", "hansa.core.job")


@pytest.mark.parametrize("name", VERBS)
def test_the_table_says_what_the_verb_says(name):
    module, _, attribute = VERBS[name].where.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        assert command_of(name, VERBS[name]).help.splitlines()[0] == VERBS[name].help
    else:
        assert (inspect.getdoc(found) or "").splitlines()[0] == VERBS[name].help


@pytest.mark.parametrize("name", VERBS)
def test_every_parameter_is_explained(name):
    def commands(found: Any) -> Any:
        inner = getattr(found, "commands", None)
        return [found] if not inner else [c for each in inner.values() for c in commands(each)]

    for found in commands(command_of(name, VERBS[name])):
        for parameter in found.params:
            assert parameter.name == "help" or parameter.help, (found.name, parameter.name)


def test_the_root_knows_its_verbs_and_no_others():
    whole = root()
    assert whole.list_commands(None) == list(VERBS)
    assert whole.get_command(None, "nothing") is None


def modules_after(*lines: tuple[str, ...]) -> set[str]:
    """What is imported at the end of some command lines."""
    script = (
        f"import sys; from hansa.cli import main; codes = [main(line) for line in {lines!r}];"
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(max(codes))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.splitlines())


def test_help_imports_no_verb_and_nothing_heavy():
    loaded = modules_after(("--help",))
    assert "hansa.cli.group" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint({verb.where.partition(":")[0] for verb in VERBS.values()})


def test_the_help_of_all_verbs_imports_nothing_heavy():
    assert modules_after(*[(name, "--help") for name in VERBS]).isdisjoint(HEAVY)


def processor_seconds(words: list[str], repeats: int = 5) -> float:
    """The median processor time of a process, which other processes on the machine do not change.

    Wall time would: budgets are checked on processor time, as a ratio to an empty interpreter.
    """
    found = []
    for _ in range(repeats):
        before = os.times()
        subprocess.run(words, env=environment(), stdout=subprocess.DEVNULL, check=False, timeout=60)
        after = os.times()
        found.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return statistics.median(found)


def test_help_starts_fast():
    """The budget is 300 ms with the interpreter's start, where that alone takes 15 to 20 ms."""
    nothing = processor_seconds([sys.executable, "-c", "pass"])
    shown = processor_seconds(command("--help"))
    assert shown < 15 * max(nothing, 0.02)
