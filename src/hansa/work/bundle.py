"""A job's task: finding it, loading it, and packing its code for the sites.

`job.task` is `module:Class`. The module lies beside the job file, or is an example that is
installed with Hansa (`hansa.examples.heart.task:Heart`). Both are packed in the same way, and a
site loads what it unpacked, never what it has installed.
"""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

from hansa.core import metrics
from hansa.core.job import Job, TaskFacts
from hansa.core.metrics import Metric
from hansa.core.parts import Task
from hansa.errors import HansaError, JobError
from hansa.nearest import suggest
from hansa.work.container import Bundle, collect, parse, write
from hansa.work.imports import import_from
from hansa.work.per_example import refuse_what_mixes

EXAMPLES = "hansa.examples."
"""What the modules of installed tasks begin with."""

_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_NEEDED = ("schema", "metrics", "initial", "gradient", "predict", "data")
_PACKAGE = "__init__"
_RESERVED = frozenset({"train_loss"})


def load_task(job: Job) -> Task:
    """Loads and makes the task of a job on the machine of whoever wrote it.

    Raises:
      JobError: the reference, the module or the class is wrong; the message says how.
      MissingExtra: the task needs an optional dependency.
    """
    home = _Home.of(job)
    if home.installed:
        return home.make(lambda: importlib.import_module(home.installed))
    return home.make(lambda: import_from(home.folder, home.module, collect(home.folder).digest))


def load_bundled_task(folder: Path, reference: str) -> Task:
    """Loads and makes a task from the folder that its bundle was unpacked into.

    Args:
      folder: where `unpack` wrote the files.
      reference: the job's `task`.

    Raises:
      JobError: the bundle does not hold such a task, or it cannot be loaded.
      MissingExtra: the task needs an optional dependency.
    """
    module, name = _split(reference)
    if module.startswith(EXAMPLES):
        module = module.removeprefix(EXAMPLES).partition(".")[2] or _PACKAGE
    home = _Home(folder, module, name)
    return home.make(lambda: import_from(folder, module, collect(folder).digest))


def pack(job: Job) -> Bundle:
    """The code of a job's task: the .py files of its folder, or of the example's package.

    Raises:
      JobError: there is no such folder, or its files cannot be bundled.
    """
    return collect(_Home.of(job).folder)


def unpack(data: bytes, folder: Path) -> Bundle:
    """Checks a bundle that somebody else packed and writes its files into a new folder.

    Nothing is written unless everything is in order. Whoever approves bundles by digest parses
    first (`container.parse`), compares `Bundle.digest`, and unpacks then.

    Raises:
      JobError: the bundle is malformed or the folder holds something else.
    """
    bundle = parse(data)
    write(bundle, folder)
    return bundle


