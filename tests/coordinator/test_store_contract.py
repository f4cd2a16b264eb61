"""The store's contract, on SQLite and on PostgreSQL: opening, lease, sites, jobs, audit trail."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import delete, update

from hansa.coordinator import schema
from hansa.coordinator.rows import TRANSITIONS, Certificate, Decision, Operator, SiteRow, Status
from hansa.coordinator.store import Store
from hansa.errors import DigestMismatch, IdentityError, StoreError
from tests.support import store_rows as rows
from tests.support.store_rows import invite, job, name_of

# ------------------------------------------------------------------ opening and the lease


def test_what_was_written_is_there_after_opening_again(place):
    with place.open() as store:
        store.add_invite(invite())
        store.add_job(job())
    with place.open() as store:
        assert store.invites() == [invite()]
        assert store.jobs() == [job()]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_many_openers_of_a_new_store_make_it_once(kind, tmp_path, request):
    if kind == "sqlite":
        url = str(tmp_path / "new" / "store.db")
    else:
        server = request.getfixturevalue("postgres")
        url = server.url(server.create())

    def open_and_write(number: int) -> None:
        with Store.open(url) as store:
            store.append_event(None, "opened", {"by": number}, 1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_write, range(8)))
    with Store.open(url) as store:
        assert {e.body["by"] for e in store.events()} == set(range(8))


def test_a_new_store_waits_for_whoever_else_makes_it(tmp_path):
    """SQLite refuses at once to switch to its write-ahead log while another one has the lock."""
    path = tmp_path / "store.db"
    with (
        ThreadPoolExecutor(1) as pool,
        contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        opening = pool.submit(Store.open, str(path))
        time.sleep(0.5)
        assert not opening.done(), opening.exception()
        other.rollback()
        with opening.result(10) as store:
            assert not store.jobs()


def test_a_second_coordinator_is_refused_by_the_name_of_the_first(place):
    with place.open() as first, place.open() as second:
        assert first.acquire_lease("coordinator of lübeck", 30.0).epoch == 1
        with pytest.raises(StoreError, match="coordinator of lübeck"):
            second.acquire_lease("another", 30.0)
        second.add_invite(invite())  # a tool beside the coordinator may write
        first.close()
        assert second.acquire_lease("another", 30.0).epoch == 2


def test_rounds_need_the_lease(place):
    with place.open() as store:
        rows.start(store)
        with pytest.raises(StoreError, match="acquire_lease"):
            store.open_round("j1", rows.opening(), 20.0)


def test_an_overtaken_coordinator_writes_nothing_more(place):
    with place.open(lead=True) as old:
        rows.start(old)
        begun = old.open_round("j1", rows.opening(), 20.0)
        # What is left when a lock was lost without notice: somebody else has the next epoch.
        old.database.write(lambda c: c.execute(update(schema.lease).values(epoch=2)))
        head = old.events_head()
        late: Callable[[], object]
        for late in (
            lambda: old.commit_fold("j1", begun, rows.fold(1, "kiel")),
            lambda: old.set_status("j1", Status.FAILED, "", 30.0),
            lambda: old.append_event(None, "late", {}, 30.0),
        ):
            with pytest.raises(StoreError, match="taken this store over"):
                late()
        assert old.events_head() == head


def test_the_lease_of_one_store_is_asked_for_once(place):
    with place.open() as store:
        assert store.acquire_lease("me", 30.0) == store.acquire_lease("me", 30.0)


# ------------------------------------------------------------------ sites


def test_an_invite_enrols_its_site_once(store):
    store.add_invite(invite())
    assert store.burn_invite(invite().token_hash, 150.0) == replace(invite(), used=150.0)
    assert store.sites() == [SiteRow("kiel", "Uni Kiel", 150.0, None, None)]
    with pytest.raises(IdentityError, match="used"):
        store.burn_invite(invite().token_hash, 151.0)
    assert store.invites() == [replace(invite(), used=150.0)]


def test_an_unknown_invite_is_refused(store):
    with pytest.raises(IdentityError, match="unknown"):
        store.burn_invite(name_of("guess"), 150.0)


@pytest.mark.parametrize(("now", "good"), [(199.999, True), (200.0, False), (1e9, False)])
def test_an_invite_is_good_until_it_expires(store, now, good):
    store.add_invite(invite())
    if good:
        store.burn_invite(invite().token_hash, now)
        return
    with pytest.raises(IdentityError, match="expired"):
        store.burn_invite(invite().token_hash, now)
    assert store.sites() == []
    assert store.invites() == [invite()]


def test_of_many_who_burn_an_invite_at_once_one_wins(place):
    with place.open() as one, place.open() as other:
        one.add_invite(invite())
        barrier = threading.Barrier(16)

        def burn(store: Store) -> str:
            barrier.wait(10)
            try:
                store.burn_invite(invite().token_hash, 150.0)
            except IdentityError as error:
                return str(error)
            return "won"

        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(burn, [one, other] * 8))
        assert said.count("won") == 1
        assert all("used" in words for words in said if words != "won")
        assert [e.kind for e in one.events()].count("site.enrolled") == 1


def test_a_token_is_never_taken_for_two_invites(store):
    store.add_invite(invite())
    with pytest.raises(StoreError, match="exists already"):
        store.add_invite(replace(invite(), site="lund"))


def test_a_site_that_enrols_again_keeps_its_first_time(store):
    for token, when in (("a", 110.0), ("b", 120.0)):
        store.add_invite(invite(token_hash=name_of(token), organisation=f"Org {token}"))
        store.burn_invite(name_of(token), when)
    assert store.sites() == [SiteRow("kiel", "Org b", 110.0, None, None)]


def enrol(store: Store, *names: str) -> None:
    for name in names:
        store.add_invite(invite(name))
        store.burn_invite(invite(name).token_hash, 150.0)


def certificate(serial: str = "1f", site: str = "kiel") -> Certificate:
    return Certificate(serial, site, 100.0, 100.0 + 86400.0, name_of("key", serial))


def test_certificates_are_kept_by_site(store):
    enrol(store, "kiel", "lund")
    for row in (certificate(), certificate("20"), certificate("21", "lund"), certificate()):
        store.add_certificate(row)
    assert store.certificates("kiel") == [certificate(), certificate("20")]
    assert store.certificates("lund") == [certificate("21", "lund")]
    with pytest.raises(StoreError, match="something else"):
        store.add_certificate(replace(certificate(), not_after=1e12))
    with pytest.raises(IdentityError, match="not enrolled"):
        store.add_certificate(certificate("22", "riga"))


def test_a_revoked_site_gets_nothing_more(store):
    enrol(store, "kiel")
    store.add_invite(invite(token_hash=name_of("pending")))
    store.revoke(site="kiel", reason="left the federation", now=160.0)
    assert store.revocations().sites == {"kiel"}
    assert store.sites()[0].revoked == 160.0
    attempt: Callable[[], object]
    for attempt in (
        lambda: store.add_certificate(certificate()),
        lambda: store.burn_invite(name_of("pending"), 161.0),
        lambda: store.add_invite(invite(token_hash=name_of("new"))),
    ):
        with pytest.raises(IdentityError, match="revoked"):
            attempt()


def test_revoking_twice_keeps_the_first_time(store):
    enrol(store, "kiel")
    store.add_certificate(certificate())
    for now in (160.0, 170.0):
        store.revoke(site="kiel", serial="1f", reason="lost key", now=now)
    assert store.revocations().serials == {"1f"}
    assert store.sites()[0].revoked == 160.0
    assert [e.kind for e in store.events()][-2:] == ["site.revoked", "serial.revoked"]


def test_a_mistyped_name_does_not_look_revoked(store):
    enrol(store, "kiel")
    with pytest.raises(IdentityError, match="'keil'"):
        store.revoke(site="keil", reason="", now=1.0)
    with pytest.raises(IdentityError, match="serial"):
        store.revoke(serial="ff", reason="", now=1.0)
    assert store.revocations().sites == store.revocations().serials == frozenset()


def test_an_invited_site_can_be_revoked_before_it_comes(store):
    store.add_invite(invite())
    store.revoke(site="kiel", reason="sent to the wrong person", now=110.0)
    with pytest.raises(IdentityError, match="revoked"):
        store.burn_invite(invite().token_hash, 120.0)


def test_sites_are_seen(store):
    enrol(store, "kiel")
    store.seen("kiel", 170.5)
    assert store.sites()[0].last_seen == 170.5
    with pytest.raises(IdentityError, match="not enrolled"):
        store.seen("lund", 171.0)


def test_operators_have_one_token_each(store):
    store.add_operator("ada", "admin", name_of("t1"))
    store.add_operator("bob", "auditor", name_of("t2"))
    assert store.operator(name_of("t1")) == Operator("ada", "admin")
    assert store.operator(name_of("t3")) is None
    for name, token in (("ada", "t4"), ("eve", "t1")):
        with pytest.raises(IdentityError, match="already"):
            store.add_operator(name, "admin", name_of(token))
    store.remove_operator("ada")
    assert store.operator(name_of("t1")) is None
    assert store.operators() == [Operator("bob", "auditor")]
    with pytest.raises(IdentityError, match="no operator 'ada'"):
        store.remove_operator("ada")


# ------------------------------------------------------------------ jobs


def test_a_job_is_kept_as_it_was_submitted(store):
    store.add_job(job())
    store.add_job(job())
    assert store.job("j1") == job()
    assert [e.kind for e in store.events("j1")] == ["job.submitted"]
    with pytest.raises(StoreError, match="another job"):
        store.add_job(job(name="other"))
    with pytest.raises(StoreError, match="no job 'j2'"):
        store.job("j2")
    with pytest.raises(StoreError, match="cannot be 'running'"):
        store.add_job(job("j3", status=Status.RUNNING))


def test_jobs_come_oldest_first(store):
    for identifier, created in (("c", 3.0), ("a", 5.0), ("b", 3.0)):
        store.add_job(job(identifier, created=created))
    assert [row.id for row in store.jobs()] == ["b", "c", "a"]


PATHS = {
    Status.SUBMITTED: [],
    Status.OFFERED: [Status.OFFERED],
    Status.RUNNING: [Status.OFFERED, Status.RUNNING],
    **{s: [Status.OFFERED, Status.RUNNING, s] for s in Status if not TRANSITIONS[s]},
}


def test_a_job_moves_along_its_life_and_nowhere_else(store):
    allowed = {(a, b) for a in Status for b in Status if b in TRANSITIONS[a]}
    assert (Status.RUNNING, Status.RUNNING) in allowed  # a restart
    assert not any(a.final for a, _ in allowed)
    for number, (before, after) in enumerate((a, b) for a in Status for b in Status):
        identifier = f"j{number}"
        store.add_job(job(identifier))
        for step in PATHS[before]:
            store.set_status(identifier, step, "", 20.0)
        seen = len(store.events(identifier))
        if (before, after) in allowed:
            store.set_status(identifier, after, "why", 30.0)
            assert store.job(identifier).status is after
            assert store.job(identifier).reason == "why"
            assert store.events(identifier)[seen].body == {
                "from": before.value,
                "to": after.value,
                "reason": "why",
            }
        else:
            with pytest.raises(StoreError, match="cannot become"):
                store.set_status(identifier, after, "why", 30.0)
            assert store.job(identifier).status is before
            assert len(store.events(identifier)) == seen


def test_decisions_hold_the_last_word_and_the_trail_holds_all(store):
    enrol(store, "kiel", "lund")
    store.add_job(job())
    digest = job().plan_digest
    yes = Decision("j1", "kiel", accepted=True, reason="", digest=digest, now=20.0)
    no = Decision("j1", "lund", accepted=False, reason="no consent", digest=digest, now=21.0)
    store.decide(no)
    store.decide(yes)
    store.decide(replace(yes, now=25.0))  # says it again after a reconnect
    assert store.decisions("j1") == [yes, no]
    changed = replace(yes, accepted=False, reason="withdrawn", now=30.0)
    store.decide(changed)
    assert store.decisions("j1") == [changed, no]
    said = [e.body["accepted"] for e in store.events("j1") if e.kind == "job.decided"]
    assert said == [False, True, False]


def test_a_site_cannot_accept_another_plan(store):
    enrol(store, "kiel")
    store.add_job(job())
    other = Decision("j1", "kiel", accepted=True, reason="", digest=name_of("x"), now=20.0)
    with pytest.raises(DigestMismatch, match="another plan"):
        store.decide(other)
    store.decide(replace(other, accepted=False))
    assert not store.decisions("j1")[0].accepted


def test_only_enrolled_sites_decide_on_known_jobs(store):
    enrol(store, "kiel")
    store.add_job(job())
    refusal = Decision("j1", "kiel", accepted=False, reason="", digest="", now=20.0)
    for wrong in (replace(refusal, site="lund"), replace(refusal, job="j9")):
        with pytest.raises(StoreError):
            store.decide(wrong)
    assert store.decisions("j1") == []


def test_words_of_others_are_kept_whatever_they_hold(store):
    enrol(store, "kiel")
    store.add_job(job())
    words = "Nein: \0 'Daten' \\ \" % {} ☃ \U0001f40d\n"
    store.decide(Decision("j1", "kiel", accepted=False, reason=words, digest="", now=20.0))
    assert store.decisions("j1")[0].reason == words.replace("\0", "\N{REPLACEMENT CHARACTER}")
    store.set_status("j1", Status.FAILED, words, 21.0)
    store.verify_events()


# ------------------------------------------------------------------ the audit trail


def test_events_come_in_order_by_job_and_from_a_place(store):
    for number in range(4):
        store.append_event("j1" if number % 2 else None, f"kind.{number}", {"n": number}, 10.5)
    every = store.events()
    assert [e.seq for e in every] == [1, 2, 3, 4]
    assert [e.body for e in every] == [{"n": n} for n in range(4)]
    assert store.events("j1") == [every[1], every[3]]
    assert store.events(after=2) == every[2:]
    assert store.events("j1", after=2) == [every[3]]
    assert every[0].time == 10.5
    assert store.verify_events() == store.events_head()
    assert store.events_head().hash == every[3].hash


def test_an_event_that_cannot_be_written_down_is_none(store):
    with pytest.raises(ValueError, match="NaN"):
        store.append_event(None, "bad", {"x": math.nan}, 1.0)
    assert store.events() == []


def test_many_threads_share_one_chain(store):
    with ThreadPoolExecutor(16) as pool:
        places = list(pool.map(lambda n: store.append_event(None, "n", {"n": n}, 1.0), range(64)))
    assert sorted(places) == list(range(1, 65))
    assert store.verify_events().seq == 64


def tampered(store: Store) -> dict[str, object]:
    """Ways to change a trail of five events behind the store's back."""
    table, entry = schema.events, store.events()[2]
    here = table.c.seq == 3
    return {
        "text": update(table).where(here).values(entry="{}"),
        "hash": update(table).where(here).values(hash=name_of("x")),
        "column": update(table).where(here).values(job="j2"),
        "removed": delete(table).where(here),
        "tail": delete(table).where(table.c.seq == 5),
        "moved": update(table).where(here).values(seq=7),
        "head": update(schema.heads).values(hash=entry.hash, seq=3),
    }


