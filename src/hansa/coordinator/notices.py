"""Tells sites where they stand: when it changes, and when they attend and do not count in full."""

from __future__ import annotations

from hansa.coordinator.roster import Roster
from hansa.defend.standing import Standing, State
from hansa.defend.standings import Standings, reason_of
from hansa.wire.v1 import sites_pb2 as pb


class Notices:
    """What each open job's sites were told last; each is told of itself alone.

    Args:
      roster: attending sites.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._told: dict[str, dict[str, tuple[Standing, str]]] = {}

    def know(self, job: str, standings: Standings | None) -> None:
        """Where the sites of an open job stand now; who has moved is told."""
        if standings is None:
            return
        self._told.setdefault(job, {})
        for site, standing in standings.clients.items():
            if standing.state is not self._last(job, site):
                self.tell(job, site, standing, reason_of(standing))

    def tell(self, job: str, site: str, standing: Standing, reason: str) -> None:
        """Tells a site of an open job, at once if it attends, else when it does."""
        if job in self._told:
            self._told[job][site] = standing, reason
            self._push(job, site)

    def entered(self, site: str) -> None:
        """A site attends."""
        for job, told in self._told.items():
            if site in told and told[site][0].state is not State.TRUSTED:
                self._push(job, site)

    def forget(self, job: str) -> None:
        """A job has ended."""
        self._told.pop(job, None)

    def _last(self, job: str, site: str) -> State:
        told = self._told.get(job, {}).get(site)
        return State.TRUSTED if told is None else told[0].state

    def _push(self, job: str, site: str) -> None:
        standing, reason = self._told[job][site]
        notice = pb.Standing(
            job=job, state=standing.state.value, weight=standing.weight, reason=reason
        )
        self._roster.push(site, pb.ToSite(standing=notice))
