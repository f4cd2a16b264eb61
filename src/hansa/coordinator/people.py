"""The people's door: REST over HTTPS for the command line and for scripts.

| method, path                     | what                                              |
|----------------------------------|---------------------------------------------------|
| PUT  /v1/blobs/{sha256}          | a bundle or initial parameters                    |
| POST /v1/jobs                    | submit a job whose blobs are there                |
| GET  /v1/jobs                    | all jobs                                          |
| GET  /v1/jobs/{job}              | one job with its rounds and the sites' verdicts   |
| POST /v1/jobs/{job}/cancel       | end a job                                         |
| GET  /v1/jobs/{job}/model        | the newest model, little-endian float32           |
| GET  /v1/jobs/{job}/statement    | its privacy statement, as it is now               |
| GET  /v1/events?job=&after=      | one JSON object per line, as things happen        |
| GET  /v1/sites                   | enrolled sites                                    |
| POST /v1/sites/{site}/revoke     | shut a site out at once                           |
| /v1/budget/...                   | privacy budgets, see `budget_door`                |
| /v1/jobs/{job}/standing...       | who stands out, see `standing_door`               |

Every call carries a bearer token. Errors are JSON: `error`, `message`, `fix`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.budget_door import BudgetDoor
from hansa.coordinator.bulletin import Bulletin
from hansa.coordinator.housekeeping import Housekeeping
from hansa.coordinator.members import Members
from hansa.coordinator.roster import Roster
from hansa.coordinator.rows import JobRow, Operator
from hansa.coordinator.runner import Runner
from hansa.coordinator.standing_door import StandingDoor
from hansa.coordinator.statements import statement_of_job
from hansa.coordinator.store import Store
from hansa.coordinator.submission import accept
from hansa.core import canonical
from hansa.errors import HansaError, IdentityError, PlanRefused, Refused
from hansa.submission import Submission

MAX_BODY = 2 << 30
"""Largest blob in bytes that the people's door takes."""

MAX_WORDS = 1 << 20
"""Largest JSON in bytes that the people's door takes."""

MAX_SEQ = 2**63 - 1
"""Largest number of an event."""


