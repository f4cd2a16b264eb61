"""`docs/site.md` and `docs/coordinator.md`: every key of both files, its default, and what runs."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from hansa.coordinator import config as coordinator_config
from hansa.coordinator.people import PeopleDoor
from hansa.coordinator.runner import PAUSES
from hansa.core.metrics import AUROC, Accuracy, Calibration, Loss, Ratio
from hansa.identity.authority import COORDINATOR_LIFETIME, SITE_LIFETIME
from hansa.identity.certificates import INTERMEDIATE_LIFETIME, ROOT_LIFETIME, SKEW
from hansa.site import config as site_config
from hansa.work import container

DOCS = Path(__file__).resolve().parents[2] / "docs"


def chapter(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    text = (DOCS / page).read_text("utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no heading '{heading}'"
    return found[1]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    lines = [line for line in chapter(page, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def settings(kind: Any) -> dict[str, str]:
    """Every key of a dataclass and its default, as a table says it."""
    return {
        f"`{f.name}`": "required" if f.default is MISSING else f"`{json.dumps(f.default)}`"
        for f in fields(kind)
    }


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("site.md", "[policy]", site_config.Policy),
        ("site.md", "[secure_aggregation]", site_config.SecureAggregation),
        ("site.md", "[limits]", site_config.Limits),
        ("coordinator.md", "coordinator.toml", coordinator_config.Settings),
    ],
)
def test_every_key_is_there_with_its_default(page: str, heading: str, kind: Any) -> None:
    assert {row[0]: row[1] for row in rows(page, heading)} == settings(kind)
    assert all(len(row) == 3 and row[2] for row in rows(page, heading))


def test_every_section_of_site_toml_has_a_chapter() -> None:
    sections = [f.name for f in fields(site_config.SiteConfig) if f.name != "folder"]
    text = (DOCS / "site.md").read_text("utf-8")
    assert re.findall(r"^### \[(\w+)\]$", text, re.MULTILINE) == sections


def test_the_example_of_a_site_toml_is_one(tmp_path: Path) -> None:
    example = "\n".join(
        line[4:] for line in chapter("site.md", "site.toml").splitlines() if line.startswith("    ")
    )
    (tmp_path / "site.toml").write_text(example)
    found = site_config.load(tmp_path)
    assert found.data == {"path": "patients.csv"}
    assert (found.policy.min_cohort, found.limits.threads) == (3, 2)


@pytest.mark.parametrize("text", [site_config.TEMPLATE, dedent(site_config.__doc__ or "")])
def test_the_template_and_the_docstring_have_every_key(text: str) -> None:
    for kind in (site_config.Policy, site_config.Limits):
        for f in fields(kind):
            assert re.search(rf"^ *{f.name} = ", text, re.MULTILINE), f.name


def test_the_template_holds_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(site_config.TEMPLATE.format(federation="hanse"))
    found = site_config.load(tmp_path)
    assert found.policy == site_config.Policy(federations=("hanse",))
    assert found.limits == site_config.Limits()
    assert tomllib.loads(site_config.TEMPLATE)["data"] == {}


def test_every_route_of_the_people_s_door_is_on_the_page() -> None:
    told = {
        (method, re.sub(r"\?.*", "", path))
        for method, path in (row[0].strip("`").split() for row in routes())
    }
    kind: Any = PeopleDoor
    door = kind(*(None for _ in fields(PeopleDoor)))  # its routes need nothing of it
    served = {(m, r.path) for r in door.app().routes for m in r.methods if m != "HEAD"}
    assert told == served


def routes() -> list[list[str]]:
    text = chapter("coordinator.md", "Three doors")
    lines = [line for line in text.splitlines() if re.match(r"\| `(GET|PUT|POST) ", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_numbers_on_the_pages_are_those_of_the_code() -> None:
    lives = " ".join(chapter("coordinator.md", "Certificates").split())
    assert ROOT_LIFETIME.days // 365 == 10
    assert INTERMEDIATE_LIFETIME.days == 365
    assert (COORDINATOR_LIFETIME.days, SITE_LIFETIME.total_seconds()) == (30, 24 * 3600)
    assert SKEW.total_seconds() == 300
    for words in ("10 years", "1 year", "30 days", "24 hours", "five minutes"):
        assert words in lives
    pauses = " ".join(chapter("coordinator.md", "A full disk").split())
    first, *more, last = (f"{pause:g}" for pause in PAUSES)
    assert f"after {first}, {', '.join(more)} and {last} seconds" in pauses
    bundles = chapter("tasks.md", "Bundles")
    assert f"at most {container.MAX_FILES} files and {container.MAX_BYTES >> 20} MiB" in bundles


def test_every_metric_is_on_the_page_with_its_sums() -> None:
    told = {re.findall(r"hansa\.(\w+)", row[0])[0]: row[1] for row in rows("tasks.md", "Metrics")}
    known = {type(metric).__name__: metric.size for metric in (Loss(), Accuracy(), AUROC())}
    known |= {"Calibration": Calibration().size}
    known |= {"Ratio": Ratio("wrong", "share", Accuracy().better).size}
    assert told == {name: str(size) for name, size in known.items()}
