"""Where the devices of a run came from, so that it can go on with the same ones."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hansa.devices.file import load_devices


@dataclass(frozen=True, slots=True)
class Origin:
    """A file of devices.

    Attributes:
      file: its whole path.
      sha256: over its bytes and those of the traces that it names.
    """

    file: str
    sha256: str

    @classmethod
    def of(cls, path: Path | str) -> Origin:
        """Reads a file and its traces.

        Raises:
          JobError: one cannot be read, or says what cannot be.
        """
        load_devices(path)
        file = Path(path)
        text = file.read_bytes()
        digest = hashlib.sha256(hashlib.sha256(text).digest())
        words = tomllib.loads(text.decode("utf-8-sig").replace("\r\n", "\n"))
        for name in sorted(words):
            trace = words[name].get("trace")
            if trace is not None:
                digest.update(hashlib.sha256((file.parent / trace).read_bytes()).digest())
        return cls(str(file.resolve()), digest.hexdigest())
