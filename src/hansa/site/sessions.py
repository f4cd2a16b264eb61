"""Which masked sums a site took part in: it begins no attempt twice, also after a crash."""

from __future__ import annotations

import json
from pathlib import Path

from hansa.errors import HansaError
from hansa.secagg.faults import Fault, Misuse
from hansa.secagg.session import Session
from hansa.site.memory import remember

NAME = "sessions.json"

KEPT = 1_000
"""Jobs that are remembered; a job that old has ended."""


class Sessions:
    """The last attempt of each job, in one small file that is replaced as one step.

    Args:
      folder: the site's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._last = _read(self._path)

    def begin(self, session: Session) -> None:
        """Remembers a session before anything of it leaves.

        Raises:
          Misuse: this attempt, or a later one, was begun before.
          StoreError: it cannot be written down, so nothing may leave.
        """
        key, place = f"{session.job}/{session.purpose}", [session.round, session.attempt]
        if place <= self._last.get(key, [-1, -1]):
            raise Misuse(
                Fault.REPEATED, f"attempt {session.attempt} of round {session.round} was begun"
            )
        self._last.pop(key, None)
        self._last[key] = place
        while len(self._last) > KEPT:
            del self._last[next(iter(self._last))]
        remember(self._path, self._last, "the session")

    def begun(self, job: str, purpose: str, place: tuple[int, int]) -> bool:
        """Whether an attempt, or a later one, was begun before."""
        return list(place) <= self._last.get(f"{job}/{purpose}", [-1, -1])


def _read(path: Path) -> dict[str, list[int]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {str(key): [int(place[0]), int(place[1])] for key, place in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise HansaError(
            f"{path} cannot be read ({type(error).__name__})",
            fix="restore it; without it, a coordinator could repeat an attempt",
        ) from error
