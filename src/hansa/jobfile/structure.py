"""Checks which sections and keys there are, and says where misplaced ones belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hansa.jobfile.keys import (
    ALGORITHM,
    REQUIRED,
    algorithm_keys,
    required_sections,
    section_keys,
    sections,
    toml,
    top_keys,
)
from hansa.jobfile.locate import Path
from hansa.jobfile.mistakes import Mistake, dotted, listed
from hansa.nearest import nearest

Algorithms = Mapping[str, Callable[..., Any]]

_TOP = "the top of the file"


def check_sections(words: Mapping[str, Any], algorithms: Algorithms) -> list[Mistake]:
    """Everything at the top of the file that is not a known key or section, or is missing."""
    mistakes = []
    names = {*sections(), ALGORITHM}
    for name, value in words.items():
        if name in names:
            if not isinstance(value, Mapping):
                mistakes.append(_not_a_section(name, value))
        elif name not in top_keys():
            mistakes.append(
                _unknown_section(name, names)
                if isinstance(value, Mapping)
                else _unknown_key((name,), top_keys(), algorithms)
            )
    mistakes += [_lacks_section(name) for name in sorted(required_sections() - words.keys())]
    return mistakes


def check_keys(
    section: str, words: Mapping[str, Any], known: Mapping[str, Any], algorithms: Algorithms
) -> list[Mistake]:
    """The keys of one section that are not its own."""
    return [
        _nested((section, name))
        if isinstance(value, Mapping)
        else _unknown_key((section, name), known, algorithms)
        for name, value in words.items()
        if name not in known
    ]


def check_algorithm_name(words: Mapping[str, Any], algorithms: Algorithms) -> list[Mistake]:
    """Whether `[algorithm]` names one that exists."""
    name = words.get("name")
    if isinstance(name, str) and name in algorithms:
        return []
    if name is None:
        return [
            Mistake(
                (ALGORITHM,),
                "[algorithm] lacks name (the method that trains the model)",
                f"add a line to [algorithm] with one of: {listed(sorted(algorithms))}",
            )
        ]
    near = nearest(str(name), algorithms)
    return [
        Mistake(
            (ALGORITHM, "name"),
            f"there is no algorithm {toml(name)}",
            _meant(
                toml(near) if near else None, "algorithms", [toml(a) for a in sorted(algorithms)]
            ),
        )
    ]


def _not_a_section(name: str, value: Any) -> Mistake:
    if isinstance(value, list):
        return Mistake(
            (name,), f"[[{name}]] is a list of sections; there is one", f"write [{name}] once"
        )
    return Mistake(
        (name,),
        f"{name} is {toml(value)}; it is the name of a section",
        f"open the section with a line [{name}] and set its keys below it",
    )


def _unknown_section(name: str, names: set[str]) -> Mistake:
    near = nearest(name, names)
    return Mistake(
        (name,),
        f"there is no section [{name}]",
        _meant(f"[{near}]" if near else None, "sections", [f"[{n}]" for n in sorted(names)]),
    )


def _lacks_section(name: str) -> Mistake:
    needed = (
        ["name"]
        if name == ALGORITHM
        else [key.name for key in section_keys(name).values() if key.default is REQUIRED]
    )
    return Mistake(
        (),
        f"the section [{name}] is missing",
        f"add a line [{name}] and, below it, {listed(needed)}",
    )


def _nested(path: Path) -> Mistake:
    name = path[-1]
    if name in sections() or name == ALGORITHM:
        fix = f"write [{name}] instead of [{dotted(path)}]"
    else:
        fix = f"keep the keys of [{path[0]}] directly below its header"
    return Mistake(path, f"[{path[0]}] holds no section [{dotted(path)}]", fix)


def _unknown_key(path: Path, known: Iterable[str], algorithms: Algorithms) -> Mistake:
    name = path[-1]
    here = f"[{path[0]}]" if len(path) > 1 else _TOP
    message = f"{here} has no key {name}"
    taking = [n for n, function in algorithms.items() if name in algorithm_keys(function)]
    if here == f"[{ALGORITHM}]" and taking:
        return Mistake(
            path,
            f"this algorithm has no key {name}",
            f"leave it out, or choose an algorithm that has it: {listed(sorted(taking))}",
        )
    homes = [f"{_TOP}, above the first section"] if name in top_keys() else []
    homes += [f"[{section}]" for section in sections() if name in section_keys(section)]
    homes += [f"[{ALGORITHM}]"] if taking else []
    if homes:
        return Mistake(path, message, f"move it to {' or '.join(homes)}")
    return Mistake(path, message, _meant(nearest(name, known), "keys", sorted(known)))


def _meant(near: str | None, plural: str, known: list[str]) -> str:
    first = f"write {near}" if near else "leave it out"
    return f"{first}; the {plural} are {listed(known)}"
