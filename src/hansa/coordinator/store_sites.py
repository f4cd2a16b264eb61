"""Who takes part: invites, sites, certificates, revocations, and operators at the people's door."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import Connection, delete, exists, insert, select, update

from hansa.coordinator import schema
from hansa.coordinator.rows import (
    Certificate,
    Invite,
    Operator,
    Revocations,
    SiteRow,
)
from hansa.coordinator.store_events import Subject, append, storable
from hansa.errors import IdentityError, StoreError

_NEW_INVITE = "ask the federation's admin for a new invite"


class Sites(Subject):
    """The federation's members and what they may show."""

    def add_invite(self, invite: Invite) -> None:
        """Keeps an invite.

        Raises:
          IdentityError: the site was revoked.
          StoreError: the token was used for another invite.
        """

        def step(connection: Connection) -> None:
            _check_welcome(connection, invite.site)
            known = schema.invites.c.token_hash == invite.token_hash
            if connection.scalar(select(exists().where(known))):
                raise StoreError("this invite exists already", fix="make a new token")
            connection.execute(insert(schema.invites).values(**asdict(invite)))
            body = {"site": invite.site, "organisation": invite.organisation, "role": invite.role}
            append(connection, None, "invite.added", body, invite.created)

        self.database.write(step)

    def burn_invite(self, token_hash: str, now: float) -> Invite:
        """Uses an invite up and enrols its site; of many callers at once one succeeds.

        Raises:
          IdentityError: the invite is unknown, used or expired, or its site was revoked.
        """

        def step(connection: Connection) -> Invite:
            invite = _good(connection, token_hash, now)
            burn = update(schema.invites).where(
                schema.invites.c.token_hash == token_hash, schema.invites.c.used.is_(None)
            )
            if connection.execute(burn.values(used=now)).rowcount != 1:
                raise _used(invite)
            _enrol(connection, invite, now)
            body = {"site": invite.site, "organisation": invite.organisation, "role": invite.role}
            append(connection, None, "site.enrolled", body, now)
            return replace(invite, used=now)

        return self.database.write(step)

    def invites(self) -> list[Invite]:
        """All invites, also burnt and expired ones, oldest first."""
        query = select(schema.invites).order_by(
            schema.invites.c.created, schema.invites.c.token_hash
        )
        return self.database.read(lambda c: [Invite(**row) for row in c.execute(query).mappings()])

    def add_certificate(self, certificate: Certificate) -> None:
        """Keeps a certificate that is about to be handed out; keeping it twice changes nothing.

        Raises:
          IdentityError: the site is not enrolled, or was revoked.
          StoreError: the serial number belongs to another certificate.
        """

        def step(connection: Connection) -> None:
            known = _certificate(connection, certificate.serial)
            if known == certificate:
                return
            if known is not None:
                raise StoreError(
                    f"certificate {certificate.serial} exists already and says something else",
                    fix="issue the certificate again with a new serial number",
                )
            _check_enrolled(connection, certificate.site)
            _check_welcome(connection, certificate.site)
            connection.execute(insert(schema.certificates).values(**asdict(certificate)))

        self.database.write(step)

    def certificates(self, site: str) -> list[Certificate]:
        """All certificates of a site, oldest first."""
        table = schema.certificates
        query = select(table).where(table.c.site == site)
        query = query.order_by(table.c.not_before, table.c.serial)
        return self.database.read(
            lambda c: [Certificate(**row) for row in c.execute(query).mappings()]
        )

    def revoke(
        self, *, site: str | None = None, serial: str | None = None, reason: str, now: float
    ) -> None:
        """Shuts out a site for good, or one certificate; doing so twice changes nothing.

        Args:
          site: all its certificates, invites and later renewals.
          serial: this certificate alone.
          reason: for the audit trail.
          now: when.

        Raises:
          IdentityError: the federation knows no such site or certificate: a mistyped name must
            not look revoked.
        """

        def step(connection: Connection) -> None:
            if site is not None:
                _check_known(connection, site)
                _revoke(connection, "site", site, storable(reason), now)
            if serial is not None:
                if _certificate(connection, serial) is None:
                    raise IdentityError(
                        f"no certificate has the serial number {serial}",
                        fix="see the site's certificates for the right one",
                    )
                _revoke(connection, "serial", serial, storable(reason), now)

        self.database.write(step)

    def revocations(self) -> Revocations:
        """Everything that was revoked."""
        query = select(schema.revocations.c.kind, schema.revocations.c.name)

        def step(connection: Connection) -> Revocations:
            rows = connection.execute(query).all()
            return Revocations(
                sites=frozenset(row.name for row in rows if row.kind == "site"),
                serials=frozenset(row.name for row in rows if row.kind == "serial"),
            )

        return self.database.read(step)

    def sites(self) -> list[SiteRow]:
        """All sites that ever enrolled, by name."""
        sites, revoked = schema.sites, schema.revocations
        shut_out = (revoked.c.kind == "site") & (revoked.c.name == sites.c.name)
        query = (
            select(sites, revoked.c.time.label("revoked"))
            .select_from(sites.outerjoin(revoked, shut_out))
            .order_by(sites.c.name)
        )
        return self.database.read(lambda c: [SiteRow(**row) for row in c.execute(query).mappings()])

    def seen(self, site: str, now: float) -> None:
        """Notes that a site was heard of.

        Raises:
          IdentityError: the site is not enrolled.
        """

        def step(connection: Connection) -> None:
            change = update(schema.sites).where(schema.sites.c.name == site).values(last_seen=now)
            if connection.execute(change).rowcount != 1:
                _check_enrolled(connection, site)

        self.database.write(step)

    # -------------------------------------------------------------- the people's door

    def add_operator(self, name: str, role: str, token_hash: str) -> None:
        """Lets somebody in at the people's door.

        Raises:
          IdentityError: the name or the token is taken.
        """

        def step(connection: Connection) -> None:
            table = schema.operators
            taken = (table.c.name == name) | (table.c.token_hash == token_hash)
            if connection.scalar(select(exists().where(taken))):
                raise IdentityError(
                    f"there is an operator '{name}' already, or one with this token",
                    fix="remove the operator first, or take another name and a new token",
                )
            connection.execute(insert(table).values(name=name, role=role, token_hash=token_hash))

        self.database.write(step)

    def remove_operator(self, name: str) -> None:
        """Shuts an operator's token out.

        Raises:
          IdentityError: there is no such operator.
        """

        def step(connection: Connection) -> None:
            removal = delete(schema.operators).where(schema.operators.c.name == name)
            if connection.execute(removal).rowcount != 1:
                raise IdentityError(
                    f"there is no operator '{name}'", fix="see the operators' names"
                )

        self.database.write(step)

    def operators(self) -> list[Operator]:
        """Everybody who may enter at the people's door, by name."""
        table = schema.operators
        query = select(table.c.name, table.c.role).order_by(table.c.name)
        return self.database.read(lambda c: [Operator(r.name, r.role) for r in c.execute(query)])

    def operator(self, token_hash: str) -> Operator | None:
        """Whose token this is; None if it is nobody's."""
        table = schema.operators
        query = select(table.c.name, table.c.role).where(table.c.token_hash == token_hash)
        row = self.database.read(lambda c: c.execute(query).one_or_none())
        return None if row is None else Operator(row.name, row.role)


