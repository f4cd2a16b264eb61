"""Where clients stand, and the scores that it follows from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "standings",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("standing_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_standings_job")),
        sa.PrimaryKeyConstraint("job", "client", name=op.f("pk_standings")),
    )
    op.create_table(
        "standing_scores",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scores_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_standing_scores_job")),
        sa.PrimaryKeyConstraint("job", "round", "attempt", name=op.f("pk_standing_scores")),
    )
