"""Documentation that names files, targets, packages and records names ones that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if path.is_file())
RECORDS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEADINGS = ["Context", "Decision", "Why not the neighbours", "Consequences"]

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:src|tests|docs|proto|bench|deploy)/[\w./-]+")
MAKE = re.compile(r"\bmake ([a-z]+)\b")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_in(text: str) -> list[str]:
    blocks = [line for line in text.splitlines() if line.startswith("    ")]
    return [*CODE.findall(text), *blocks]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if not link.startswith(("http://", "https://", "#", "mailto:")):
            target = page.parent / link.partition("#")[0]
            assert target.exists(), f"{name(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_and_make_targets_exist(page):
    for code in code_in(page.read_text("utf-8")):
        for path in PATH.findall(code):
            assert (ROOT / path).exists(), f"{name(page)} names {path}"
        for target in MAKE.findall(code):
            assert target in targets(), f"{name(page)} names make {target}"


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert set(re.findall(r"^make ([a-z]+) ", done.stdout, re.MULTILINE)) == targets()


# ------------------------------------------------------------------ decision records


def test_records_are_numbered_without_a_gap():
    assert [path.name[:4] for path in RECORDS] == [f"{i:04d}" for i in range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_a_record_has_its_four_parts(record):
    text = record.read_text("utf-8")
    assert text.startswith(f"# {record.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert len(text.splitlines()) <= 45, "a record is short"


def test_the_index_lists_every_record_by_its_title():
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    for record in RECORDS:
        title = record.read_text("utf-8").splitlines()[0].partition(": ")[2]
        assert f"| [{record.name[:4]}]({record.name}) | {title} |" in index


def test_every_dependency_of_a_site_has_its_reason():
    wanted = {re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    text = (ROOT / "docs/decisions/0008-dependencies.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \|", text, re.MULTILINE)
    assert set(rows) - {"package"} == wanted
    assert len(wanted) <= 8


# ------------------------------------------------------------------ changelog


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text
    assert PROJECT["project"]["version"] in text