def _good(connection: Connection, token_hash: str, now: float) -> Invite:
    """The invite, if it may be used now."""
    query = select(schema.invites).where(schema.invites.c.token_hash == token_hash)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise IdentityError("the invite is unknown to this coordinator", fix=_NEW_INVITE)
    invite = Invite(**row)
    if invite.used is not None:
        raise _used(invite)
    if now >= invite.expires:
        raise IdentityError(f"the invite of site '{invite.site}' has expired", fix=_NEW_INVITE)
    _check_welcome(connection, invite.site)
    return invite


def _used(invite: Invite) -> IdentityError:
    return IdentityError(f"the invite of site '{invite.site}' was used already", fix=_NEW_INVITE)


def _enrol(connection: Connection, invite: Invite, now: float) -> None:
    """Makes the site known; one that enrols again keeps the time of its first enrolment."""
    table = schema.sites
    again = update(table).where(table.c.name == invite.site)
    if connection.execute(again.values(organisation=invite.organisation)).rowcount == 0:
        connection.execute(
            insert(table).values(name=invite.site, organisation=invite.organisation, enrolled=now)
        )


def _certificate(connection: Connection, serial: str) -> Certificate | None:
    query = select(schema.certificates).where(schema.certificates.c.serial == serial)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Certificate(**row)


def _check_enrolled(connection: Connection, site: str) -> None:
    if not connection.scalar(select(exists().where(schema.sites.c.name == site))):
        raise IdentityError(
            f"site '{site}' is not enrolled", fix="invite the site and let it join first"
        )


def _check_known(connection: Connection, site: str) -> None:
    enrolled = select(exists().where(schema.sites.c.name == site))
    invited = select(exists().where(schema.invites.c.site == site))
    if not (connection.scalar(enrolled) or connection.scalar(invited)):
        raise IdentityError(
            f"the federation knows no site '{site}'", fix="see the sites' names with `hansa sites`"
        )


def _check_welcome(connection: Connection, site: str) -> None:
    table = schema.revocations
    shut_out = (table.c.kind == "site") & (table.c.name == site)
    if connection.scalar(select(exists().where(shut_out))):
        raise IdentityError(
            f"site '{site}' was revoked", fix="invite the organisation under another site name"
        )


def _revoke(connection: Connection, kind: str, name: str, reason: str, now: float) -> None:
    table = schema.revocations
    known = (table.c.kind == kind) & (table.c.name == name)
    if connection.scalar(select(exists().where(known))):
        return
    connection.execute(insert(table).values(kind=kind, name=name, reason=reason, time=now))
    append(connection, None, f"{kind}.revoked", {kind: name, "reason": reason}, now)
