"""Values that a command line gives instead of the file's: `--set algorithm.client_lr=0.1`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from hansa.errors import JobError
from hansa.jobfile.keys import ALGORITHM, sections, top_keys
from hansa.nearest import suggest

FILE = "--set"
"""What messages name instead of a file."""


def overridden(words: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """The words of a job with other values; a section that is missing is added.

    Args:
      words: what the file says.
      overrides: values by `section.key`, or by the key alone for those above the first section.

    Raises:
      JobError: a name is neither.
    """
    changed = dict(words)
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if not key:
            check_name(name)
            changed[name] = value
            continue
        check_name(name)
        old = changed.get(section, {})
        changed[section] = {**(old if isinstance(old, Mapping) else {}), key: value}
    return changed


def check_name(name: str) -> None:
    """Refuses what is no `section.key`; whether the section has the key is checked with the rest.

    Raises:
      JobError: says what is near it.
    """
    section, dot, key = name.partition(".")
    known = {*sections(), ALGORITHM}
    if not dot and section in top_keys():
        return
    if dot and section in known and key and "." not in key:
        return
    if not dot and section in known:
        raise JobError(f"'{name}' is a section", fix=f"write {name}.KEY=VALUE", file=FILE)
    if not dot:
        raise JobError(
            f"there is no key '{name}' above the first section",
            fix=f"write SECTION.KEY=VALUE, or {suggest(name, top_keys(), 'keys')}",
            file=FILE,
        )
    raise JobError(
        f"there is no section '{section}'", fix=suggest(section, known, "sections"), file=FILE
    )


def value_of(text: str) -> Any:
    """A value as a job file would hold it; a bare word is a text.

    | text      | value         |
    |-----------|---------------|
    | 0.1       | 0.1           |
    | 10        | 10            |
    | true      | True          |
    | "60s"     | "60s"         |
    | fixed     | "fixed"       |
    """
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
