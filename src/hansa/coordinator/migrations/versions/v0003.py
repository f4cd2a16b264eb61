"""Budgets across jobs; and chains whose links hold the hash of an entry instead of the entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from hansa.errors import StoreError

revision = "0003"
down_revision = "0002"

BATCH = 1000
"""Entries that are linked anew in one statement."""


def upgrade() -> None:
    """Makes the tables of budgets, and links every chain anew, if it is whole."""
    _tables()
    connection = op.get_bind()
    _relink(connection, "events", sa.text("SELECT seq, entry, hash FROM events ORDER BY seq"), "")
    for job in connection.execute(sa.text("SELECT DISTINCT job FROM ledger")).scalars().all():
        entries = sa.text("SELECT seq, entry, hash FROM ledger WHERE job = :job ORDER BY seq")
        _relink(connection, f"ledger/{job}", entries, job)


def _relink(connection: sa.Connection, chain: str, entries: sa.TextClause, job: str) -> None:
    """Computes the hashes of one chain as they are from now on.

    Raises:
      StoreError: the chain is broken; a new link must not hide that.
    """
    named = {"job": job} if job else {}
    table, where = ("ledger", "job = :job AND seq = :at") if job else ("events", "seq = :at")
    change = sa.text(f"UPDATE {table} SET hash = :new WHERE {where}")  # noqa: S608  # constants
    old = new = bytes(32)
    seq = 0
    for rows in _batches(connection, entries, named):
        changes = []
        for row in rows:
            content = row.entry.encode("utf-8")
            old = hashlib.sha256(old + content).digest()
            new = hashlib.sha256(new + hashlib.sha256(content).digest()).digest()
            seq += 1
            if (row.seq, row.hash) != (seq, old.hex()):
                raise _broken(chain, seq)
            changes.append({**named, "at": seq, "new": new.hex()})
        connection.execute(change, changes)
    head = sa.text("SELECT seq, hash FROM heads WHERE chain = :chain")
    found = connection.execute(head, {"chain": chain}).one_or_none()
    if (tuple(found) if found else (0, bytes(32).hex())) != (seq, old.hex()):
        raise _broken(chain, seq)
    connection.execute(
        sa.text("UPDATE heads SET hash = :new WHERE chain = :chain"),
        {"new": new.hex(), "chain": chain},
    )


def _batches(
    connection: sa.Connection, entries: sa.TextClause, named: dict[str, str]
) -> Iterator[list[sa.Row[tuple[int, str, str]]]]:
    rows = connection.execute(entries, named).all()
    yield from (list(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH))


def _broken(chain: str, seq: int) -> StoreError:
    return StoreError(
        f"the store cannot be upgraded: the chain '{chain}' is broken at entry {seq}",
        fix="find out who changed the store; restore it from a copy whose chain is whole",
    )


def _tables() -> None:
    op.create_table(
        "budget_blocks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("block_json", sa.Text(), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("committed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_budget_blocks")),
    )
    op.create_table(
        "budget_jobs",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("decided", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_budget_jobs_job")),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_budget_jobs")),
    )
    op.create_table(
        "budget_positions",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("block", sa.Text(), nullable=False),
        sa.Column("declared", sa.BigInteger(), nullable=False),
        sa.Column("left", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["block"], ["budget_blocks.name"], name=op.f("fk_budget_positions_block")
        ),
        sa.PrimaryKeyConstraint("job", "block", name=op.f("pk_budget_positions")),
    )
    op.create_table(
        "budget_entries",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("block", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("urdp", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_budget_entries")),
        sa.UniqueConstraint(
            "job",
            "purpose",
            "round",
            "attempt",
            "block",
            "kind",
            name=op.f("uq_budget_entries_job_purpose_round_attempt_block_kind"),
        ),
    )
    op.create_index(
        op.f("ix_budget_entries_block_seq"), "budget_entries", ["block", "seq"], unique=False
    )
    op.create_table(
        "budget_cosignatures",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name=op.f("fk_budget_cosignatures_site")),
        sa.PrimaryKeyConstraint("site", "seq", name=op.f("pk_budget_cosignatures")),
    )
