"""Importing modules from a job's folder without leaving a trace for anybody else.

Modules get a name of their own per folder and content, so that the `task.py` of two jobs, or of
one job before and after an edit, do not clash. A task may import what lies beside it in both of
Python's ways:

| in task.py              | works                                                          |
|-------------------------|----------------------------------------------------------------|
| `from . import helper`  | always                                                         |
| `import helper`         | at the top of the file; not inside functions, which run later  |
| `import random`         | is Python's own, also where a `random.py` lies beside the task |
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_LOCK = threading.RLock()
_OURS = frozenset({"hansa", "numpy", "torch"}) | sys.stdlib_module_names


def import_from(folder: Path, module: str, digest: str) -> ModuleType:
    """Imports `module` ("task" or "parts.net") from a folder whose code has this digest.

    Whatever the module raises while it runs passes through.
    """
    folder = folder.resolve()
    name = hashlib.sha256(f"{digest}:{folder}".encode()).hexdigest()[:32]
    package = f"hansa_task_{name}"
    with _LOCK, _beside(folder):
        if package not in sys.modules:
            root = ModuleType(package, "The folder of a job.")
            root.__path__ = [str(folder)]
            sys.modules[package] = root
        return importlib.import_module(f"{package}.{module}")


class _Finder(MetaPathFinder):
    """Finds the top-level modules of one folder."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        self.folder, self.names = folder, names

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The module beside the task, if the name is one."""
        if path is not None or fullname not in self.names:
            return None
        return PathFinder.find_spec(fullname, [str(self.folder)], target)


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Inside, `import helper` finds `helper.py` in the folder; outside, nothing has changed."""
    names = frozenset(_top_level(folder)) - _OURS
    hidden = {name: sys.modules.pop(name) for name in _loaded(names)}
    finder, writes_bytecode = _Finder(folder, names), sys.dont_write_bytecode
    sys.meta_path.insert(0, finder)
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_bytecode
        sys.meta_path.remove(finder)
        for name in _loaded(names):
            del sys.modules[name]
        sys.modules.update(hidden)


def _top_level(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        if path.suffix == ".py":
            yield path.stem
        elif path.is_dir() and any(path.glob("*.py")):
            yield path.name


def _loaded(names: frozenset[str]) -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in names]
