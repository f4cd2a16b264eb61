"""Versions of the store's schema: brings a store of any known revision to the newest.

A new revision is a file in `versions/`, its name appended to `REVISIONS`. Alembic is imported only
when there is something to do, so that opening a store of the newest revision stays fast.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from hansa.coordinator.database import Database
from hansa.errors import StoreError

TABLE = "hansa_revision"
"""Where a store keeps its revision; named so that other programs' revisions are never read."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""All revisions, oldest first."""


def revision(connection: Connection) -> str | None:
    """The revision of a store; None if it is empty."""
    if not inspect(connection).has_table(TABLE):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {TABLE}"))  # noqa: S608  # a constant
    return found


def upgrade(database: Database) -> None:
    """Brings the store to the newest revision, in one transaction; two at once do it once.

    Raises:
      StoreError: the store is of a revision that this version does not know.
    """
    found = database.read(revision)
    if found == REVISIONS[-1]:
        return
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"the store has revision '{found}', this version of Hansa knows '{REVISIONS[0]}' to "
            f"'{REVISIONS[-1]}'",
            fix="upgrade Hansa to the version that last used the store",
        )
    with database.upgrading() as connection:
        _run(connection)


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
