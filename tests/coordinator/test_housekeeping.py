"""What jobs name stays; models of past rounds and forgotten uploads go."""

from __future__ import annotations

import os

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.housekeeping import EVERY, UPLOAD_SECONDS, Housekeeping
from hansa.coordinator.rows import AcceptedRow
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


def test_the_accepted_model_stays_with_its_optimizer(tmp_path):
    """What is gone back to is named by the state alone, rounds after it was the newest."""
    store, blobs = Store.open(tmp_path / "state.db"), Blobs(tmp_path / "blobs")
    try:
        store.acquire_lease("me", 30.0)
        names = ("first", "newest", "momentum", "accepted", "older momentum", "past")
        first, newest, moving, accepted, older, past = (blobs.put(n.encode()) for n in names)
        store_rows.start(store, initial_sha256=first, bundle_sha256=first)
        begun = store_rows.opening(0, model=first)
        store.open_round("j1", begun, 20.0)
        done = store_rows.record(begun, model=newest)
        row = store_rows.state(
            done,
            server_sha256s=(moving,),
            accepted=AcceptedRow(0, first, (older,), None),
        )
        store.close_round("j1", done, row, 21.0)
        again = store_rows.opening(1, model=newest)
        store.open_round("j1", again, 22.0)
        done = store_rows.record(again, model=accepted)
        judged = AcceptedRow(1, newest, (moving,), None)
        after = store_rows.state(done, server_sha256s=(older,), accepted=judged)
        store.close_round("j1", done, after, 23.0)
        age(blobs, 1_000_000.0 - 2 * EVERY)
        Housekeeping(store, blobs, lambda: 1_000_000.0).sweep()
        assert left(blobs) == {first, newest, moving, accepted, older}
        assert past not in left(blobs)
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
