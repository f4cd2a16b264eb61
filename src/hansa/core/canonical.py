"""Canonical JSON: one text per value, on every machine and every Python version.

Keys are sorted, no white space, floats in the shortest form that reads back to the same number,
infinities as the strings "inf" and "-inf". NaN is refused: nothing that is agreed on may be NaN.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def plain(value: object) -> Json:
    """Turns dataclasses, enums, tuples and mappings into what JSON can hold.

    A dataclass becomes an object with its class name under `is`, so that two parts with equal
    fields differ; an enum becomes its name in lower case. A field whose metadata says
    `words=False` holds something that is not data (a function, a folder) and is left out, and so
    is one whose metadata says `left_out=VALUE` while it has that value: it came later, and what
    does not use it has the text that it had before.

    Raises:
      TypeError: the value has no canonical form.
      ValueError: the value holds a NaN.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("NaN has no canonical form")
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: plain(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.metadata.get("words", True) and not left_out(f, value)
        }
        return {"is": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def left_out(field: dataclasses.Field[Any], value: object) -> bool:
    """Whether a field of a dataclass has the value with which it is not written down."""
    unsaid = field.metadata.get("left_out", dataclasses.MISSING)
    return unsaid is not dataclasses.MISSING and getattr(value, field.name) == unsaid


def dumps(value: object) -> str:
    """The canonical JSON text of a value."""
    return _ENCODER.encode(plain(value))


def listed(*items: str | int) -> str:
    """`dumps` of a list of strings and integers, which need not be turned into anything."""
    return _ENCODER.encode(items)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON text, in hexadecimal."""
    return digest_of(dumps(value))


def digest_of(text: str) -> str:
    """SHA-256 of a canonical JSON text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
