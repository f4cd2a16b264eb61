"""The tables of the coordinator's store.

Text columns named `*_json` and `entry` hold canonical JSON, so that what was hashed is what is
kept. Sequence numbers are given out by the chains, not by the database: a gap is a fault.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)

heads = Table(
    "heads",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("job", Text),
    Column("entry", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index(None, "job", "seq"),
)

# ------------------------------------------------------------------ who takes part

invites = Table(
    "invites",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("organisation", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("ca_fingerprint", Text, nullable=False),
    Column("used", Double),
)

sites = Table(
    "sites",
    metadata,
    Column("name", Text, primary_key=True),
    Column("organisation", Text, nullable=False),
    Column("enrolled", Double, nullable=False),
    Column("last_seen", Double),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("site", Text, ForeignKey("sites.name"), nullable=False),
    Column("not_before", Double, nullable=False),
    Column("not_after", Double, nullable=False),
    Column("public_key_sha256", Text, nullable=False),
    Index(None, "site"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("time", Double, nullable=False),
)

operators = Table(
    "operators",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    UniqueConstraint("name"),
)

# ------------------------------------------------------------------ jobs and their rounds

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("words_json", Text, nullable=False),
    Column("facts_json", Text, nullable=False),
    Column("plan_digest", Text, nullable=False),
    Column("bundle_sha256", Text, nullable=False),
    Column("bundle_signature", Text, nullable=False),
    Column("initial_sha256", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("site", Text, ForeignKey("sites.name"), primary_key=True),
    Column("accepted", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("now", Double, nullable=False),
)

states = Table(
    "states",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("server_json", Text, nullable=False),
    Column("best_json", Text, nullable=False),
    Column("stale", Integer, nullable=False),
    Column("clip_json", Text, nullable=False, server_default="null"),
    Column("accepted_json", Text, nullable=False, server_default="null"),
)

noise_keys = Table(
    "noise_keys",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("key", Text, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("cohort_json", Text, nullable=False),
    Column("opened", Double, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("closed", Double),
    Column("closed_event", BigInteger),
    Column("members_sha256", Text),
    Column("record_json", Text),
)

members = Table(
    "members",
    metadata,
    Column("job", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("client", Text, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("receipt", Text, nullable=False),
    ForeignKeyConstraint(
        ["job", "purpose", "round", "attempt"],
        ["rounds.job", "rounds.purpose", "rounds.round", "rounds.attempt"],
    ),
)

ledger = Table(
    "ledger",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("purpose", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("spends", Boolean, nullable=False),
    Column("entry", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("job", "purpose", "round", "attempt", "kind"),
)

standings = Table(
    "standings",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("client", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("standing_json", Text, nullable=False),
)

standing_scores = Table(
    "standing_scores",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("scores_json", Text, nullable=False),
)

# ------------------------------------------------------------------ budgets across jobs

budget_blocks = Table(
    "budget_blocks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("block_json", Text, nullable=False),
    Column("capacity", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("committed", BigInteger, nullable=False),
)

budget_jobs = Table(
    "budget_jobs",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("decided", Double, nullable=False),
)

budget_positions = Table(
    "budget_positions",
    metadata,
    Column("job", Text, primary_key=True),
    Column("block", Text, ForeignKey("budget_blocks.name"), primary_key=True),
    Column("declared", BigInteger, nullable=False),
    Column("left", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("settled", Boolean, nullable=False),
)

budget_entries = Table(
    "budget_entries",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("job", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("block", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("urdp", BigInteger, nullable=False),
    Column("entry", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("job", "purpose", "round", "attempt", "block", "kind"),
    Index(None, "block", "seq"),
)

budget_cosignatures = Table(
    "budget_cosignatures",
    metadata,
    Column("site", Text, ForeignKey("sites.name"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("time", Double, nullable=False),
)
