from __future__ import annotations

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.federation import Place, make

MEMORY = Path("/dev/shm")


LIBRARIES = ("asyncio", "grpc", "uvicorn", "concurrent.futures")


class _Defects(logging.Handler):
    """What libraries complain of: an exception that nobody caught, a task that nobody awaited."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(LIBRARIES):
            self.found.append(f"{record.name}: {self.format(record)}")


@pytest.fixture(autouse=True)
def no_defects() -> Iterator[None]:
    """Whatever a test does to the other side, nothing breaks inside a library."""
    handler = _Defects()
    logging.getLogger().addHandler(handler)
    try:
        yield
        gc.collect()  # tasks complain when they are forgotten
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.found, "\n".join(handler.found)


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """Where the federations lie: memory if there is some, since every step of a round is synced."""
    roomy = MEMORY.is_dir() and os.statvfs(MEMORY).f_bavail * os.statvfs(MEMORY).f_frsize > 1 << 29
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None, prefix="hansa-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def template(ground: Path) -> Place:
    """A federation with six sites, to be copied; nobody runs it."""
    return make(ground / "template")


@pytest.fixture(scope="module")
def module_place(template: Place, ground: Path) -> Iterator[Place]:
    """A federation that the tests of a module share."""
    with tempfile.TemporaryDirectory(dir=ground) as folder:
        yield template.copy(Path(folder) / "hanse")


@pytest.fixture
def place(template: Place, ground: Path) -> Iterator[Place]:
    """A federation of this test's own."""
    with tempfile.TemporaryDirectory(dir=ground) as folder:
        yield template.copy(Path(folder) / "hanse")
