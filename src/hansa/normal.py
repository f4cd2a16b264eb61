"""The one form of a job: what Python lets an author write differently means the same job.

Two parties agree on a plan by comparing digests, so 60 and 60.0 must not make two jobs, and a
word that Python's type checker would have refused must be refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hansa.core.job import Job
from hansa.errors import PlanError
from hansa.nearest import suggest

Part = TypeVar("Part")


def normal(part: Part) -> Part:
    """The same dataclass, with a float wherever its fields say float."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    hints, changed = _hints(type(part)), {}
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        form = float(value) if whole and hints[f.name] is float else normal(value)
        if form is not value:
            changed[f.name] = form
    return dataclasses.replace(part, **changed) if changed else part


def unknown_words(job: Job) -> Iterator[PlanError]:
    """Words of a job that are none of those that their field allows."""
    sections = {f.name: getattr(job, f.name) for f in dataclasses.fields(job)}
    for name, section in {"": job, **sections}.items():
        if not dataclasses.is_dataclass(section) or isinstance(section, type):
            continue
        for key, hint in _hints(type(section)).items():
            value = getattr(section, key)
            if get_origin(hint) is Literal and value not in get_args(hint):
                known = [str(word) for word in get_args(hint)]
                yield PlanError(
                    f"{name}.{key}".lstrip("."),
                    f"'{value}' is not known",
                    suggest(str(value), known, "words"),
                )


@cache
def _hints(of: type) -> Mapping[str, Any]:
    return MappingProxyType(get_type_hints(of))
