"""A PostgreSQL server for runs on it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.postgres import Server, serving


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the session (for each worker, under xdist); started when first needed."""
    if reason := os.environ.get("HANSA_SKIP_POSTGRES", ""):
        pytest.skip(f"HANSA_SKIP_POSTGRES: {reason}")
    with serving() as server:
        yield server
