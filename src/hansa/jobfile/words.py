"""A job as plain words and back: what a file holds and what travels between machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path as Folder
from types import MappingProxyType
from typing import Any

from hansa.algorithms import ALGORITHMS, build_algorithm, words_of
from hansa.core import canonical
from hansa.core.job import Job
from hansa.core.parts import Algorithm
from hansa.errors import PlanError
from hansa.jobfile.keys import (
    ALGORITHM,
    REQUIRED,
    Key,
    algorithm_keys,
    section_keys,
    sections,
    top_keys,
)
from hansa.jobfile.locate import Path
from hansa.jobfile.mistakes import Mistake, refuse
from hansa.jobfile.structure import check_algorithm_name, check_keys, check_sections
from hansa.jobfile.values import check_values

NO_LINES: Mapping[Path, int] = MappingProxyType({})


def job_from_words(
    words: Mapping[str, Any],
    file: str = "",
    lines: Mapping[Path, int] = NO_LINES,
    folder: Folder | None = None,
) -> Job:
    """The job that the words describe; each word is checked by itself.

    Args:
      words: what `tomllib` or `json` read, or `job_to_words` wrote.
      file: the file as the user named it, for messages.
      lines: the line of each key, for messages.
      folder: the folder that the task is looked up in.

    Raises:
      JobError: one word is wrong.
      JobRefused: several are.
    """
    right, mistakes = read_words(words)
    if mistakes:
        refuse(mistakes, file, lines)
    return Job(**right, folder=folder)


def read_words(words: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The job's fields that the words give, and everything that is wrong with the words.

    Without mistakes, the fields are those of a job; a section with a mistake is left out.
    """
    mistakes = check_sections(words, ALGORITHMS)
    right, wrong = check_values(top_keys(), words, ())
    mistakes += wrong
    for name, of in sections().items():
        found = words.get(name)
        if isinstance(found, Mapping):
            keys = section_keys(name)
            values, wrong = check_values(keys, found, (name,))
            wrong += check_keys(name, found, keys, ALGORITHMS)
            mistakes += wrong
            if not wrong:
                right[name] = of(**values)
    if isinstance(words.get(ALGORITHM), Mapping):
        algorithm, wrong = _algorithm(words[ALGORITHM])
        mistakes += wrong
        right[ALGORITHM] = algorithm
    return right, mistakes


def job_to_words(job: Job) -> dict[str, Any]:
    """The words of a job, all of them, so that defaults that change later change nothing.

    But for words that came later and are not used: who does not know them can read the others.

    The inverse of `job_from_words`; the folder, which is no word, is left out.
    """
    words: dict[str, Any] = {
        name: _plain(key.type, getattr(job, name)) for name, key in top_keys().items()
    }
    for name in sections():
        section, of = getattr(job, name), section_keys(name)
        words[name] = {
            f.name: _plain(of[f.name].type, getattr(section, f.name))
            for f in fields(section)
            if f.name in of and not canonical.left_out(f, section)
        }
    words[ALGORITHM] = {"name": job.algorithm.name, **words_of(job.algorithm)}
    return words


def _algorithm(words: Mapping[str, Any]) -> tuple[Algorithm | None, list[Mistake]]:
    mistakes = check_algorithm_name(words, ALGORITHMS)
    if mistakes:
        return None, mistakes
    name = words["name"]
    keys = algorithm_keys(ALGORITHMS[name])
    options = {key: value for key, value in words.items() if key != "name"}
    values, wrong = check_values(keys, options, (ALGORITHM,))
    mistakes = check_keys(ALGORITHM, options, keys, ALGORITHMS) + wrong
    if any(key.default is REQUIRED and key.name not in values for key in keys.values()):
        return None, mistakes
    algorithm, wrong = _build(name, values, keys)
    return algorithm, mistakes + wrong


def _build(
    name: str, values: dict[str, Any], keys: Mapping[str, Key]
) -> tuple[Algorithm | None, list[Mistake]]:
    """The algorithm, or all that it says against its values: it names one key at a time."""
    mistakes: list[Mistake] = []
    left = dict(values)
    for _ in range(len(values) + 1):
        try:
            algorithm = build_algorithm(name, left)
        except PlanError as error:
            section, _, key = error.part.partition(".")
            mistakes.append(Mistake((section, key), f"{error.part} {error.because}", error.fix))
            if key not in left or keys[key].default is REQUIRED:
                break
            del left[key]
        else:
            return (None if mistakes else algorithm), mistakes
    return None, mistakes


def _plain(of: Any, value: Any) -> Any:
    """A number that Python was given as 60 where 60.0 is meant is the same word."""
    return float(value) if of is float else value
