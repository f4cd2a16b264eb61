"""Opening a store: fast, private, with the schema that the code knows, or refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from hansa.coordinator import migrations
from hansa.coordinator.schema import metadata
from hansa.coordinator.store import Store
from hansa.errors import MissingExtra, StoreError
from tests.support import store_rows as rows


def test_migrations_make_exactly_the_schema(place):
    with place.open() as store:

        def differences(connection):
            context = MigrationContext.configure(
                connection,
                opts={
                    "version_table": migrations.TABLE,
                    "compare_type": True,
                    "compare_server_default": True,
                },
            )
            return compare_metadata(context, metadata)

        assert store.database.read(differences) == []


def test_the_revisions_named_are_the_revisions_shipped():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    shipped = [script.revision for script in scripts.walk_revisions("base", "heads")]
    assert tuple(reversed(shipped)) == migrations.REVISIONS


def test_a_store_of_an_unknown_revision_is_refused_and_not_touched(place):
    with place.open() as store:
        change = text(f"UPDATE {migrations.TABLE} SET version_num = '9999'")
        store.database.write(lambda c: (c.execute(change), None)[1])
    try:
        with pytest.raises(StoreError, match=r"'9999'.*knows '0001'") as caught:
            place.open()
        assert "upgrade Hansa" in caught.value.fix
    finally:
        if place.kind == "postgres":  # the next test uses the same database
            restore(place.url)


def restore(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {migrations.TABLE} SET version_num = '{migrations.REVISIONS[-1]}'")
        )
    engine.dispose()


FAST = """
    import sys, time
    from hansa.coordinator.store import Store
    began = time.perf_counter()
    with Store.open(sys.argv[1]) as store:
        print(time.perf_counter() - began, "alembic" in sys.modules, len(store.jobs()))
"""


def test_opening_a_store_of_the_newest_revision_is_fast_and_needs_no_alembic(migrated_file):
    script = textwrap.dedent(FAST)
    times = []
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", script, str(migrated_file)],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, alembic, jobs = run.stdout.split()
        assert (alembic, jobs) == ("False", "0")
        times.append(float(seconds))
    assert min(times) < 0.4


def test_every_connection_to_sqlite_waits_for_the_disk(tmp_path):
    with Store.open(tmp_path / "store.db") as store:
        for _ in range(2):
            with store.database.engine.connect() as one, store.database.engine.connect() as two:
                for connection in (one, two):
                    asked = [
                        connection.scalar(text(f"PRAGMA {name}"))
                        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                    ]
                    assert asked == ["wal", 2, 1, 15_000]


def test_a_store_is_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        path = tmp_path / "new" / "store.db"
        with Store.open(path) as store:
            store.acquire_lease("me", 1.0)
            store.add_job(rows.job())
            modes = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert set(modes) == {"store.db", "store.db-wal", "store.db-shm", "store.db.lock"}
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", ["str", "path", "url"])
def test_a_sqlite_store_is_named_by_path_or_url(tmp_path, where):
    path = tmp_path / "a b%.db"
    name = {"str": str(path), "path": path, "url": f"sqlite:///{path}".replace("%", "%25")}[where]
    with Store.open(name) as store:
        store.add_job(rows.job())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM jobs").fetchall() == [("j1",)]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "://"])
def test_a_store_that_could_not_last_is_refused(url):
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_said_without_its_password():
    with pytest.raises(StoreError) as caught:
        Store.open("postgresql://hansa:secret@127.0.0.1:1/hansa")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "database runs" in caught.value.fix


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"hansa\[postgres\]"):
        Store.open("postgresql://127.0.0.1:1/hansa")


def test_a_file_that_is_no_store_says_so(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"this is a text and no database" * 100)
    with pytest.raises(StoreError, match="not a database") as caught:
        Store.open(path)
    assert "backup" in caught.value.fix


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path):
    with Store.open(tmp_path / "store.db") as store:
        pages = store.database.read(lambda c: c.scalar(text("PRAGMA page_count")))

        def fill(connection):
            connection.execute(text(f"PRAGMA max_page_count = {pages + 4}"))
            for number in range(2000):
                connection.execute(
                    text("INSERT INTO heads VALUES (:c, 1, 'x')"), {"c": f"{number:0>100}"}
                )

        with pytest.raises(StoreError, match="full") as caught:
            store.database.write(fill)
        assert "disk space" in caught.value.fix
        assert store.database.read(lambda c: c.scalar(text("SELECT count(*) FROM heads"))) == 0


def test_a_writer_that_keeps_the_store_locked_is_waited_for_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.coordinator.database.BUSY", 0.2)
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            store.add_job(rows.job())
        assert time.monotonic() - began > 0.15
        assert store.jobs() == []  # readers wait for nobody
        other.execute("ROLLBACK")
        other.close()
        store.add_job(rows.job())


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_conflicts_are_repeated_a_bounded_number_of_times(place, monkeypatch):
    monkeypatch.setattr("hansa.coordinator.database.RETRIES", 3)
    with place.open() as store, place.open() as rival:
        store.append_event(None, "first", {}, 1.0)
        times = []

        def step(connection):
            times.append(connection.scalar(text("SELECT seq FROM heads")))
            rival.append_event(None, "rival", {}, 1.0)
            connection.execute(text("UPDATE heads SET seq = seq"))

        with pytest.raises(StoreError, match="3 times in a row"):
            store.database.write(step)
        assert times == [1, 2, 3]  # each try saw what the rival had written
        assert store.verify_events().seq == 4


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_lost_server_is_an_error_and_then_forgotten(place):
    with place.open() as store:
        end = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        def step(connection):
            with place.open() as other:
                other.database.read(lambda c: c.execute(end).all())
            connection.execute(text("SELECT 1"))

        with pytest.raises(StoreError):
            store.database.write(step)
        store.add_job(rows.job())
        assert store.jobs() == [rows.job()]
