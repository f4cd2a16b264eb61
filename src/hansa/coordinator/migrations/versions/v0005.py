"""The model that a job goes back to if the newest one is rejected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds it to the state that the next round starts from; jobs under way judge no models."""
    op.add_column(
        "states", sa.Column("accepted_json", sa.Text(), nullable=False, server_default="null")
    )
