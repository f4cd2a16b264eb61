from __future__ import annotations

from pathlib import Path

import pytest

from hansa.identity.authority import Authority
from tests.support.ca import make_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that tests share; nobody changes it."""
    return make_authority(tmp_path_factory.mktemp("ca") / "authority")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority that claims to be of the same federation."""
    return make_authority(tmp_path_factory.mktemp("ca") / "stranger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "identity"
