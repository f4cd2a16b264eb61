"""The benchmark's parts: what they measure is what they say, and the page is made from it."""

from __future__ import annotations

import inspect
import json
import math
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints
from xml.etree import ElementTree

import numpy as np
import pytest

from bench import privacy
from bench.private import accuracy, audits, page, speed
from hansa.core.job import Job, Privacy
from hansa.privacy.audits import AuditReport, audit
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of
from tests.support.audit_results import result

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROWS: list[dict[str, Any]] = [
    {"data": "digits", "unit": "client", "metric": "accuracy", "epsilon": epsilon, "mean": mean,
     "sd": sd}
    for epsilon, mean, sd in ((1.0, 0.81, 0.01), (4.0, 0.9, None), (None, 0.92, 0.002))
]  # fmt: skip
FOUND = {
    "accuracy": [*ROWS, {**ROWS[0], "data": "heart", "metric": "AUROC", "mean": 0.5}],
    "peers": {"accuracy": [{**row, "peer": "other", "mean": row["mean"] - 0.01} for row in ROWS]},
}


def test_speeds_are_printed_as_one_object(capsys, monkeypatch):
    monkeypatch.setattr(speed, "SIGMAS", (2.0, 30.0))
    privacy.main(["--quick", "--json", "--only", "sampler", "--seconds", "0.01"])
    found = json.loads(capsys.readouterr().out)["sampler"]
    assert found.keys() == {
        "discrete_sigma2",
        "discrete_simulated_sigma2",
        "discrete_sigma30",
        "discrete_simulated_sigma30",
        "continuous",
        "numpy_normal",
    }
    assert all(figure > 0.1 for figure in found.values())


def test_exact_fractions_draw_the_law_that_they_are_compared_by():
    from fractions import Fraction

    from bench.peer_exact_sampler import discrete_gaussian

    samples = np.array([discrete_gaussian(Fraction(3)) for _ in range(4000)])
    assert abs(samples.mean()) < 6 * 3 / math.sqrt(4000)
    assert samples.var() == pytest.approx(9, rel=6 * math.sqrt(2 / 4000))


def test_a_peer_is_asked_in_its_own_python():
    found = speed.peer("peer_exact_sampler.py", sys.executable)
    assert found["what"].startswith("exact")
    assert {f"sigma{sigma:g}" for sigma in speed.SIGMAS} <= found.keys()


def test_jobs_differ_in_their_noise_alone():
    heart = accuracy.heart()
    some, none = heart.job(4.0, 3, True), heart.job(math.inf, 3, True)
    assert some.privacy.clip == none.aggregation.clip == accuracy.HEART_CLIP
    assert (some.algorithm, some.cohort, some.rounds, some.seed) == (
        none.algorithm,
        none.cohort,
        none.rounds,
        none.seed,
    )
    assert none.privacy.mechanism == "none"


def test_a_row_tells_all_that_its_epsilon_means():
    from hansa.work.bundle import load_task

    heart = accuracy.heart()
    job = heart.job(4.0, 0, True)
    row = accuracy.row(heart, 4.0, [0.5, 0.7], compile_plan(job, facts_of(job, load_task(job))))
    assert row["mean"] == pytest.approx(0.6)
    assert row["sd"] == pytest.approx(0.1414, abs=1e-3)
    assert row["delta"] == accuracy.DELTA < 1 / accuracy.CLIENTS**1.1
    for word in ("epsilon", "delta", "one client", "one unit more or less", "PLD", "central"):
        assert word in row["claim"]
    assert "senseless" in row["note"]


def test_the_table_has_a_line_for_each_party_and_a_column_for_each_epsilon():
    lines = page.table(FOUND).splitlines()
    assert lines[0] == "| data, unit, metric | by | epsilon 1 | epsilon 4 | no noise |"
    assert lines[2] == (
        "| digits, client, accuracy | Hansa | 0.810 ± 0.010 | 0.900 | 0.920 ± 0.002 |"
    )
    assert lines[3] == "| heart, client, AUROC | Hansa | 0.500 ± 0.010 |  |  |"
    assert lines[4].startswith("| digits, client, accuracy | other | 0.800")


def test_the_picture_has_a_point_for_each_row_in_order_of_height():
    root = ElementTree.fromstring(page.picture(FOUND))
    svg = "{http://www.w3.org/2000/svg}"
    points = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{svg}circle")]
    assert len(points) == 6
    heights = [y for _, y in points]
    assert heights[0] > heights[1] > heights[2], "higher accuracy stands higher"
    assert all(0 < x < page.WIDTH and 0 < y < page.HEIGHT for x, y in points)