@pytest.mark.parametrize(
    "how", ["text", "hash", "column", "removed", "tail", "moved", "head", "rewritten"]
)
def test_a_changed_trail_is_noticed(store, how):
    for number in range(5):
        store.append_event("j1", "kind", {"n": number}, 1.0)
    seen = store.events_head()
    store.verify_events(seen)
    if how == "rewritten":  # a whole new chain that is right in itself
        store.database.write(lambda c: (c.execute(delete(schema.events)), None)[1])
        store.database.write(lambda c: (c.execute(delete(schema.heads)), None)[1])
        for number in range(5):
            store.append_event("j1", "kind", {"n": -number}, 1.0)
        store.verify_events()
    else:
        store.database.write(lambda c: (c.execute(tampered(store)[how]), None)[1])
    with pytest.raises(StoreError, match="broken"):
        store.verify_events(seen)


def test_a_trail_that_was_set_back_is_noticed_by_who_saw_it(store):
    table = schema.events
    for number in range(4):
        store.append_event(None, "kind", {"n": number}, 1.0)
    old = store.events_head()
    store.append_event(None, "kind", {"n": 4}, 1.0)
    seen = store.events_head()
    store.database.write(lambda c: (c.execute(delete(table).where(table.c.seq == 5)), None)[1])
    store.database.write(
        lambda c: (c.execute(update(schema.heads).values(seq=old.seq, hash=old.hash)), None)[1]
    )
    assert store.verify_events(old) == old
    with pytest.raises(StoreError, match="was seen with 5"):
        store.verify_events(seen)