@dataclass(frozen=True, slots=True)
class PeopleDoor:
    """What the routes need.

    Attributes:
      store: durable state.
      blobs: vectors and bundles.
      housekeeping: told what waits for its submission.
      members: enrolled sites.
      roster: attending sites.
      runner: open jobs.
      bulletin: news for those who watch.
      clock: seconds since the epoch.
    """

    store: Store
    blobs: Blobs
    housekeeping: Housekeeping
    members: Members
    roster: Roster
    runner: Runner
    bulletin: Bulletin
    clock: Callable[[], float]

    def app(self) -> Starlette:
        """The ASGI application."""
        app = Starlette(
            routes=[
                Route("/v1/blobs/{sha256}", self._guard(self._put_blob), methods=["PUT"]),
                Route("/v1/jobs", self._guard(self._submit), methods=["POST"]),
                Route("/v1/jobs", self._guard(self._jobs)),
                Route("/v1/jobs/{job}", self._guard(self._job)),
                Route("/v1/jobs/{job}/cancel", self._guard(self._cancel), methods=["POST"]),
                Route("/v1/jobs/{job}/model", self._guard(self._model)),
                Route("/v1/jobs/{job}/statement", self._guard(self._statement)),
                Route("/v1/events", self._guard(self._events)),
                Route("/v1/sites", self._guard(self._sites)),
                Route("/v1/sites/{site}/revoke", self._guard(self._revoke), methods=["POST"]),
                *BudgetDoor(self.store, self.members, self.clock).routes(self._guard),
                *StandingDoor(
                    store=self.store,
                    members=self.members,
                    roster=self.roster,
                    runner=self.runner,
                    body=_body,
                    caller=lambda request: self._operator(request).name,
                    bulletin=self.bulletin,
                    clock=self.clock,
                ).routes(self._guard),
            ]
        )
        app.router.redirect_slashes = False  # a redirection would repeat what the caller called us
        return app

    def _guard(
        self, handler: Callable[[Request], Awaitable[Response]], role: str = ""
    ) -> Callable[[Request], Awaitable[Response]]:
        """Authenticates, asks for a role if one is named, and turns our errors into answers."""

        async def guarded(request: Request) -> Response:
            try:
                operator = await asyncio.to_thread(self._operator, request)
            except IdentityError as error:
                return JSONResponse(_told(error), 401, {"www-authenticate": "Bearer"})
            if role not in ("", operator.role):
                wrong = IdentityError(
                    f"operator '{operator.name}' is {operator.role}, this is for {role}",
                    fix=f"ask somebody whose token has the role {role}",
                )
                return JSONResponse(_told(wrong), 403)
            try:
                return await handler(request)
            except HansaError as error:
                status = 422 if isinstance(error, Refused) else 400
                return JSONResponse(_told(error), status)

        return guarded

    def _operator(self, request: Request) -> Operator:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = None
        if scheme.lower() == "bearer" and token:
            found = self.store.operator(hashlib.sha256(token.encode("utf-8")).hexdigest())
        if found is None:
            raise IdentityError(
                "the people's door does not know this token",
                fix="use the operator.json of the coordinator's folder",
            )
        return found

    # -------------------------------------------------------------- jobs

    async def _put_blob(self, request: Request) -> Response:
        content = await _content(request, MAX_BODY, "submit a smaller model")
        name = request.path_params["sha256"]
        if await asyncio.to_thread(_sha256, content) != name:
            raise HansaError("the content has another SHA-256", fix="send it again")
        self.housekeeping.uploaded(name)
        await asyncio.to_thread(self.blobs.put, content, name)
        return JSONResponse({"sha256": name})

    async def _submit(self, request: Request) -> Response:
        words = await _body(request)
        try:
            submission = Submission(**words)
        except TypeError as error:
            raise HansaError(f"no submission: {error}", fix="use `hansa submit`") from error
        if not all(isinstance(word, str) for word in words.values()):
            raise HansaError("no submission: a word is no text", fix="use `hansa submit`")
        row, plan = await asyncio.to_thread(accept, submission, self.blobs, self.clock())
        await asyncio.to_thread(self.store.add_job, row)
        self.runner.start(row, plan)
        self.bulletin.post()
        return JSONResponse({"job": row.id, "plan_digest": row.plan_digest})

    async def _jobs(self, _: Request) -> Response:
        rows = await asyncio.to_thread(self.store.jobs)
        return JSONResponse({"jobs": [_summary(row) for row in rows]})

    async def _job(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._whole, request.path_params["job"]))

    def _whole(self, job: str) -> dict[str, Any]:
        row, state = self.store.job(job), self.store.state(job)
        return {
            **_summary(row),
            "job": json.loads(row.words_json),
            "verdicts": [canonical.plain(d) for d in self.store.decisions(job)],
            "rounds": [canonical.plain(r) for r in self.store.records(job)],
            "model_sha256": state.model_sha256 if state else row.initial_sha256,
            "statement": f"/v1/jobs/{job}/statement",
        }

    async def _cancel(self, request: Request) -> Response:
        reason = str((await _body(request)).get("reason") or "cancelled by an operator")
        await self.runner.cancel(request.path_params["job"], reason[:500])
        return await self._job(request)

    async def _model(self, request: Request) -> Response:
        whole = await asyncio.to_thread(self._whole, request.path_params["job"])
        content = await asyncio.to_thread(self.blobs.get, whole["model_sha256"])
        return Response(content, media_type="application/octet-stream")

    async def _statement(self, request: Request) -> Response:
        job = request.path_params["job"]
        statement = await asyncio.to_thread(statement_of_job, self.store, job)
        return JSONResponse(statement.to_json())

    # -------------------------------------------------------------- news, sites

    async def _events(self, request: Request) -> Response:
        after, job = request.query_params.get("after", "0"), request.query_params.get("job")
        if not after.isdecimal() or len(after) > 19 or int(after) > MAX_SEQ:
            raise HansaError("after is no number", fix="use the seq of the last event")
        if job is not None:
            await asyncio.to_thread(self.store.job, job)  # a mistyped name is told, not waited for
        lines = self._lines(job, int(after))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def _lines(self, job: str | None, after: int) -> AsyncIterator[str]:
        while not self.bulletin.closed:
            news = self.bulletin.next()
            for event in await asyncio.to_thread(self.store.events, job, after):
                after = event.seq
                yield canonical.dumps(dataclasses.asdict(event)) + "\n"
            await news

    async def _sites(self, _: Request) -> Response:
        rows = await asyncio.to_thread(self.store.sites)
        present = self.roster.present
        sites = [{**dataclasses.asdict(row), "attending": row.name in present} for row in rows]
        return JSONResponse({"sites": sites})

    async def _revoke(self, request: Request) -> Response:
        site = request.path_params["site"]
        reason = str((await _body(request)).get("reason") or "revoked by an operator")
        self.roster.expel(site, await self.members.revoke(site, reason[:500]))
        self.bulletin.post()
        return JSONResponse({"site": site, "revoked": True})


def _summary(row: JobRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "created": row.created,
        "status": row.status.value,
        "plan_digest": row.plan_digest,
        "reason": row.reason,
    }


async def _body(request: Request) -> dict[str, Any]:
    content = await _content(request, MAX_WORDS, "send blobs apart")
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise HansaError("the request is no JSON", fix="send a JSON object") from error
    if not isinstance(value, dict):
        raise HansaError("the request is no JSON object", fix="send a JSON object")
    return value


async def _content(request: Request, most: int, fix: str) -> bytearray:
    """The body; one that is announced or comes larger than it may be is not read to its end."""
    announced = request.headers.get("content-length", "0")
    content = bytearray()
    if not announced.isdecimal() or len(announced) > 19 or int(announced) > most:
        raise Refused(f"the request is larger than {most:,} bytes", fix=fix)
    async for data in request.stream():
        content += data
        if len(content) > most:
            raise Refused(f"the request is larger than {most:,} bytes", fix=fix)
    return content


def _sha256(content: bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


def _told(error: HansaError) -> dict[str, Any]:
    told: dict[str, Any] = {
        "error": type(error).__name__,
        "message": error.message,
        "fix": error.fix,
    }
    if isinstance(error, PlanRefused):
        told["errors"] = [
            {"part": e.part, "because": e.because, "fix": e.fix} for e in error.errors
        ]
    return told
