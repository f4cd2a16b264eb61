"""What a site must remember before anything leaves: small files, each replaced as one step."""

from __future__ import annotations

import json
from pathlib import Path

from hansa.errors import StoreError
from hansa.identity import files


def remember(path: Path, value: object, what: str) -> None:
    """Writes a value down as JSON; it is durable when this returns.

    Args:
      path: the file.
      value: what is remembered.
      what: what it is called in the error, such as `the session`.

    Raises:
      StoreError: it cannot be written down.
    """
    try:
        files.write(path, json.dumps(value).encode("utf-8"))
    except OSError as error:
        raise StoreError(
            f"{what} cannot be written down ({error.strerror}), so nothing may leave",
            fix=f"make room or mend the permissions of {path}",
        ) from error
