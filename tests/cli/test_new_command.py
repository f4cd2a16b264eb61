"""`hansa new` makes jobs that run as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hansa.core.parts import Site
from hansa.jobfile import load_job
from hansa.scaffold import ROOT, TEMPLATES, create
from hansa.work.bundle import load_task


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_job_is_planned_and_simulated_as_it_is(hansa, tmp_path, template):
    assert hansa("new", "study-1", "--template", template).code == 0
    assert sorted(p.name for p in (tmp_path / "study-1").iterdir()) == ["job.toml", "task.py"]
    assert load_job(tmp_path / "study-1").name == "study-1"
    assert hansa("plan", "study-1").code == 0
    done = hansa("simulate", "study-1", "--rounds", "6", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["metrics"][0]["accuracy"] < 0.6
    assert said["final"]["accuracy"] > 0.75


def test_deeper_folders_are_made_and_the_last_part_is_the_name(hansa, tmp_path):
    assert hansa("new", "studies/one").code == 0
    assert load_job(tmp_path / "studies" / "one").name == "one"


@pytest.mark.parametrize("name", ["toy", "toy/job.toml", "a b", ".hidden", "ä", "."])
def test_refuses_and_writes_nothing(hansa, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    done = hansa("new", name)
    assert done.code == 2
    assert "Fix: " in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_refused(hansa):
    done = hansa("new", "/proc/study")
    assert done.code == 2
    assert "cannot be written" in done.err


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_task_reads_the_sites_own_file(tmp_path, template):
    create(tmp_path / "study", template)
    text = "0.5,1,2,3,1\n1,1,1,1,0\n2,2,2,2,2\n0,0,0,0,0\n9,9,9,9,1\n"
    rows = [[float(value) for value in line.split(",")] for line in text.splitlines()]
    file = tmp_path / "patients.csv"
    file.write_text("a,b,c,d,class\n" + text)
    task = load_task(load_job(tmp_path / "study"))
    split = task.data(Site("kiel", {"path": str(file)}))
    read = np.concatenate([split.test.inputs, split.train.inputs])
    targets = np.concatenate([split.test.targets, split.train.targets])
    assert np.array_equal(np.column_stack([read, targets]), np.array(rows, np.float32))
    assert len(split.test) == 1


def test_sites_without_a_file_make_up_their_own_examples_again_and_again(tmp_path):
    create(tmp_path / "study", "numpy")
    task = load_task(load_job(tmp_path / "study"))
    one, again, other = (task.data(Site(name, {})) for name in ("kiel", "kiel", "riga"))
    assert np.array_equal(one.train.inputs, again.train.inputs)
    assert one.train.inputs.shape != other.train.inputs.shape or not np.array_equal(
        one.train.inputs, other.train.inputs
    )


def test_both_templates_make_up_the_same_examples():
    """One function, written out twice because a template is a file that a user owns."""
    found = [(ROOT / t / "task.py").read_text().partition("def made_up")[2] for t in TEMPLATES]
    assert found[0] == found[1] != ""


def test_every_section_of_a_template_is_commented():
    text = (ROOT / "job.toml").read_text()
    for key in ("quorum", "population", 'name = "fedavg"', "rule", "max_weight", "risk_tier"):
        line = next(line for line in text.splitlines() if line.startswith(key))
        assert "#" in line, line
