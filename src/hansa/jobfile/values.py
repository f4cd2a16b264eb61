"""Checks the values of one section, with pydantic: every key known, of its type, in its range.

pydantic is strict here: "10" is not 10, true is not 1, and 1.0 is not a count. A whole number is
a number. No value is infinite or NaN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hansa.jobfile.keys import DURATIONS, REQUIRED, Key, toml
from hansa.jobfile.locate import Path
from hansa.jobfile.mistakes import Mistake, dotted
from hansa.nearest import nearest

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_CONFIG = ConfigDict(
    strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=(), frozen=True
)


def check_values(
    keys: Mapping[str, Key], words: Mapping[str, Any], at: Path
) -> tuple[dict[str, Any], list[Mistake]]:
    """The right values of the known keys among `words`, and what is wrong with the others.

    Unknown keys are the caller's: where they belong depends on the other sections. A key that is
    missing because its name is misspelled is not reported a second time.

    Args:
      keys: the section's keys.
      words: what the file says.
      at: the section's path.
    """
    known = {name: value for name, value in words.items() if name in keys}
    misspelled = {nearest(name, keys) for name in words if name not in keys}
    model, mistakes = _model(tuple(keys.values())), []
    try:
        return model(**known).model_dump(exclude_unset=True), []
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors(include_url=False)}
        for name in (name for name in keys if name in wrong):
            if name in known:
                mistakes.append(_wrong(keys[name], known.pop(name)))
            elif name not in misspelled:
                mistakes.append(_missing(keys[name], at))
    right = tuple(keys[name] for name in known)
    return _model(right)(**known).model_dump(), mistakes


def seconds(value: object) -> object:
    """A duration as seconds: "90s", "5m", "2h", "1.5h" or a number; anything else unchanged."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", value) if isinstance(value, str) else None
    return float(match[1]) * _SECONDS[match[2]] if match else value


@lru_cache(maxsize=64)  # bounded: which keys are right is up to whoever wrote the words
def _model(keys: tuple[Key, ...]) -> type[BaseModel]:
    limits = {key.name: key.limit for key in keys}

    def within(value: Any, info: ValidationInfo) -> Any:
        if not limits[str(info.field_name)].admits(value):
            raise PydanticCustomError("limit", "out of range")
        return value

    fields: dict[str, Any] = {
        key.name: (key.type, ... if key.default is REQUIRED else key.default) for key in keys
    }
    validators: dict[str, Any] = {"within": field_validator("*")(within)}
    durations = [key.name for key in keys if key.path in DURATIONS]
    if durations:
        validators["seconds"] = field_validator(*durations, mode="before")(seconds)
    return create_model("Section", __config__=_CONFIG, __validators__=validators, **fields)


def _missing(key: Key, at: Path) -> Mistake:
    where = f"[{dotted(at)}]" if at else "the file"
    place = f"to [{dotted(at)}]" if at else "above the first section"
    return Mistake(
        at,
        f"{where} lacks {key.name} ({key.meaning})",
        f"add a line {place}: {key.name} = {_example(key)}",
    )


def _wrong(key: Key, value: Any) -> Mistake:
    if isinstance(value, Mapping):
        return Mistake(
            key.path,
            f"{dotted(key.path)} is a section here; it must be {key.allowed}",
            f"write {key.name} = {_example(key)}",
        )
    return Mistake(
        key.path,
        f"{dotted(key.path)} is {toml(value)}; it must be {key.allowed}",
        _fix(key, value),
    )


def _fix(key: Key, value: Any) -> str:
    if get_origin(key.type) is Literal:
        choices = [str(choice) for choice in get_args(key.type)]
        near = nearest(str(value), choices)
        meant = next((c for c in get_args(key.type) if str(c) == near), None)
        return f"write {key.name} = {_example(key) if meant is None else toml(meant)}"
    such = f"such as {key.name} = {_example(key)}"
    if isinstance(value, str) and key.type is not str and key.path not in DURATIONS:
        return f"write it without quotes, {such}"
    if key.type is str and not isinstance(value, str):
        return f"put it in quotes, {such}"
    return f"give a value that is allowed, {such}"


def _example(key: Key) -> str:
    """A value that the key takes: its default if that says something, else one in its range."""
    if key.path in DURATIONS:
        return '"60s"'
    if key.path in _EXAMPLES:
        return toml(_EXAMPLES[key.path])
    if key.default is not REQUIRED and key.default not in (0, None):
        return toml(key.default)
    return {int: "10", float: "0.1", bool: "true", str: '"..."'}.get(key.type, "...")


_EXAMPLES: Mapping[Path, object] = {
    ("name",): "heart",
    ("task",): "task:Heart",
    ("cohort", "population"): 100,
    ("privacy", "clip"): 1.0,
    ("privacy", "epsilon"): 8.0,
    ("privacy", "delta"): 1e-5,
    ("privacy", "noise_multiplier"): 1.0,
    ("privacy", "metrics_noise_multiplier"): 10.0,
    ("quantization", "step"): 1e-4,
}
"""Values for the examples in fixes, where the default says nothing."""
