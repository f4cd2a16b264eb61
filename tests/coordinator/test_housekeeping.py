"""What jobs name stays; models of past rounds and forgotten uploads go."""

from __future__ import annotations

import os

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.housekeeping import EVERY, UPLOAD_SECONDS, Housekeeping
from hansa.coordinator.store import Store
from tests.support import store_rows


def test_what_a_job_names_stays_and_the_rest_goes(tmp_path):
    store, blobs = Store.open(tmp_path / "state.db"), Blobs(tmp_path / "blobs")
    now = [1_000_000.0]
    keeper = Housekeeping(store, blobs, lambda: now[0])
    try:
        code, first, past, upload = (blobs.put(x) for x in (b"code", b"first", b"past", b"upload"))
        job = store_rows.job("heart-1", bundle_sha256=code, initial_sha256=first)
        store.add_job(job)
        keeper.uploaded(upload)
        age(blobs, now[0] - 2 * EVERY)
        keeper.sweep()
        assert left(blobs) == {code, first, upload}
        assert past not in left(blobs)
        now[0] += UPLOAD_SECONDS + 1
        keeper.sweep()
        assert left(blobs) == {code, first}
    finally:
        store.close()


def test_a_blob_that_no_row_names_yet_stays_for_a_while(tmp_path):
    store, blobs = Store.open(tmp_path / "state.db"), Blobs(tmp_path / "blobs")
    try:
        name = blobs.put(b"a model whose row is being written")
        age(blobs, 1_000_000.0 - EVERY / 2)
        Housekeeping(store, blobs, lambda: 1_000_000.0).sweep()
        assert left(blobs) == {name}
    finally:
        store.close()


def age(blobs: Blobs, moment: float) -> None:
    for path in blobs.folder.iterdir():
        os.utime(path, (moment, moment))


def left(blobs: Blobs) -> set[str]:
    return {path.name for path in blobs.folder.iterdir()}
