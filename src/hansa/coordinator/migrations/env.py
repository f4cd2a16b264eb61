"""Run by Alembic: applies the missing revisions over the connection that `upgrade` holds."""

from __future__ import annotations

from alembic import context

from hansa.coordinator.migrations import TABLE
from hansa.coordinator.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=TABLE,
)
with context.begin_transaction():
    context.run_migrations()
