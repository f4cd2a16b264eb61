"""Loading tasks: from a job's folder, from what is installed, from a bundle; and every mistake."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Privacy, Rounds
from hansa.core.metrics import Accuracy, Loss
from hansa.core.parts import Examples, Site
from hansa.errors import HansaError, JobError, MissingExtra
from hansa.work.bundle import facts_of, load_bundled_task, load_task, pack, unpack

TASK = """\
import numpy as np
import hansa

NUMBER = 1

class Mine(hansa.NumpyTask):
    def parameters(self, rng):
        return {"w": rng.normal(size=NUMBER)}

    def loss_and_gradients(self, parameters, inputs, targets):
        return 0.0, {"w": np.zeros(NUMBER)}

    def probabilities(self, parameters, inputs):
        return np.full(len(inputs), 0.5)

    def data(self, site):
        none = hansa.Examples(np.zeros((0, 1)), np.zeros(0, int))
        return hansa.Split(none, none)
"""


def job(task: str = "task:Mine", folder: Path | None = None) -> Job:
    return Job(
        name="mine",
        task=task,
        rounds=Rounds(count=1),
        cohort=Cohort(population=2),
        algorithm=fedavg(),
        folder=folder,
    )


def folder_with(folder: Path, **files: str) -> Path:
    """A folder with modules; `__` in a name stands for a slash."""
    for name, text in files.items():
        file = folder / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def size_of(task: str, folder: Path) -> int:
    return load_task(job(task, folder)).schema.size


def traces() -> tuple[list[str], int, bool]:
    return (list(sys.path), len(sys.meta_path), sys.dont_write_bytecode)


def test_a_task_beside_the_job_is_loaded_without_a_trace(tmp_path: Path):
    np.random.default_rng(0)  # likewise: NumPy loads this part when it is first used
    folder, before, names = folder_with(tmp_path, task=TASK), traces(), set(sys.modules)
    assert size_of("task:Mine", folder) == 1
    assert traces() == before
    new = set(sys.modules) - names
    assert all(name.startswith("hansa") for name in new), new
    assert "task" not in sys.modules
    assert not (tmp_path / "__pycache__").exists()


def test_tasks_of_two_jobs_do_not_clash(tmp_path: Path):
    one = folder_with(tmp_path / "one", task=TASK)
    other = folder_with(tmp_path / "other", task=TASK.replace("NUMBER = 1", "NUMBER = 2"))
    first, second = load_task(job(folder=one)), load_task(job(folder=other))
    assert (first.schema.size, second.schema.size) == (1, 2)
    assert type(first).__module__ != type(second).__module__


def test_an_edited_task_is_loaded_anew_and_an_equal_one_is_not(tmp_path: Path):
    folder = folder_with(tmp_path, task=TASK)
    first = load_task(job(folder=folder))
    assert type(load_task(job(folder=folder))) is type(first)
    folder_with(tmp_path, task=TASK.replace("NUMBER = 1", "NUMBER = 3"))  # as long as before
    assert size_of("task:Mine", folder) == 3


def test_equal_code_in_another_folder_reads_its_own_folder(tmp_path: Path):
    code = TASK + "\nfrom pathlib import Path\nNUMBER = len(Path(__file__).parent.name)\n"
    for name in ("a", "bbbb"):
        assert size_of("task:Mine", folder_with(tmp_path / name, task=code)) == len(name)


@pytest.mark.parametrize(
    ("head", "helper"),
    [
        ("from helper import NUMBER", "helper"),
        ("import helper\nNUMBER = helper.NUMBER", "helper"),
        ("from .helper import NUMBER", "helper"),
        ("from parts.deep import NUMBER", "parts__deep"),
        ("from .parts.deep import NUMBER", "parts__deep"),
    ],
)
def test_a_task_imports_what_lies_beside_it(tmp_path: Path, head: str, helper: str):
    code = TASK.replace("NUMBER = 1", head)
    before = traces()
    for number in (4, 5):  # the second one must not get the first one's helper
        folder = tmp_path / str(number)
        folder_with(folder, task=code, **{helper: f"NUMBER = {number}\n"})
        assert size_of("task:Mine", folder) == number
    assert helper.partition("__")[0] not in sys.modules
    assert traces() == before


def test_relative_imports_work_later_too(tmp_path: Path):
    later = (
        "    def later(self):\n"
        "        from .helper import NUMBER\n"
        "        return {'w': np.ones(NUMBER)}\n"
    )
    code = TASK.replace('{"w": rng.normal(size=NUMBER)}', "self.later()") + later
    assert size_of("task:Mine", folder_with(tmp_path, task=code, helper="NUMBER = 6\n")) == 6


def test_a_module_that_somebody_else_loaded_stays_theirs(tmp_path: Path):
    import textwrap as theirs

    sys.modules["helper"] = theirs
    try:
        code = TASK.replace("NUMBER = 1", "from helper import NUMBER")
        folder = folder_with(tmp_path, task=code, helper="NUMBER = 7\n")
        assert size_of("task:Mine", folder) == 7
        assert sys.modules["helper"] is theirs
    finally:
        del sys.modules["helper"]


def test_a_file_named_like_pythons_own_hides_nothing(tmp_path: Path):
    code = TASK.replace(
        "NUMBER = 1", "import json, random\nNUMBER = len(json.dumps([random.random()])[:1])"
    )
    folder = folder_with(tmp_path, task=code, json="raise Exception\n", random="raise Exception\n")
    assert size_of("task:Mine", folder) == 1


def test_modules_in_folders(tmp_path: Path):
    folder = folder_with(tmp_path, parts__mine=TASK, package__other="")
    (folder / "package" / "__init__.py").write_text(TASK)
    assert size_of("parts.mine:Mine", folder) == 1
    assert size_of("package:Mine", folder) == 1


# ------------------------------------------------------------------ installed and bundled


def test_examples_are_loaded_from_what_is_installed():
    from hansa.examples.heart.task import Heart

    assert type(load_task(job("hansa.examples.heart.task:Heart"))) is Heart


def test_a_bundle_is_loaded_from_what_was_unpacked(tmp_path: Path):
    code = TASK.replace("NUMBER = 1", "from helper import NUMBER")
    folder = folder_with(tmp_path / "job", task=code, helper="NUMBER = 8\n")
    (folder / "secret.csv").write_text("private")
    bundle = pack(job(folder=folder))
    assert set(bundle.files) == {"task.py", "helper.py"}
    assert unpack(bundle.to_bytes(), tmp_path / "site") == bundle
    assert load_bundled_task(tmp_path / "site", "task:Mine").schema.size == 8
    example = pack(job("hansa.examples.heart.task:Heart"))
    write_to = tmp_path / "example"
    unpack(example.to_bytes(), write_to)
    bundled = load_bundled_task(write_to, "hansa.examples.heart.task:Heart")
    assert type(bundled).__module__.startswith("hansa_task_")


def test_facts_are_what_the_plan_needs(tmp_path: Path):
    mine = job(folder=folder_with(tmp_path, task=TASK))
    facts = facts_of(mine, load_task(mine))
    assert facts.schema.size == 1
    assert facts.metrics == (Loss(), Accuracy())
    assert facts.digest == pack(mine).digest


# ------------------------------------------------------------------ mistakes


MISTAKES = [
    ("task.Mine", TASK, ("not a module and a class", 'task = "task:Heart"')),
    ("task:", TASK, ("not a module and a class",)),
    ("../task:Mine", TASK, ("not a module and a class",)),
    ("task.py:Mine", TASK, ("named like a file", 'task = "task:Mine"')),
    ("tsk:Mine", TASK, ("no module 'tsk'", "write task;")),
    ("tasks.mine:Mine", TASK, ("no module 'tasks.mine'",)),
    ("task:Mime", TASK, ("'task:Mime' is not there", "write Mine;")),
    ("task:NUMBER", TASK, ("is a int, not a class",)),
    ("task:Mine", TASK.replace("def data", "def dada"), ("lacks data()",)),
    ("task:Mine", "class Mine:\n    pass\n", ("is not a task", "hansa.NumpyTask")),
    (
        "task:Mine",
        TASK + "\n    def __init__(self, size):\n        pass\n",
        ("cannot be made without arguments", "'size'"),
    ),
    (
        "task:Mine",
        TASK + "\n    def __init__(self):\n        1 / 0\n",
        ("task.py:21", "cannot make"),
    ),
    ("task:Mine", "x = (\n", ("task.py:1", "SyntaxError")),
    ("task:Mine", "\n\nimport nowhere_to_be_found\n", ("task.py:3", "install nowhere_to_be_found")),
    ("task:Mine", "raise ValueError\n", ("task.py:1", "ValueError: no message")),
    ("task:Mine", "import sys\nsys.exit('bye')\n", ("task.py:2", "SystemExit: bye")),
    ("hansa.examples.hart.task:Heart", TASK, ("no example 'hart'", "write heart;")),
    ("hansa.examples.heart.tusk:Heart", TASK, ("no module 'tusk'", "write task;")),
    ("hansa.examples.heart:Heart", TASK, ("'__init__:Heart' is not there",)),
]


@pytest.mark.parametrize(("reference", "text", "words"), MISTAKES)
def test_every_likely_mistake_has_its_words(tmp_path: Path, reference, text, words):
    before = traces()
    with pytest.raises(JobError) as refusal:
        load_task(job(reference, folder_with(tmp_path, task=text)))
    for word in words:
        assert word in str(refusal.value)
    assert refusal.value.fix
    assert traces() == before


def test_a_mistake_that_was_corrected_is_gone(tmp_path: Path):
    with pytest.raises(JobError):
        load_task(job(folder=folder_with(tmp_path, task="import helper\n", helper="1 / 0\n")))
    assert size_of("task:Mine", folder_with(tmp_path, task=TASK)) == 1


def test_a_job_must_know_its_folder(tmp_path: Path):
    with pytest.raises(JobError, match="in which folder"):
        load_task(job())
    with pytest.raises(JobError, match="no folder"):
        load_task(job(folder=tmp_path / "gone"))
    with pytest.raises(JobError, match="no folder"):
        load_bundled_task(tmp_path / "gone", "task:Mine")


def test_a_missing_extra_stays_a_missing_extra(tmp_path: Path):
    text = (
        "from hansa.errors import MissingExtra\nraise MissingExtra('torch', 'torch', 'TorchTask')\n"
    )
    with pytest.raises(MissingExtra):
        load_task(job(folder=folder_with(tmp_path, task=text)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("def metrics(self):\n        return ()", ("are a method", "as an attribute")),
        ("metrics = (hansa.Loss(), hansa.Loss())", ("two metrics named 'loss'",)),
        ("metrics = (hansa.Loss(name='train_loss'),)", ("'train_loss'",)),
        ("metrics = ('accuracy',)", ("'accuracy' is not a metric", "Accuracy, Calibration")),
        ("metrics = hansa.Loss()", ("not a list of metrics",)),
    ],
)
def test_metrics_that_cannot_be_collected_are_refused(tmp_path: Path, line, words):
    mine = job(folder=folder_with(tmp_path, task=TASK + f"\n    {line}\n"))
    with pytest.raises(JobError) as refusal:
        facts_of(mine, load_task(mine))
    for word in words:
        assert word in str(refusal.value)


def test_a_loaded_task_works(tmp_path: Path):
    mine = load_task(job(folder=folder_with(tmp_path, task=TASK)))
    outputs = mine.predict(mine.initial(0), Examples(np.zeros((3, 1)), np.zeros(3, int)))
    np.testing.assert_array_equal(outputs.probabilities, np.full((3, 2), 0.5))
    assert len(mine.data(Site("kiel", {})).train) == 0
    with pytest.raises(HansaError):
        load_task(replace(job(), folder=tmp_path / "gone"))


MIXES = """\
import hansa
from torch import nn


class Mixes(hansa.TorchTask):
    def model(self):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False))

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site):
        raise NotImplementedError
"""


@pytest.mark.parametrize("unit", ["client", "example"])
def test_a_model_that_mixes_examples_is_refused_before_anything_is_planned(tmp_path: Path, unit):
    (tmp_path / "mixes.py").write_text(MIXES)
    job = Job(
        name="mixes",
        task="mixes:Mixes",
        rounds=Rounds(count=1),
        cohort=Cohort(population=1),
        algorithm=fedavg(client_lr=0.1),
        privacy=Privacy(unit=unit),
        folder=tmp_path,
    )
    task = load_task(job)
    if unit == "client":
        assert facts_of(job, task).schema.size == 15
        return
    with pytest.raises(HansaError, match=r"BatchNorm1d.* mixes the examples") as refusal:
        facts_of(job, task)
    assert "GroupNorm" in refusal.value.fix
