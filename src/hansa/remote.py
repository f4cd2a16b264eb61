"""The people's door from the outside: for the command line and scripts. Standard library only.

The connection is pinned: it trusts the federation's root and nothing else.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hansa import errors
from hansa.errors import HansaError, PlanError, PlanRefused, Unavailable

SECONDS = 60.0
"""How long an answer may take, apart from streams of news."""

VERIFY_SECONDS = 600.0
"""How long the coordinator may take to recompute a log."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A coordinator's people's door and the right to use it.

    Attributes:
      url: where it is.
      token: the operator's bearer token.
      root: PEM of the federation's root certificate.
    """

    url: str
    token: str = field(repr=False)
    root: str = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Remote:
        """Reads `operator.json`, or the one in a coordinator's folder.

        Raises:
          HansaError: there is none.
        """
        file = path / "operator.json" if path.is_dir() else path
        try:
            words = json.loads(file.read_text("utf-8"))
            return cls(str(words["url"]), str(words["token"]), str(words["root"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HansaError(
                f"{file} does not say how to reach a coordinator"
                if file.is_file()
                else f"there is no coordinator's folder or operator.json at '{path}'",
                fix="name the coordinator's folder with --coordinator, or the operator.json that "
                "its owner gave you",
            ) from error

    # -------------------------------------------------------------- calls

    def put_blob(self, sha256: str, content: memoryview | bytes) -> None:
        """Hands in a bundle or initial parameters."""
        self._call("PUT", f"/v1/blobs/{sha256}", bytes(content))

    def submit(self, submission: Mapping[str, str]) -> dict[str, Any]:
        """Submits a job whose blobs are there; returns its id and its plan's digest."""
        return self._call("POST", "/v1/jobs", json.dumps(dict(submission)).encode("utf-8"))

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs."""
        return list(self._call("GET", "/v1/jobs")["jobs"])

    def job(self, job: str) -> dict[str, Any]:
        """One job with its rounds and the sites' verdicts."""
        return self._call("GET", f"/v1/jobs/{quote(job, safe='')}")

    def cancel(self, job: str, reason: str) -> dict[str, Any]:
        """Ends a job."""
        body = json.dumps({"reason": reason}).encode("utf-8")
        return self._call("POST", f"/v1/jobs/{quote(job, safe='')}/cancel", body)

    def model(self, job: str) -> bytes:
        """The newest parameters, little-endian float32."""
        with self._answer("GET", f"/v1/jobs/{quote(job, safe='')}/model") as answer:
            return answer.read()

    def statement(self, job: str) -> dict[str, Any]:
        """The privacy statement of a job, as it is now."""
        return self._call("GET", f"/v1/jobs/{quote(job, safe='')}/statement")

    def sites(self) -> list[dict[str, Any]]:
        """The enrolled sites."""
        return list(self._call("GET", "/v1/sites")["sites"])

    def revoke(self, site: str, reason: str) -> dict[str, Any]:
        """Shuts a site out at once."""
        body = json.dumps({"reason": reason}).encode("utf-8")
        return self._call("POST", f"/v1/sites/{quote(site, safe='')}/revoke", body)

    # -------------------------------------------------------------- standings

    def standing(self, job: str) -> dict[str, Any]:
        """Where a job's clients stand, and every transition."""
        return self._call("GET", f"/v1/jobs/{quote(job, safe='')}/standing")

    def decide_standing(self, job: str, site: str, what: str, reason: str) -> dict[str, Any]:
        """Releases or expels a quarantined site; `what` is release or expel."""
        path = f"/v1/jobs/{quote(job, safe='')}/standing/{quote(site, safe='')}/{what}"
        return self._call("POST", path, json.dumps({"reason": reason}).encode("utf-8"))

    def replay_standing(self, job: str) -> dict[str, Any]:
        """Lets the coordinator count all transitions again from recorded scores."""
        path = f"/v1/jobs/{quote(job, safe='')}/standing/replay"
        return self._call("GET", path, seconds=VERIFY_SECONDS)

    # -------------------------------------------------------------- privacy budgets

    def create_block(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Adds a privacy budget; returns it as it stands."""
        return self._call("POST", "/v1/budget/blocks", json.dumps(dict(words)).encode("utf-8"))

    def blocks(self) -> list[dict[str, Any]]:
        """All privacy budgets as they stand."""
        return list(self._call("GET", "/v1/budget/blocks")["blocks"])

    def budget_entries(
        self, block: str = "", job: str = "", after: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """Entries of the budgets' log after a place, and whether there are more."""
        asked = f"after={after}&block={quote(block, safe='')}&job={quote(job, safe='')}"
        told = self._call("GET", f"/v1/budget/entries?{asked}")
        return list(told["entries"]), bool(told["more"])

    def verify_budget(self) -> dict[str, Any]:
        """Lets the coordinator recompute the budgets' chain and sums; returns where it ends."""
        return self._call("GET", "/v1/budget/verify", seconds=VERIFY_SECONDS)

    def export_budget(self) -> Iterator[bytes]:
        """The budgets' log, line by line, signed at its end."""
        with self._answer("GET", "/v1/budget/export", seconds=VERIFY_SECONDS) as answer:
            yield from answer

    # -------------------------------------------------------------- news

    def events(
        self, job: str | None, after: int, seconds: float = SECONDS
    ) -> Iterator[dict[str, Any]]:
        """News as it happens; ends when the coordinator stops or is silent for `seconds`."""
        path = f"/v1/events?after={after}" + (f"&job={quote(job, safe='')}" if job else "")
        with self._answer("GET", path, seconds=seconds) as answer:
            try:
                for line in answer:
                    yield json.loads(line)
            except (OSError, http.client.HTTPException, ValueError):
                return

    # -------------------------------------------------------------- plumbing

    def _call(
        self, method: str, path: str, body: bytes | None = None, seconds: float = SECONDS
    ) -> dict[str, Any]:
        with self._answer(method, path, body, seconds) as answer:
            return dict(json.loads(answer.read()))

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None = None, seconds: float = SECONDS
    ) -> Iterator[http.client.HTTPResponse]:
        place = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            place.hostname or "",
            place.port,
            timeout=seconds,
            context=ssl.create_default_context(cadata=self.root),
        )
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            if answer.status >= 300:
                raise _told(answer)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"the coordinator at {self.url} does not answer ({type(error).__name__})",
                fix="check that it runs: hansa coordinator serve FOLDER",
            ) from error
        finally:
            connection.close()


def _told(answer: http.client.HTTPResponse) -> HansaError:
    """The error that the coordinator meant."""
    try:
        told = json.loads(answer.read())
        if told.get("errors"):
            return PlanRefused([PlanError(**error) for error in told["errors"]])
        kind = getattr(errors, told["error"], HansaError)
        if not (isinstance(kind, type) and issubclass(kind, HansaError)):
            kind = HansaError
        return kind(told["message"], fix=told["fix"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            f"the coordinator answered with status {answer.status}",
            fix="check that the address is the people's door of a coordinator",
        )
