"""`docs/cli.md` against the command line: every verb, argument and option, in its own words.

The chapter "Verbs" is written from the commands. To write it again:

    python tests/docs/test_docs_cli.py
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import pytest

from hansa.cli import main, run
from hansa.cli.group import command_of, root
from hansa.cli.verbs import VERBS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
VERBS_HEADING = "## Verbs\n"


def commands(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """A command, or the commands of a group, with their whole names."""
    inner = getattr(found, "commands", None)
    if not inner:
        yield name, found
        return
    for word, command in inner.items():
        yield from commands(f"{name} {word}", command)


def all_commands() -> list[tuple[str, Any]]:
    return [pair for name, verb in VERBS.items() for pair in commands(name, command_of(name, verb))]


def usage(name: str, command: Any) -> str:
    words = [
        parameter.display_name_raw.upper() if parameter.required else f"[{parameter.name.upper()}]"
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    options = " [OPTIONS]" * any(p.param_type_name == "option" for p in command.params)
    return " ".join([f"hansa {name}", *words]) + options


def chapter(name: str, command: Any) -> str:
    """What the page says of one command."""
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            label = parameter.display_name_raw.upper()
        else:
            label = ", ".join([*parameter.opts, *parameter.secondary_opts])
        rows.append(f"| `{label}` | {default(parameter)} | {parameter.help} |")
    table = ["| word | default | meaning |", "|---|---|---|", *rows] if rows else []
    said = [fill(piece, 99) for piece in inspect.cleandoc(command.help).split("\n\n")]
    return "\n".join(
        [f"### hansa {name}", "", f"    {usage(name, command)}", "", "\n\n".join(said), "", *table]
    )


def default(parameter: Any) -> str:
    """The value of what is left out, as it would be typed."""
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == "":
        return ""
    return f"`{value}`"


def chapters() -> str:
    return "\n\n".join(chapter(name, command) for name, command in all_commands()) + "\n"


def test_every_verb_and_every_option_is_on_the_page():
    told = PAGE.read_text("utf-8").partition(VERBS_HEADING)[2].strip()
    assert told == chapters().strip(), f"run python tests/docs/{Path(__file__).name}"


def test_every_exit_code_is_on_the_page():
    codes = [int(c) for c in re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)]
    table = re.findall(r"^\| (\d+) +\|", run.__doc__ or "", re.MULTILINE)
    assert codes == [int(code) for code in table]


def keys_of(heading: str) -> list[str]:
    text = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "heart"),
        ("simulate", "heart", "--rounds", "1", "--no-output"),
        ("clients", "heart"),
    ],
    ids=" ".join,
)
def test_the_keys_of_the_json_are_on_the_page(words, capsys):
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert keys_of(f"JSON of `hansa {words[0]}`") == list(said)


def test_the_keys_of_a_refusal_are_those_of_a_plan(capsys):
    assert main(["plan", "no-such-job", "--json"]) == 2
    assert list(json.loads(capsys.readouterr().out)) == keys_of("JSON of `hansa plan`")


@pytest.mark.parametrize("page", sorted(PAGE.parents[1].glob("**/*.md")), ids=lambda p: p.name)
def test_commands_that_pages_show_exist(page):
    """Every line `hansa VERB ...` in a page's code names a verb, and options that it has."""
    known = dict(all_commands())
    groups = {name.partition(" ")[0] for name in known if " " in name}
    for line in re.findall(r"^ {4}(?:\$ )?hansa (.+)$", page.read_text("utf-8"), re.MULTILINE):
        words = shlex.split(re.split(r" {2,}|\[|#", line)[0], comments=True)
        if not words or words[0] in ("VERB", "--help", "--version"):
            continue
        name = " ".join(words[:2]) if words[0] in groups else words[0]
        assert name in known, f"{page.name}: hansa {line}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options | {"--debug"}, f"{page.name}: hansa {line}"


def test_the_root_takes_what_the_page_says():
    options = {option for parameter in root().params for option in parameter.opts}
    assert options == {"--version", "--debug"}


if __name__ == "__main__":
    text = PAGE.read_text("utf-8").partition(VERBS_HEADING)[0]
    PAGE.write_text(f"{text}{VERBS_HEADING}\n{chapters()}", encoding="utf-8")
