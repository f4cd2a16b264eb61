"""`docs/jobfile.md` against the dataclasses and functions that a job file stands for.

Its tables hold every key with type, default and meaning, as Python has them. To write them again:

    python tests/docs/test_docs_jobfile.py
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import hansa
from hansa.algorithms import ALGORITHMS
from hansa.cli import main
from hansa.core import canonical
from hansa.jobfile import job_from_words
from hansa.jobfile.keys import (
    REQUIRED,
    Key,
    algorithm_keys,
    section_keys,
    sections,
    toml,
    top_keys,
)
from hansa.tiers import TIERS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jobfile.md"
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)


def chapters() -> Mapping[str, Iterable[Key]]:
    """The headings that have a table, and the keys that belong in it."""
    return {
        "The job": top_keys().values(),
        **{f"[{name}]": section_keys(name).values() for name in sections()},
        **{name: algorithm_keys(function).values() for name, function in ALGORITHMS.items()},
    }


def table(keys: Iterable[Key]) -> list[str]:
    rows = [f"| `{key.name}` | {key.allowed} | {default(key)} | {key.meaning} |" for key in keys]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *rows]


def default(key: Key) -> str:
    return "required" if key.default is REQUIRED else f"`{toml(key.default)}`"


def parts(page: str) -> dict[str, str]:
    """The text below each heading, up to the next one."""
    pieces = HEADING.split(page)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def written() -> str:
    """The page with its tables written anew."""
    pieces = HEADING.split(PAGE.read_text("utf-8"))
    page = [pieces[0]]
    for title, text in zip(pieces[1::2], pieces[2::2], strict=True):
        level = "###" if title in ALGORITHMS else "##"
        if title in chapters():
            prose = "\n".join(line for line in text.split("\n") if not line.startswith("|")).strip()
            rows = "\n".join(table(chapters()[title]))
            text = f"\n\n{prose}\n\n{rows}\n\n" if prose else f"\n\n{rows}\n\n"
        page.append(f"{level} {title}{text}")
    return "".join(page).rstrip("\n") + "\n"


def test_every_section_has_a_chapter_and_every_chapter_a_section():
    found = parts(PAGE.read_text("utf-8")).keys() - {"How a job file is read", "[algorithm]"}
    assert found == chapters().keys()


def test_every_key_is_there_with_type_default_and_meaning():
    page = parts(PAGE.read_text("utf-8"))
    for title, keys in chapters().items():
        rows = [line for line in page[title].split("\n") if line.startswith("|")]
        assert rows == table(keys), f"{title}: run python {Path(__file__).name}"


def test_the_file_and_the_python_of_the_page_are_one_job():
    text = PAGE.read_text("utf-8")
    words = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    assert isinstance(names["job"], hansa.Job)
    assert canonical.dumps(job_from_words(words)) == canonical.dumps(names["job"])


def test_the_mistakes_of_the_page_are_reported_as_it_says(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text("utf-8")
    job = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    broken = job.replace("count = 200", 'count = "200"').replace(
        "rate = 0.1", "rate = 0.1\nepsilon = 8.0"
    )
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "job.toml").write_text(broken)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "images"]) == 2
    said = re.findall(r"    \$ hansa plan images\n((?:    .*\n|\n)+)", text)[0]
    assert capsys.readouterr().err.strip() == dedent(said).strip()


def test_the_tiers_demand_what_the_page_says():
    page = parts(PAGE.read_text("utf-8"))["The job"]
    for name, tier in TIERS.items():
        line = next(line for line in page.split("\n") if line.startswith(f"- `{name}`"))
        assert (f"at least {tier.quorum} updates" in line) == (tier.quorum > 1)
        assert (f"epsilon of at most {tier.epsilon:g}" in line) == (tier.epsilon < math.inf)


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
