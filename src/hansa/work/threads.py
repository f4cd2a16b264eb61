"""One computing thread: a matrix product has other last bits when it is divided among several.

A simulation computes each client on one thread, in this process as in workers, so that its result
follows neither from the number of cores nor from the engine. Small models are faster for it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What libraries read when they are loaded."""

_NAMES = tuple(
    f"{prefix}openblas_{{}}_num_threads{suffix}"
    for prefix in ("scipy_", "")
    for suffix in ("64_", "")
)
"""Functions of the OpenBLAS that the wheels of NumPy and SciPy bring, and of a system's own."""

_Setting = tuple[Callable[[], int], Callable[[int], object]]


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, PyTorch and NumPy's OpenBLAS compute on one thread; afterwards as before.

    Only what is loaded already is set, and only on Linux: elsewhere, set the `VARIABLES`.
    """
    before = [(change, ask()) for ask, change in _settings()]
    for change, _ in before:
        change(1)
    try:
        yield
    finally:
        for change, number in before:
            change(number)


def environment() -> dict[str, str]:
    """That of a new process: one computing thread, and modules from the same places as here."""
    path = os.pathsep.join(folder or str(os.getcwd()) for folder in sys.path)  # noqa: PTH109
    return {**os.environ, **dict.fromkeys(VARIABLES, "1"), "PYTHONPATH": path}


def _settings() -> Iterator[_Setting]:
    torch = sys.modules.get("torch")
    if torch is not None:
        yield torch.get_num_threads, torch.set_num_threads
    for path in _openblas():
        library = ctypes.CDLL(path)
        for name in _NAMES:
            with suppress(AttributeError):
                yield getattr(library, name.format("get")), getattr(library, name.format("set"))


def _openblas() -> list[str]:
    """Files of each OpenBLAS in this process."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    files = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
    return sorted(file for file in files if Path(file).is_file())
