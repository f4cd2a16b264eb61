"""Files of a run: replaced whole or appended to, so that a kill leaves old or new content.

A process that is killed loses nothing that was handed to the system. What a loss of power must not
lose is flushed to the disk as well (`sync`), which takes milliseconds and is done now and then.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hansa.errors import HansaError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_whole(path: Path, write: Callable[[IO[bytes]], object], *, sync: bool = False) -> None:
    """Replaces a file as one step that a kill cannot split.

    Args:
      path: the file.
      write: writes the content into an open file.
      sync: whether the content must survive a loss of power, too.

    Raises:
      HansaError: the disk refuses; the file is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with explained(f"{path} cannot be written", path.parent):
        try:
            with beside.open("wb") as file:
                write(file)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Replaces a text file as one step; raises as `write_whole`."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")), sync=sync)


def write_json(path: Path, value: object, *, sync: bool = False) -> None:
    """Replaces a JSON file as one step; what is not finite is null. Raises as `write_whole`."""
    text = json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n", sync=sync)


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds.

    Raises:
      HansaError: there is no such file, or it is damaged.
    """
    with explained(f"{path} cannot be read", path.parent):
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise HansaError(
                f"there is no {path.name} in '{path.parent}', so it is no run's folder",
                fix="name a folder that hansa simulate or hansa sweep made",
            ) from error
        except ValueError as error:
            raise HansaError(
                f"{path} is damaged", fix="restore the file from a copy, or run the job anew"
            ) from error


def finite(value: object) -> object:
    """The same value with None for each number that JSON cannot hold: infinite or NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


@contextmanager
def explained(what: str, where: Path) -> Iterator[None]:
    """Turns an error of the operating system into one that says what to do.

    Raises:
      HansaError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            fix = f"free disk space for '{where}', then go on with --resume; nothing is lost"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = f"give yourself the right to write to '{where}', or choose another --output"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            fix = "a file is in the way: choose another --output"
        else:
            fix = f"check the disk that holds '{where}', or choose another --output"
        raise HansaError(f"{what}: {error.strerror or error}", fix=fix) from error
