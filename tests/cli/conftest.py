"""Commands are run in a folder that holds three jobs: toy, private and broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.cli import Run, make_jobs, run


@pytest.fixture
def hansa(tmp_path: Path) -> Callable[..., Run]:
    """Runs `hansa WORDS`; `env` replaces the environment."""
    make_jobs(tmp_path)

    def in_folder(*words: str, env: Mapping[str, str] | None = None) -> Run:
        return run(*words, cwd=tmp_path, env=env)

    return in_folder
