"""What private jobs remember between rounds: the clip norm, and the key of correlated noise."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds a column to the states, whose jobs have no adaptive clip, and a table."""
    op.add_column(
        "states", sa.Column("clip_json", sa.Text(), nullable=False, server_default="null")
    )
    op.create_table(
        "noise_keys",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_noise_keys_job")),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_noise_keys")),
    )
