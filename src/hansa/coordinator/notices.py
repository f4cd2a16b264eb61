"""Tells sites where they stand: when it changes, and when they attend and do not count in full."""

from __future__ import annotations

from hansa.coordinator.roster import Roster
from hansa.defend.standing import State
from hansa.defend.standings import Standings, reason_of
from hansa.wire.v1 import sites_pb2 as pb


class Notices:
    """What each open job's sites were told last; each is told of itself alone.

    Args:
      roster: attending sites.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._told: dict[str, dict[str, tuple[State, str]]] = {}

    def know(self, job: str, standings: Standings | None) -> None:
        """Where the sites of an open job stand now; who has moved is told."""
        if standings is None:
            return
        self._told.setdefault(job, {})
        for site, standing in standings.clients.items():
            if standing.state is not self._last(job, site):
                self.tell(job, site, standing.state, reason_of(standing))

    def tell(self, job: str, site: str, state: State, reason: str) -> None:
        """Tells a site of an open job, at once if it attends, else when it does."""
        if job in self._told:
            self._told[job][site] = state, reason
            self._push(job, site)

    def entered(self, site: str) -> None:
        """A site attends."""
        for job, told in self._told.items():
            if site in told and told[site][0] is not State.TRUSTED:
                self._push(job, site)

    def forget(self, job: str) -> None:
        """A job has ended."""
        self._told.pop(job, None)

    def _last(self, job: str, site: str) -> State:
        return self._told.get(job, {}).get(site, (State.TRUSTED, ""))[0]

    def _push(self, job: str, site: str) -> None:
        state, reason = self._told[job][site]
        notice = pb.Standing(job=job, state=state.value, weight=state.weight, reason=reason)
        self._roster.push(site, pb.ToSite(standing=notice))
