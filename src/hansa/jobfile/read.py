"""Finds a job file and reads it, or says what is wrong with the file as a whole."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from pathlib import Path as File
from types import MappingProxyType
from typing import Any

from hansa.core.job import Job
from hansa.errors import JobError
from hansa.jobfile.mistakes import refuse
from hansa.jobfile.override import overridden
from hansa.jobfile.rules import check_rules
from hansa.jobfile.syntax import parse
from hansa.jobfile.words import read_words
from hansa.nearest import nearest

NAME = "job.toml"
MOST_BYTES = 1 << 20
EXAMPLES = File(__file__).parent.parent / "examples"


def load_job(
    path: str | os.PathLike[str], overrides: Mapping[str, Any] = MappingProxyType({})
) -> Job:
    """Reads a job.

    Args:
      path: a job file, a folder that holds a `job.toml`, or the name of a built-in example.
      overrides: values instead of the file's, by `section.key`.

    Returns:
      The job; its `folder` is the file's.

    Raises:
      JobError: the file cannot be read, or one thing in it is wrong.
      JobRefused: several things in it are wrong.
    """
    file, shown = find(path)
    words, lines = parse(read_text(file, shown), shown)
    words = overridden(words, overrides)
    right, mistakes = read_words(words)
    mistakes += check_rules(words, right)
    if mistakes:
        given = {tuple(name.split(".")) for name in overrides}
        if all(mistake.path in given for mistake in mistakes):
            refuse(mistakes, "--set", {})
        refuse(mistakes, shown, {path: line for path, line in lines.items() if path not in given})
    return Job(**right, folder=file.parent.resolve())


def examples() -> dict[str, File]:
    """The job files of the built-in examples by their names: `images`, `images-1000`.

    A folder's `job.toml` has the name of the folder, another file's name follows it.
    """
    files = sorted(EXAMPLES.glob("*/*.toml"))
    named = {
        file.parent.name + ("" if file.name == NAME else f"-{file.stem}"): file for file in files
    }
    return dict(sorted(named.items()))


def find(path: str | os.PathLike[str]) -> tuple[File, str]:
    """The job file that a person means, and how to name it in messages.

    Raises:
      JobError: there is none.
    """
    shown = os.fspath(path)
    at = File(shown)
    if at.is_dir():
        if (at / NAME).is_file():
            return at / NAME, str(at / NAME)
        raise JobError(
            f"this folder holds no {NAME}", fix=_instead(at, "name the job file itself"), file=shown
        )
    if at.exists():
        if not at.is_file():
            raise JobError("this is not a file", fix=f"name a {NAME}", file=shown)
        return at, shown
    example = examples().get(shown)
    if example is not None:
        return example, f"{example.parent.name}/{example.name}"
    raise JobError(
        "there is no such file",
        fix=_meant(at) or f"write one with: hansa new {at.stem or 'NAME'}",
        file=shown,
    )


def _instead(folder: File, otherwise: str) -> str:
    others = sorted(file.name for file in folder.glob("*.toml"))
    near = nearest(NAME, others) or (others[0] if len(others) == 1 else None)
    return f"name the file: {folder / near}" if near else otherwise


def _meant(at: File) -> str | None:
    """The nearest name that does exist, beside the path or among the examples."""
    folder = at.parent
    beside = []
    if folder.is_dir():
        beside = [
            entry.name
            for entry in folder.iterdir()
            if entry.suffix == ".toml" or (entry / NAME).is_file()
        ]
    near = nearest(at.name, beside)
    if near:
        return f"name {folder / near}"
    example = nearest(str(at), examples())
    return f"name the example {example}" if example else None


def read_text(file: File, shown: str) -> str:
    """The text of a job file, its lines ending in a line feed.

    Raises:
      JobError: it cannot be read, or is no text.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise JobError(
            f"the file cannot be read: {error.strerror}",
            fix="give yourself the right to read it",
            file=shown,
        ) from error
    if len(data) > MOST_BYTES:
        raise JobError(
            f"the file is larger than {MOST_BYTES:,} bytes",
            fix="name a job file, which is a short text",
            file=shown,
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise JobError("the file is UTF-16 text", fix="save the file as UTF-8", file=shown)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise JobError(
            f"byte 0x{data[error.start]:02x} is not UTF-8 text",
            fix="save the file as UTF-8",
            file=shown,
            line=data[: error.start].count(b"\n") + 1,
        ) from error
    if not text.strip():
        raise JobError("the file is empty", fix="write a job with: hansa new NAME", file=shown)
    return text
