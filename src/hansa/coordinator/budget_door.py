"""Privacy budgets at the people's door.

| method, path                                | what                                              |
|---------------------------------------------|---------------------------------------------------|
| POST /v1/budget/blocks                      | create a block; for the role admin                |
| GET  /v1/budget/blocks                      | all blocks as they stand                          |
| GET  /v1/budget/entries?block=&job=&after=  | the log, a page at a time                         |
| GET  /v1/budget/verify                      | recompute chain, rules and sums                   |
| GET  /v1/budget/export                      | the whole log as JSON lines, signed at its end    |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hansa.budget.audit import Cosigned, End, export
from hansa.budget.block import block_of
from hansa.budget.cost import fits
from hansa.coordinator.budget import PAGE, Budgets, Standing
from hansa.coordinator.budget_book import CHAIN
from hansa.coordinator.members import Members
from hansa.coordinator.store import Store
from hansa.errors import HansaError, Refused

MAX_WORDS = 1 << 16
"""Largest block in bytes of JSON."""

Handler = Callable[[Request], Awaitable[Response]]


class Guard(Protocol):
    """Authenticates a caller, asks for a role, and turns errors into answers."""

    def __call__(self, handler: Handler, role: str = "") -> Handler:
        """The guarded handler."""


@dataclass(frozen=True, slots=True)
class BudgetDoor:
    """What the routes need.

    Attributes:
      store: durable state.
      members: the federation's name and the coordinator's keys.
      clock: seconds since the epoch.
    """

    store: Store
    members: Members
    clock: Callable[[], float]

    @property
    def budgets(self) -> Budgets:
        """All budgets of the store."""
        return self.store.budgets

    def routes(self, guard: Guard) -> list[Route]:
        """The routes, each behind the guard."""
        return [
            Route("/v1/budget/blocks", guard(self._create, role="admin"), methods=["POST"]),
            Route("/v1/budget/blocks", guard(self._blocks)),
            Route("/v1/budget/entries", guard(self._entries)),
            Route("/v1/budget/verify", guard(self._verify)),
            Route("/v1/budget/export", guard(self._export)),
        ]

    async def _create(self, request: Request) -> Response:
        content = bytearray()
        async for data in request.stream():
            content += data
            if len(content) > MAX_WORDS:
                raise Refused("a block is larger than it can be", fix="send its words only")
        try:
            words = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise HansaError("the request is no JSON", fix="send a JSON object") from error
        if not isinstance(words, dict):
            raise HansaError("the request is no JSON object", fix="send a JSON object")
        block = block_of(words)
        await asyncio.to_thread(self.budgets.create, block, self.clock())
        found = await asyncio.to_thread(self.budgets.standings)
        return JSONResponse(next(_told(s) for s in found if s.block.name == block.name))

    async def _blocks(self, _: Request) -> Response:
        found = await asyncio.to_thread(self.budgets.standings)
        return JSONResponse({"blocks": [_told(standing) for standing in found]})

    async def _entries(self, request: Request) -> Response:
        asked = request.query_params
        after = _number(asked.get("after", "0"))
        rows = await asyncio.to_thread(
            self.budgets.entries, asked.get("block", ""), asked.get("job", ""), after, PAGE
        )
        entries = [{**json.loads(row.entry), "hash": row.hash} for row in rows]
        return JSONResponse({"entries": entries, "more": len(rows) == PAGE})

    async def _verify(self, _: Request) -> Response:
        end = await asyncio.to_thread(self.budgets.verify)
        return JSONResponse({"entries": end.seq, "hash": end.hash})

    async def _export(self, _: Request) -> Response:
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[str]:
        lines = await asyncio.to_thread(self._exported)
        while True:
            part = await asyncio.to_thread(_some, lines)
            if not part:
                return
            yield part

    def _exported(self) -> Iterator[str]:
        """The export up to the head of this moment; entries are never changed, so pages agree."""
        end, credentials = self.budgets.head(), self.members.credentials
        cosigned = [
            Cosigned(one.site, one.seq, one.hash, one.signature)
            for one in self.budgets.cosignatures()
            if one.seq <= end.seq
        ]
        return export(
            self._pages(end.seq),
            cosigned,
            End(
                federation=self.members.federation,
                chain=CHAIN,
                seq=end.seq,
                hash=end.hash,
                time=self.clock(),
            ),
            credentials.root_pem.decode("ascii"),
            credentials.document,
            credentials.signing_key(),
        )

    def _pages(self, last: int) -> Iterator[str]:
        after = 0
        while after < last:
            rows = self.budgets.entries(after=after, limit=min(PAGE, last - after))
            if not rows:
                return  # the store was set back: the head will not be that of the entries
            yield from (row.entry for row in rows)
            after = rows[-1].seq


def _some(lines: Iterator[str]) -> str:
    return "".join(islice(lines, PAGE))


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise HansaError("after is no number", fix="use the seq of the last entry")
    return int(text)


def _told(standing: Standing) -> dict[str, Any]:
    """A block in numbers: micro-RDP, which add up, and epsilon at its delta, which does not."""
    block, account, last = standing.block, standing.account, standing.last
    spent, taken = account.spent, account.spent + account.held
    told: dict[str, Any] = {
        **block.words,
        "capacity": account.capacity,
        "committed": account.committed,
        "reserved": account.reserved,
        "held": account.held,
        "free": account.free,
        "epsilon_spent": block.epsilon_of(spent) if spent else 0.0,
        "epsilon_left": block.epsilon - (block.epsilon_of(taken) if taken else 0.0),
        "last": None,
    }
    if last is not None:
        told["last"] = {
            "job": standing.last_job,
            "urdp": last.urdp,
            "releases": last.releases,
            "fits": fits(account.free, last),
        }
    return told
