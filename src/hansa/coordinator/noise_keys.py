"""The secret keys of correlated noise: one for each job that needs it, for as long as it runs.

The noise of a round is taken back in part by the rounds that follow, so it must be known to them,
also after a crash. All of it derives from one key (`core.keys.SecretNoise`), which is kept beside
the rounds and removed when the job ends: afterwards nobody can compute the noise again.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from hansa.coordinator import schema
from hansa.coordinator.database import Database
from hansa.core.keys import SecretNoise
from hansa.errors import HansaError


def noise_of(database: Database, job: str, *, begun: bool) -> SecretNoise:
    """The noise of a job; a new key if it has none yet.

    Args:
      database: where keys are.
      job: identifier of the job.
      begun: whether a round of the job has been released already.

    Raises:
      HansaError: rounds were released under a key that is lost; trying again would not help.
    """
    table = schema.noise_keys

    def step(connection: Connection) -> SecretNoise:
        found = connection.scalar(select(table.c.key).where(table.c.job == job))
        if found is not None:
            return SecretNoise(bytes.fromhex(found))
        if begun:
            raise HansaError(
                f"the noise of job '{job}' is lost: its rounds cannot go on with other noise",
                fix="submit the job again; what it has released stays as private as it was",
            )
        fresh = SecretNoise.fresh()
        connection.execute(insert(table).values(job=job, key=fresh.key.hex()))
        return fresh

    return database.write(step, leased=True)


def forget(database: Database, job: str) -> None:
    """Removes the key of a job that has ended."""
    table = schema.noise_keys

    def step(connection: Connection) -> None:
        connection.execute(delete(table).where(table.c.job == job))

    database.write(step, leased=True)
