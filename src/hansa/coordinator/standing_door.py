"""Standings at the people's door.

| method, path                                | what                                           |
|---------------------------------------------|------------------------------------------------|
| GET  /v1/jobs/{job}/standing                | where sites stand, and every transition        |
| POST /v1/jobs/{job}/standing/{site}/release | let a quarantined site in again; role admin    |
| POST /v1/jobs/{job}/standing/{site}/expel   | revoke a quarantined site; role admin          |
| GET  /v1/jobs/{job}/standing/replay         | count all transitions again from the scores    |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hansa.coordinator.bulletin import Bulletin
from hansa.coordinator.members import Members
from hansa.coordinator.roster import Roster
from hansa.coordinator.runner import Runner
from hansa.coordinator.store import Store
from hansa.coordinator.store_standing import decision_of
from hansa.coordinator.submission import plan_of
from hansa.defend.judge import Judge
from hansa.defend.replay import decided, replay
from hansa.defend.standing import State
from hansa.defend.standings import Transition
from hansa.defend.text import standing_words, transition_words
from hansa.errors import HansaError

MAX_REASON = 500
"""Longest reason of a decision, in characters."""

Handler = Callable[[Request], Awaitable[Response]]
Body = Callable[[Request], Awaitable[dict[str, Any]]]


class Guard(Protocol):
    """Authenticates a caller, asks for a role, and turns errors into answers."""

    def __call__(self, handler: Handler, role: str = "") -> Handler:
        """The guarded handler."""


@dataclass(frozen=True, slots=True)
class StandingDoor:
    """What the routes need.

    Attributes:
      store: durable state.
      members: revokes who is expelled.
      roster: attending sites.
      runner: open jobs, whose sites are told.
      body: reads a request's JSON object.
      caller: name of the operator who asks.
      bulletin: news for those who watch.
      clock: seconds since the epoch.
    """

    store: Store
    members: Members
    roster: Roster
    runner: Runner
    body: Body
    caller: Callable[[Request], str]
    bulletin: Bulletin
    clock: Callable[[], float]

    def routes(self, guard: Guard) -> list[Route]:
        """The routes, each behind the guard."""
        at = "/v1/jobs/{job}/standing"
        return [
            Route(at, guard(self._show)),
            Route(f"{at}/replay", guard(self._replay)),
            Route(f"{at}/{{site}}/release", guard(self._release, role="admin"), methods=["POST"]),
            Route(f"{at}/{{site}}/expel", guard(self._expel, role="admin"), methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._whole, request.path_params["job"]))

    def _whole(self, job: str) -> dict[str, Any]:
        most = self._most(job)
        standings = self.store.standings(job, most)
        return {
            "job": job,
            "most": most,
            "clients": {
                client: {**standing_words(found), "mean": found.mean, "weight": found.weight}
                for client, found in standings.clients.items()
            },
            "changes": [
                {**transition_words(change.transition), "time": change.time, "by": change.by}
                for change in self.store.standing_changes(job)
            ],
        }

    def _most(self, job: str) -> int:
        judge = plan_of(self.store.job(job)).parts.judge
        if not isinstance(judge, Judge):
            raise HansaError(
                f"clients of job '{job}' have no standing",
                fix="submit a job with [defend] standing = true and a robust rule",
            )
        return judge.most

    async def _replay(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._counted, request.path_params["job"]))

    def _counted(self, job: str) -> dict[str, Any]:
        most = self._most(job)
        head = self.store.verify_events()
        verdict = replay(self.store.standing_history(job, most))
        return {
            "job": job,
            "rounds": verdict.rounds,
            "changes": [transition_words(change) for change in verdict.changes],
            "agrees": not verdict.differences,
            "differences": list(verdict.differences),
            "events": head.seq,
            "events_hash": head.hash,
        }

    async def _release(self, request: Request) -> Response:
        return await self._decide(request, State.WATCH)

    async def _expel(self, request: Request) -> Response:
        return await self._decide(request, State.EXPELLED)

    async def _decide(self, request: Request, after: State) -> Response:
        job, site = request.path_params["job"], request.path_params["site"]
        reason = str((await self.body(request)).get("reason") or "").strip()
        if not reason:
            raise HansaError(
                "a decision about a site needs a reason", fix="say why; the site is told"
            )
        most = await asyncio.to_thread(self._most, job)
        state = await asyncio.to_thread(self.store.state, job)
        number = 0 if state is None else state.round
        decision = decision_of(site, number, after, reason[:MAX_REASON])
        decided(await asyncio.to_thread(self.store.standings, job, most), decision)  # or it raises
        if after is State.EXPELLED:  # first: after a crash between both it is shut out at least
            self.roster.expel(site, await self.members.revoke(site, decision.reason))
        change: Transition = await asyncio.to_thread(
            self.store.decide_standing, job, most, decision, self.caller(request), self.clock()
        )
        standings = await asyncio.to_thread(self.store.standings, job, most)
        self.runner.notices.tell(job, site, standings[site], change.reason)
        self.bulletin.post()
        return JSONResponse(transition_words(change))
