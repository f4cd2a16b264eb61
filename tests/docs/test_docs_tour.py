"""Commands and Python that pages show: the commands exist with those options, the Python runs."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest

from hansa.coordinator.config import Settings
from hansa.core.parts import Site
from tests.docs.test_docs_cli import all_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "bench" / "README.md", *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text("utf-8")) if found == kind]


def shown(page: Path) -> list[str]:
    """The command lines of a page's console blocks, without their prompt."""
    lines = "".join(blocks(page, "console")).splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def check(line: str) -> None:
    """One line of `hansa`: a verb that exists, options that it has, a number of words it takes."""
    known = dict(all_commands())
    words = shlex.split(re.split(r" [>&]", line)[0], comments=True)[1:]
    name = next(n for n in (" ".join(words[:2]), words[0], "") if n in known or not n)
    assert name, f"hansa has no such verb: {line}"
    rest = words[len(name.split()) :]
    options = {o: p for p in known[name].params for o in p.opts if p.param_type_name == "option"}
    positions = [p for p in known[name].params if p.param_type_name == "argument"]
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            given += 1
            continue
        option, _, value = word.partition("=")
        assert option in options, f"hansa {name} has no {option}: {line}"
        if not options[option].is_flag and not value:
            assert rest, f"{option} needs a value: {line}"
            rest.pop(0)
    least = sum(position.required for position in positions)
    assert least <= given <= len(positions), f"{given} words after hansa {name}: {line}"


def test_the_readme_shows_the_whole_way() -> None:
    said = " ".join(shown(ROOT / "README.md"))
    for verb in ("new", "plan", "simulate", "coordinator init", "coordinator serve", "invite",
                 "site join", "site policy", "site run", "key", "submit", "watch",
                 "site log"):  # fmt: skip
        assert f"hansa {verb} " in said, verb
    assert "make demo" in said
    assert "make test" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_console_blocks_exist(page: Path) -> None:
    for line in shown(page):
        if line.startswith("hansa "):
            check(line)
        else:
            assert line.startswith("make "), f"{page.name} shows {line}"


@pytest.mark.parametrize(
    "line",
    [
        "hansa fly",
        "hansa plan study --fast",
        "hansa site joyn x",
        "hansa plan",
        "hansa plan one two",
        "hansa submit study --sign",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_pages_runs(page: Path) -> None:
    for text in blocks(page, "python"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, page.name, "exec"), {"__name__": "page"})
        if page.name == "README.md":
            claims, values = out.getvalue().splitlines()[:-1], out.getvalue().splitlines()[-1]
            assert any("No differential privacy" in claim for claim in claims)
            assert re.fullmatch(r"0\.8\d+ [0-9a-f]{64}", values)
            assert len(text.strip().splitlines()) <= 18


def test_the_task_of_the_page_learns(tmp_path: Path) -> None:
    """What `docs/tasks.md` shows is a whole task: it trains, and gets better."""
    import hansa

    [text] = blocks(ROOT / "docs" / "tasks.md", "python")
    (tmp_path / "task.py").write_text(text)
    job = hansa.Job(
        name="page",
        task="task:Task",
        risk_tier="low",
        rounds=hansa.Rounds(count=20),
        cohort=hansa.Cohort(population=3),
        algorithm=hansa.fedavg(client_lr=0.5, local_epochs=2, batch_size=16),
        folder=tmp_path,
    )
    result = hansa.simulate(job, debug=True)
    first = result.records[0].metrics
    assert result.metrics["accuracy"] is not None
    assert first["loss"] is not None
    assert result.metrics["loss"] is not None
    assert result.metrics["loss"] < first["loss"] / 2
    assert result.metrics["accuracy"] > 0.9
    assert len(result.plan.task.metrics) == 3
    assert Site("kiel", {}).name  # the task is given one of these


def test_packages_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Packages\n")[2]
    named = {n for row in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) for n in
             re.findall(r"`(hansa\.\w+)`", row)}  # fmt: skip
    for name in named:
        importlib.import_module(name)
    source = ROOT / "src" / "hansa"
    packages = {f"hansa.{p.parent.name}" for p in source.glob("*/__init__.py")}
    assert packages - named == set()


def test_ports_in_words_are_the_defaults() -> None:
    text = (ROOT / "docs" / "coordinator.md").read_text("utf-8")
    settings = Settings(federation="x")
    assert f"{settings.sites_port} for good and {settings.enrol_port} while sites join" in text