def facts_of(job: Job, task: Task) -> TaskFacts:
    """What a plan needs to know of a job's task.

    Raises:
      JobError: the task's metrics cannot be collected, or its code cannot be bundled.
      HansaError: the job hides single examples, and the model mixes those of a batch.
    """
    if job.privacy.unit == "example":
        refuse_what_mixes(task)
    return TaskFacts(schema=task.schema, metrics=_metrics(task), digest=pack(job).digest)


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a task is.

    Attributes:
      folder: the folder of its code.
      module: its module, dotted, inside the folder.
      name: its class.
      installed: the module's full name, for an example.
    """

    folder: Path
    module: str
    name: str
    installed: str = ""

    @classmethod
    def of(cls, job: Job) -> _Home:
        """Where a job's task is on the machine of whoever wrote it."""
        module, name = _split(job.task)
        if module.startswith(EXAMPLES):
            package, _, inner = module.removeprefix(EXAMPLES).partition(".")
            root = Path(str(importlib.import_module("hansa.examples").__file__)).parent
            if not (root / package).is_dir():
                raise JobError(
                    f"Hansa has no example '{package}'",
                    fix=suggest(
                        package, (p.parent.name for p in root.glob("*/task.py")), "examples"
                    ),
                )
            return cls(root / package, inner or _PACKAGE, name, module)
        if job.folder is None:
            raise JobError(
                f"the job does not say in which folder the task '{job.task}' is",
                fix="load the job from its file, or give Job(folder=...)",
            )
        return cls(job.folder, module, name)

    def make(self, load: Callable[[], ModuleType]) -> Task:
        """An instance of the task's class."""
        self._check_file()
        try:
            module = load()
        except HansaError:
            raise
        except (Exception, SystemExit) as error:
            raise self._cannot("import", error) from error
        kind = self._class(module)
        try:
            return cast("Task", kind())
        except HansaError:
            raise
        except (Exception, SystemExit) as error:
            raise self._cannot("make", error) from error

    def _check_file(self) -> None:
        if not self.folder.is_dir():
            raise JobError(f"there is no folder '{self.folder}'", fix="check the folder of the job")
        path = self.folder.joinpath(*self.module.split("."))
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return
        if self.module.endswith(".py"):
            raise JobError(
                f"the task's module is named like a file, '{self.module}'",
                fix=f'write task = "{self.module.removesuffix(".py")}:{self.name}"',
            )
        beside = [p.stem for p in self.folder.glob("*.py") if p.stem.isidentifier()]
        raise JobError(
            f"there is no module '{self.module}' in '{self.folder}'",
            fix=suggest(self.module, beside, "modules there"),
        )

    def _class(self, module: ModuleType) -> type:
        found = getattr(module, self.name, None)
        if found is None:
            classes = [n for n, c in vars(module).items() if _own_class(module, c)]
            raise self._wrong("is not there", suggest(self.name, classes, "classes"))
        if not isinstance(found, type):
            raise self._wrong(
                f"is a {type(found).__name__}, not a class", "name the class of the task"
            )
        lacking = sorted(getattr(found, "__abstractmethods__", ()))
        if lacking:
            raise self._wrong(
                f"lacks {', '.join(f'{method}()' for method in lacking)}",
                f"write {lacking[0]}() as the documentation of its base class says",
            )
        if any(not hasattr(found, needed) for needed in _NEEDED):
            raise self._wrong("is not a task", "derive it from hansa.NumpyTask or hansa.TorchTask")
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise self._wrong(
                f"cannot be made without arguments ({error})",
                "leave __init__ out, or give its arguments defaults",
            ) from error
        return found

    def _wrong(self, what: str, fix: str) -> JobError:
        return JobError(f"the task '{self.module}:{self.name}' {what}", fix=fix)

    def _cannot(self, act: str, error: BaseException) -> JobError:
        """The user's own code failed: where, and with what words."""
        file, line = _place(self.folder, error)
        if isinstance(error, ModuleNotFoundError):
            fix = f"install {error.name} here and at every site, or put it into the job's folder"
        else:
            fix = "correct the line; run Python on the file to see the whole traceback"
        said = str(error) or "no message"
        return JobError(
            f"cannot {act} the task '{self.module}:{self.name}': {type(error).__name__}: {said}",
            fix=fix,
            file=file,
            line=line,
        )


def _split(reference: str) -> tuple[str, str]:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise JobError(
            f"the task '{reference}' is not a module and a class",
            fix='write it like task = "task:Heart", for the class Heart in task.py',
        )
    return match.group(1), match.group(2)


def _own_class(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _place(folder: Path, error: BaseException) -> tuple[str, int]:
    """File and line of the user's code that an error came from; empty if it came from none."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename).name, error.lineno or 0
    root = folder.resolve()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix(), frame.lineno or 0
    return "", 0


def _metrics(task: Task) -> tuple[Metric, ...]:
    found: object = task.metrics
    if callable(found):
        raise JobError(
            "the task's metrics are a method",
            fix="write them as an attribute: metrics = (hansa.Loss(), hansa.Accuracy())",
        )
    if not isinstance(found, (tuple, list)):
        raise JobError(
            "the task's metrics are not a list of metrics",
            fix="write them in brackets: metrics = (hansa.Loss(),)",
        )
    listed = tuple(cast("Sequence[Metric]", found))
    names: set[str] = set(_RESERVED)
    for metric in listed:
        if type(metric) not in metrics.KINDS.values():
            raise JobError(
                f"{metric!r} is not a metric that sites and coordinator both know",
                fix=f"use one of: {', '.join(sorted(metrics.KINDS))}; Ratio takes any function",
            )
        if metric.name in names:
            raise JobError(
                f"there are two metrics named '{metric.name}', counting Hansa's own train_loss",
                fix="give one of them another name",
            )
        names.add(metric.name)
    return listed
