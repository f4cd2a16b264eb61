r"""Task code as one file: what travels, what a site approves, what it unpacks.

A container is canonical JSON, `{"files": {"task.py": "...source..."}, "format": 1}`. There is
nothing to inflate, no link, no attribute, and one byte string per content. Paths are restricted
to what Python can import, so that none leads out of a folder:

| path                                      | allowed                                     |
|-------------------------------------------|---------------------------------------------|
| `task.py`, `parts/net.py`                 | yes                                         |
| `../task.py`, `/etc/x.py`, `a//b.py`      | no: leads elsewhere                         |
| `C:x.py`, `a\b.py`, `a b.py`, `x-y.py`    | no: a name that Python cannot import        |
| `task.pyc`, `data.csv`                    | no: source code only                        |
| `Task.py` beside `task.py`                | no: one file on some machines               |
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hansa.core import canonical
from hansa.errors import JobError

FORMAT = 1
"""Version of the container."""

MAX_FILES = 256
"""Most files in a container."""

MAX_BYTES = 4 << 20
"""Most bytes of a container."""

_MAX_FOLDERS = 1_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PATH = re.compile(rf"(?:{_NAME.pattern}/){{0,7}}{_NAME.pattern}\.py")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The source files of a task.

    Attributes:
      files: content of each file, by its path with forward slashes.
    """

    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if not self.files:
            raise _refusal("it holds no files", fix="put the task's .py file into the job's folder")
        if len(self.files) > MAX_FILES:
            raise _refusal(
                f"it holds {len(self.files):,} files, at most {MAX_FILES:,} are allowed",
                fix="give the job a folder of its own",
            )
        for path in self.files:
            if not _PATH.fullmatch(path):
                raise _refusal(
                    f"{path!r} is not a path of a Python module inside it",
                    fix="name files and folders with letters, digits and underscores, and .py",
                )
        if len({path.casefold() for path in self.files}) < len(self.files):
            raise _refusal(
                "two of its paths differ in upper and lower case only", fix="rename one of them"
            )
        if sum(map(len, self.files.values())) > MAX_BYTES:
            raise _refusal(
                f"its files are larger than {MAX_BYTES >> 20} MiB",
                fix="keep data out of .py files",
            )

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted pairs of path and SHA-256 of the content, in hexadecimal."""
        return canonical.digest(
            [[path, hashlib.sha256(self.files[path]).hexdigest()] for path in sorted(self.files)]
        )

    def to_bytes(self) -> bytes:
        """The container; equal bundles give equal bytes.

        Raises:
          JobError: a file is not UTF-8, or the container is too large.
        """
        texts = {path: _text(path, content) for path, content in self.files.items()}
        data = canonical.dumps({"format": FORMAT, "files": texts}).encode("ascii")
        if len(data) > MAX_BYTES:
            raise _refusal(
                f"it takes more than {MAX_BYTES >> 20} MiB", fix="keep data out of .py files"
            )
        return data


def parse(data: bytes) -> Bundle:
    """Reads a container that somebody else made; nothing is written or run.

    Raises:
      JobError: it is too large, malformed, or holds a path that is not allowed.
    """
    if len(data) > MAX_BYTES:
        raise _refusal(f"it takes more than {MAX_BYTES >> 20} MiB", fix="ask for a smaller one")
    try:
        value = json.loads(data.decode("ascii"))
        texts: dict[str, str] = value["files"]
        bundle = Bundle({path: text.encode() for path, text in texts.items()})
        exact = value["format"] == FORMAT and bundle.to_bytes() == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal("it is malformed", fix="pack the job again") from error
    if not exact:
        raise _refusal(
            f"it is not in the one form that format {FORMAT} has",
            fix="pack the job again with the version of Hansa that the site runs",
        )
    return bundle


def collect(folder: Path) -> Bundle:
    """The Python files below a folder: those that a task could import.

    Hidden folders, caches, virtual environments and names that Python cannot import are left out.

    Raises:
      JobError: there are no such files, too many of them, or one of them is a link.
    """
    files: dict[str, bytes] = {}
    for path in _sources(folder):
        if path.is_symlink():
            raise _refusal(f"'{path.name}' is a link", fix="put the file itself into the folder")
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
        if len(files) > MAX_FILES:
            break
    return Bundle(files)


def write(bundle: Bundle, folder: Path) -> None:
    """Writes the files into a new folder: all of them or, if it is interrupted, none.

    Raises:
      JobError: the folder exists and holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if collect(folder) == bundle:
            return
        raise _refusal(f"'{folder}' holds other files", fix="unpack into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as scratch:
        new = Path(scratch, "bundle")
        for path, content in bundle.files.items():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        new.rename(folder)


def _sources(folder: Path) -> Iterator[Path]:
    for visited, (here, folders, names) in enumerate(os.walk(folder)):
        at = Path(here)
        if visited >= _MAX_FOLDERS:
            raise _refusal(
                f"there are more than {_MAX_FOLDERS:,} folders below '{folder}'",
                fix="give the job a folder of its own",
            )
        folders[:] = sorted(name for name in folders if _importable(at / name))
        yield from (at / name for name in sorted(names) if _is_source(name))


def _importable(folder: Path) -> bool:
    name = folder.name
    if not _NAME.fullmatch(name) or name == "__pycache__" or (folder / "pyvenv.cfg").exists():
        return False
    if folder.is_symlink() and any(folder.glob("*.py")):
        raise _refusal(f"'{name}' is a link", fix="put the folder itself beside the job file")
    return True


def _is_source(name: str) -> bool:
    stem = name.removesuffix(".py")
    if stem == name or not stem.isidentifier():
        return False
    if not _NAME.fullmatch(stem):
        raise _refusal(
            f"'{name}' is a name that not every machine can write",
            fix="use at most 64 letters of the English alphabet, digits and underscores",
        )
    return True


def _text(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _refusal(f"'{path}' is not UTF-8", fix="save the file as UTF-8") from error


def _refusal(why: str, *, fix: str) -> JobError:
    return JobError(f"the task's code cannot be bundled: {why}", fix=fix)
