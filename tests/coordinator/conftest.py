"""Stores to test: the same tests run on SQLite and on a PostgreSQL that the tests start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hansa.coordinator.store import Store
from tests.support.postgres import Server, serving
from tests.support.store_rows import empty

SKIP = "HANSA_SKIP_POSTGRES"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the session (for each worker, under xdist); started when first needed."""
    if reason := os.environ.get(SKIP, ""):
        pytest.skip(f"{SKIP}: {reason}")
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store, to be copied."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    Store.open(path).close()
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres: Server) -> str:
    """The URL of a PostgreSQL store that tests use one after the other."""
    url = postgres.url(postgres.create())
    Store.open(url).close()
    return url


@dataclass(frozen=True)
class Place:
    """Where a store is; `kind` is sqlite or postgres."""

    kind: str
    url: str

    def open(self, *, lead: bool = False) -> Store:
        """Opens the store, as its coordinator or as a tool beside it."""
        store = Store.open(self.url)
        if lead:
            store.acquire_lease("coordinator of the tests", 30.0)
        return store


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return Place("sqlite", str(path))
    url: str = request.getfixturevalue("migrated_database")
    with Store.open(url) as store:
        store.database.write(empty)
    return Place("postgres", url)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """An empty store, opened as its coordinator."""
    with place.open(lead=True) as store:
        yield store