def test_writing_the_page_replaces_what_is_between_the_marks(tmp_path):
    (tmp_path / "privacy.md").write_text(f"before\n{page.START}\nold\n{page.END}\nafter\n")
    page.write(FOUND, tmp_path)
    text = (tmp_path / "privacy.md").read_text()
    assert text == f"before\n{page.START}\n{page.table(FOUND)}\n{page.END}\nafter\n"
    assert (tmp_path / page.PICTURE).read_text() == page.picture(FOUND)


@pytest.fixture(scope="module")
def subjects() -> list[audits.Subject]:
    return list(audits.subjects())


def test_every_mechanism_that_an_audit_exists_for_is_attacked(subjects):
    named = set(get_args(get_type_hints(Privacy)["mechanism"]))
    assert {s.job.privacy.mechanism for s in subjects} == named
    epsilons = [s.job.privacy.epsilon for s in subjects if s.job.cohort.population == 1000]
    assert epsilons[:4] == [1.0, 4.0, 8.0, 0.0]
    for subject in subjects:
        compile_plan(subject.job)  # each fits


def test_a_row_of_an_audit_has_the_bounds_beside_the_claim(subjects):
    """The attack is the one of `hansa audit privacy`, told the short or the full form."""
    asked: list[tuple[Job, bool]] = []

    def attack(job: Job, *, quick: bool) -> AuditReport:
        asked.append((job, quick))
        return result(compile_plan(job), epsilon_lower_bound=0.25)

    found = list(audits.rows(quick=True, attack=attack))
    assert asked == [(subject.job, True) for subject in subjects]
    for row, subject in zip(found, subjects, strict=True):
        assert row["mechanism"] == subject.job.privacy.mechanism
        assert row["epsilon"] == (subject.job.privacy.epsilon or None)
        assert row["epsilon_lower_bound"] == 0.25
        assert row["epsilon_lower_bound_noise_off"] == 6.125
        assert (row["epsilon_claimed"] is None) == (row["mechanism"] == "none")
    json.dumps(found, allow_nan=False)
    assert inspect.signature(audits.rows).parameters["attack"].default is audit
    assert len(list(audits.rows(quick=False, attack=attack))) == len(subjects)
    assert asked[-1][1] is False


def test_the_section_attacks_for_real_and_prints_json(capsys, monkeypatch, subjects):
    chosen = [s for s in subjects if s.job.cohort.population == audits.CLIENTS][:1]
    monkeypatch.setattr(audits, "subjects", lambda: iter(chosen))
    privacy.main(["--quick", "--json", "--only", "audit"])
    (row,) = json.loads(capsys.readouterr().out)["audit"]
    assert row["epsilon_lower_bound"] <= row["epsilon_claimed"] < row["epsilon_of_job"]
    assert row["epsilon_lower_bound_noise_off"] > 5
    assert row["plan_digest"] == compile_plan(chosen[0].job).digest
    assert row["passed"] is True
    assert page.audit_table([row]).count("\n") == 2


def test_the_audits_in_the_repository_are_the_kept_ones_and_hold():
    kept = json.loads((Path(page.__file__).with_name("measured.json")).read_text("utf-8"))
    text = (DOCS / "audits.md").read_text("utf-8")
    assert f"{page.START}\n{page.audit_table(kept['audit'])}\n{page.END}" in text
    for row in kept["audit"]:
        assert row["passed"] is True
        assert row["epsilon_lower_bound_noise_off"] > 5
        if row["epsilon_claimed"] is not None:
            assert row["epsilon_lower_bound"] <= row["epsilon_claimed"]


def test_the_page_in_the_repository_is_the_kept_measurement():
    kept = json.loads((Path(page.__file__).with_name("measured.json")).read_text("utf-8"))
    text = (DOCS / "privacy.md").read_text("utf-8")
    assert f"{page.START}\n{page.table(kept)}\n{page.END}" in text
    assert (DOCS / page.PICTURE).read_text("utf-8") == page.picture(kept)
    mine = {(r["data"], r["unit"], r["epsilon"]): r for r in kept["accuracy"]}
    assert {p["unit"] for p in kept["peers"]["accuracy"]} == {"client", "example"}
    for peer in kept["peers"]["accuracy"]:
        row = mine[peer["data"], peer["unit"], peer["epsilon"]]
        assert row["mean"] > peer["mean"] - 0.01, "within a point of the peer, or better"
        assert peer["noise_multiplier"] == pytest.approx(row["noise_multiplier"], rel=2e-2)
