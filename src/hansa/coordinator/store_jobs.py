"""Jobs: what was submitted, what the sites said to it, and where it is in its life."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import Connection, RowMapping, insert, select, update

from hansa.coordinator import schema
from hansa.coordinator.budget_book import StoredBook
from hansa.coordinator.rows import TRANSITIONS, Decision, JobRow, Status
from hansa.coordinator.store_events import Subject, append, storable
from hansa.errors import DigestMismatch, StoreError


class Jobs(Subject):
    """Jobs and decisions."""

    def add_job(self, job: JobRow) -> None:
        """Keeps a submitted job; keeping it twice changes nothing.

        Raises:
          StoreError: the identifier belongs to another job, or the job is not just submitted.
        """
        if job.status != Status.SUBMITTED:
            raise StoreError(
                f"a new job cannot be '{job.status}'", fix="add it as submitted and set its status"
            )

        def step(connection: Connection) -> None:
            known = find(connection, job.id)
            if known is not None:
                if known != job:
                    raise StoreError(
                        f"there is another job with the identifier '{job.id}'",
                        fix="submit the job under a new identifier",
                    )
                return
            connection.execute(insert(schema.jobs).values(**asdict(job)))
            body = {"name": job.name, "plan_digest": job.plan_digest}
            append(connection, job.id, "job.submitted", body, job.created)

        self.database.write(step)

    def job(self, job: str) -> JobRow:
        """One job.

        Raises:
          StoreError: there is none.
        """
        return self.database.read(lambda c: get(c, job))

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first."""
        query = select(schema.jobs).order_by(schema.jobs.c.created, schema.jobs.c.id)
        return self.database.read(lambda c: [_row(row) for row in c.execute(query).mappings()])

    def set_status(self, job: str, status: Status, reason: str, now: float) -> None:
        """Moves a job on in its life; see `TRANSITIONS`.

        A job that ends without being done gives up the round that is open. One that ends gives
        back what it set aside of privacy budgets and never drew.

        Raises:
          StoreError: the job cannot get there from where it is, or is done with a round open.
        """

        def step(connection: Connection) -> None:
            before, after = get(connection, job).status, Status(status)
            if after not in TRANSITIONS[before]:
                raise StoreError(
                    f"job '{job}' is {before} and cannot become {after}",
                    fix=_next_words(before),
                )
            if after.final:
                _end_rounds(connection, job, done=after is Status.DONE)
                book = StoredBook(connection)
                book.settle(job, now)
                book.flush()
            change = update(schema.jobs).where(schema.jobs.c.id == job)
            connection.execute(change.values(status=after, reason=storable(reason)))
            body = {"from": before, "to": after, "reason": storable(reason)}
            append(connection, job, "job.status", body, now)

        self.database.write(step)

    def decide(self, decision: Decision) -> None:
        """Keeps what a site said to a job; the last word counts, the trail holds all of them.

        Raises:
          DigestMismatch: the site accepted another plan than the job's.
          StoreError: there is no such job, or no such site is enrolled.
        """
        decision = replace(decision, reason=storable(decision.reason))

        def step(connection: Connection) -> None:
            if decision.accepted and decision.digest != get(connection, decision.job).plan_digest:
                raise DigestMismatch(
                    f"site '{decision.site}' accepted another plan than that of job "
                    f"'{decision.job}'",
                    fix="let the site compile the job again with the coordinator's version",
                )
            table = schema.decisions
            here = (table.c.job == decision.job) & (table.c.site == decision.site)
            row = connection.execute(select(table).where(here)).mappings().one_or_none()
            if row is None:
                connection.execute(insert(table).values(**asdict(decision)))
            elif _same(Decision(**row), decision):
                return
            else:
                connection.execute(update(table).where(here).values(**asdict(decision)))
            body = {
                "site": decision.site,
                "accepted": decision.accepted,
                "reason": decision.reason,
                "digest": decision.digest,
            }
            append(connection, decision.job, "job.decided", body, decision.now)

        self.database.write(step)

    def decisions(self, job: str) -> list[Decision]:
        """The last word of each site on a job, by the site's name."""
        table = schema.decisions
        query = select(table).where(table.c.job == job).order_by(table.c.site)
        return self.database.read(
            lambda c: [Decision(**row) for row in c.execute(query).mappings()]
        )


def find(connection: Connection, job: str) -> JobRow | None:
    """The job of that identifier, if there is one."""
    query = select(schema.jobs).where(schema.jobs.c.id == job)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _row(row)


def get(connection: Connection, job: str) -> JobRow:
    """The job of that identifier.

    Raises:
      StoreError: there is none.
    """
    row = find(connection, job)
    if row is None:
        raise StoreError(f"there is no job '{job}'", fix="see `hansa jobs` for the identifiers")
    return row


def get_running(connection: Connection, job: str) -> JobRow:
    """The job of that identifier, which runs.

    Raises:
      StoreError: there is none, or it does not run.
    """
    row = get(connection, job)
    if row.status is not Status.RUNNING:
        raise StoreError(
            f"job '{job}' is {row.status}, so that no round of it can go on",
            fix=_next_words(row.status),
        )
    return row


def _row(row: RowMapping) -> JobRow:
    return JobRow(**{**dict(row), "status": Status(row["status"])})


def _next_words(status: Status) -> str:
    if status.final:
        return "submit the job again"
    return f"a job that is {status} can become {', '.join(sorted(TRANSITIONS[status]))}"


def _same(one: Decision, other: Decision) -> bool:
    """Whether a site only repeats itself, as it does after a reconnect."""
    return (one.accepted, one.reason, one.digest) == (other.accepted, other.reason, other.digest)


def _end_rounds(connection: Connection, job: str, *, done: bool) -> None:
    table = schema.rounds
    is_open = (table.c.job == job) & (table.c.status == "open")
    if done and connection.execute(select(table.c.round).where(is_open)).first() is not None:
        raise StoreError(
            f"job '{job}' cannot be done while a round of it is open", fix="close the round first"
        )
    connection.execute(update(table).where(is_open).values(status="abandoned"))
