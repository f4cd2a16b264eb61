"""Deletes what no job needs any more: models of rounds that are past, uploads nobody submitted.

Every round leaves a model. What stays is what a row names: of each job the first parameters, the
bundle, the newest model and the last accepted one, each with the server optimizer's vectors.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.store import Store
from hansa.errors import StoreError

EVERY = 30.0
"""Seconds between two sweeps; also how long a blob may lie before a row names it."""

UPLOAD_SECONDS = 3600.0
"""How long an upload waits for the submission that names it."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Sweeps the blobs now and then. Thread-safe."""

    def __init__(self, store: Store, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._lock = threading.Lock()
        self._uploads: dict[str, float] = {}
        self._swept = 0.0

    def uploaded(self, name: str) -> None:
        """A blob came that a submission will name."""
        with self._lock:
            self._uploads[name] = self._clock()

    def sweep(self) -> None:
        """Deletes what is not needed, unless it was done just now; failures are only logged."""
        now = self._clock()
        with self._lock:
            if now - self._swept < EVERY:
                return
            self._swept = now
            self._uploads = {n: t for n, t in self._uploads.items() if now - t < UPLOAD_SECONDS}
            uploads = frozenset(self._uploads)
        try:
            gone = self._blobs.sweep(uploads.union(self._named()), now - EVERY)
        except StoreError as error:
            _log.warning("nothing was tidied up: %s", error)
        else:
            _log.info("%d blobs that no job needs were deleted", len(gone))

    def _named(self) -> Iterator[str]:
        for job in self._store.jobs():
            yield job.bundle_sha256
            yield job.initial_sha256
            state = self._store.state(job.id)
            if state is not None:
                yield state.model_sha256
                yield from state.server_sha256s
            if state is not None and state.accepted is not None:
                yield state.accepted.model_sha256
                yield from state.accepted.server_sha256s
