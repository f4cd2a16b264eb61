"""The people's door: nobody without a token, nothing but clear answers, whatever is asked."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest

from hansa.coordinator import people
from hansa.core import canonical
from hansa.core.job import Rounds
from hansa.jobfile import job_to_words
from hansa.recipes import compile_plan
from hansa.submission import Submission
from hansa.work.bundle import facts_of, load_task, pack
from tests.support.federation import Place, expected, job, outcome, running

ROUTES = (
    ("PUT", "/v1/blobs/" + "0" * 64),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/net-1"),
    ("POST", "/v1/jobs/net-1/cancel"),
    ("GET", "/v1/jobs/net-1/model"),
    ("GET", "/v1/jobs/net-1/statement"),
    ("GET", "/v1/events"),
    ("GET", "/v1/sites"),
    ("POST", "/v1/sites/kiel/revoke"),
)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks whatever a test wants."""

    def __init__(self, place: Place) -> None:
        self.words = json.loads((place.coordinator / "operator.json").read_text())
        self.port = place.settings.people_port

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        context = ssl.create_default_context(cadata=self.words["root"])
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=20
        )
        try:
            yield connection
        finally:
            connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        with self.connection() as connection:
            shown = {"Authorization": f"Bearer {self.words['token']}", **(headers or {})}
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in shown.items():
                if value:
                    connection.putheader(name, value)
            if body is not None and "Content-Length" not in shown:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))


def served(place: Place, test: Callable[[Client, Any], Any]) -> Any:
    """Runs a test in a thread while the coordinator serves."""

    async def whole() -> Any:
        async with running(place) as federation:
            return await asyncio.to_thread(test, Client(place), federation)

    return asyncio.run(whole())


@pytest.fixture(autouse=True)
def no_defect(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is asked, nothing is an error of the coordinator."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert record.levelno < logging.ERROR, record.getMessage()
        assert record.exc_info is None, record.getMessage()


# ------------------------------------------------------------------ who


def test_nobody_enters_without_a_token(module_place: Place) -> None:
    good = json.loads((module_place.coordinator / "operator.json").read_text())["token"]
    bad = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {good}",
        good,
        f"Bearer {good[:-1]}",
        f"Bearer {good}x",
        f"Bearer {good.swapcase()}",
        "Bearer " + "x" * 20_000,
        "Bearer \xff\xfe",
        "Bearer " + hashlib.sha256(good.encode()).hexdigest(),
    ]

    def test(client: Client, federation: Any) -> None:
        store = federation.coordinator.store
        before = (store.jobs(), store.sites(), store.events_head())
        for method, path in ROUTES:
            for shown in bad if path == "/v1/jobs" else bad[:4]:
                answer = client.ask(method, path, b"{}", {"Authorization": shown})
                assert answer.status == 401, (method, path, shown[:80])
                assert answer.json["error"] == "IdentityError"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert good not in answer.body.decode()
        assert client.ask("GET", f"/v1/jobs?token={good}", headers={"Authorization": ""}).status
        assert (store.jobs(), store.sites(), store.events_head()) == before
        assert client.ask("GET", "/v1/jobs").status == 200

    served(module_place, test)


def test_other_methods_and_paths_lead_nowhere(module_place: Place) -> None:
    secret = (module_place.coordinator / "secret.key").read_bytes()
    token = json.loads((module_place.coordinator / "operator.json").read_text())["token"]
    paths = [
        "/",
        "/v1",
        "/v1/",
        "/v2/jobs",
        "/v1/jobs/",
        "/v1/jobs/../../secret.key",
        "/v1/jobs/..%2f..%2fsecret.key",
        "/v1/jobs/%2e%2e/%2e%2e/operator.json",
        "/v1/jobs/..%2f..%2foperator.json/model",
        "/v1/jobs/%00/model",
        "/v1/jobs/' OR 1=1 --/model".replace(" ", "%20"),
        "/v1/jobs/" + "x" * 5000,
        "/v1/jobs/%F0%9F%92%A9",
        "/v1/jobs/%ff%fe",
        "/v1/blobs/..%2f..%2fsecret.key",
        "/v1/blobs/" + "0" * 64,
        "//v1/jobs/../secret.key",
        "/v1/sites/../jobs",
        "/v1/events?job=net-9",
        "/v1/events?job=",
        "/openapi.json",
        "/static/../secret.key",
    ]

    def test(client: Client, federation: Any) -> None:
        for path in paths:
            for method in ("GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"):
                answer = client.ask(method, path, b"{}")
                assert answer.status in (400, 404, 405, 422), (method, path, answer.status)
                assert secret not in answer.body
                assert token.encode() not in answer.body
        for path in ("/v1/jobs/net-9", "/v1/jobs/net-9/model"):
            answer = client.ask("GET", path)
            assert answer.status == 400
            assert "there is no job 'net-9'" in answer.json["message"]
        answer = client.ask("POST", "/v1/jobs/net-9/cancel", b"{}")
        assert "job 'net-9' is not open" in answer.json["message"]
        answer = client.ask("POST", "/v1/sites/atlantis/revoke", b"{}")
        assert (answer.status, answer.json["error"]) == (400, "IdentityError")
        assert "knows no site 'atlantis'" in answer.json["message"]
        assert not federation.coordinator.store.revocations().sites

    served(module_place, test)
    blobs = module_place.coordinator / "blobs"
    assert {p.name for p in module_place.coordinator.iterdir()} >= {"blobs", "ca", "keys"}
    assert not list(blobs.iterdir())


# ------------------------------------------------------------------ how much, and of what form


def test_bodies_that_are_too_large_are_refused_before_they_are_read(module_place: Place) -> None:
    name = hashlib.sha256(b"").hexdigest()

    def test(client: Client, federation: Any) -> None:
        large = {"Content-Length": str(people.MAX_BODY + 1)}
        answer = client.ask("PUT", f"/v1/blobs/{name}", b"", large)  # nothing of it is ever sent
        assert answer.status == 422
        assert "is larger than 2,147,483,648 bytes" in answer.json["message"]
        for path in ("/v1/jobs", "/v1/jobs/net-1/cancel", "/v1/sites/kiel/revoke"):
            answer = client.ask("POST", path, b"", {"Content-Length": str(people.MAX_WORDS + 1)})
            assert answer.status == 422
            assert "is larger than 1,048,576 bytes" in answer.json["message"]
        answer = _chunked(client, "/v1/jobs", 3 << 20)
        assert answer.status == 422
        assert (
            client.ask("PUT", f"/v1/blobs/{'0' * 64}", b"other")
            .json["message"]
            .startswith("the content has another SHA-256")
        )
        assert client.ask("PUT", f"/v1/blobs/{name}", b"").status == 200
        assert not federation.coordinator.store.revocations().sites

    served(module_place, test)


def _chunked(client: Client, path: str, size: int) -> Answer:
    """A body whose length is not announced."""
    with client.connection() as connection:
        connection.putrequest("POST", path)
        connection.putheader("Authorization", f"Bearer {client.words['token']}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        try:
            for _ in range(size >> 16):
                connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            connection.send(b"0\r\n\r\n")
        except OSError:
            pass  # it was told to stop
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), dict(answer.getheaders()))


NO_JSON = (b"{", b"[1]", b'"x"', b"7", b"null", b"\xff\xfe", b"[" * 500_000, b'{"a":' * 100_000)


def test_what_is_no_json_is_told_so(module_place: Place) -> None:
    def test(client: Client, federation: Any) -> None:
        for body in NO_JSON:
            for path in ("/v1/jobs", "/v1/jobs/net-1/cancel", "/v1/sites/kiel/revoke"):
                answer = client.ask("POST", path, body)
                assert answer.status == 400, body[:20]
                assert answer.json["message"].startswith("the request is no JSON")
        answer = client.ask("POST", "/v1/jobs", b"")
        assert (answer.status, answer.json["error"]) == (400, "HansaError")
        assert not federation.coordinator.store.jobs()

    served(module_place, test)


# ------------------------------------------------------------------ submissions


@dataclass
class Handed:
    """What a scientist's machine hands in, honest until a test changes it."""

    submission: Submission
    bundle: bytes
    params: bytes

    @classmethod
    def honest(cls, task: str = "Small") -> Handed:
        wanted = job(task)
        plan = compile_plan(wanted, facts_of(wanted, load_task(wanted)))
        bundle, params = pack(wanted).to_bytes(), load_task(wanted).initial(0).tobytes()
        submission = Submission(
            words=canonical.dumps(job_to_words(plan.job)),
            facts=canonical.dumps(plan.task),
            plan_digest=plan.digest,
            bundle_sha256=hashlib.sha256(bundle).hexdigest(),
            initial_sha256=hashlib.sha256(params).hexdigest(),
        )
        return cls(submission, bundle, params)

    def hand_in(self, client: Client, **changes: Any) -> Answer:
        for blob in (self.bundle, self.params):
            name = hashlib.sha256(blob).hexdigest()
            assert client.ask("PUT", f"/v1/blobs/{name}", blob).status == 200
        words = {**asdict(self.submission), **changes}
        words = {name: value for name, value in words.items() if value is not None}
        return client.ask("POST", "/v1/jobs", json.dumps(words).encode())

    def with_params(self, client: Client, params: Any) -> Answer:
        content = params if isinstance(params, bytes) else np.asarray(params, "<f4").tobytes()
        other = Handed(self.submission, self.bundle, content)
        return other.hand_in(client, initial_sha256=hashlib.sha256(content).hexdigest())

    def with_bundle(self, client: Client, bundle: bytes) -> Answer:
        other = Handed(self.submission, bundle, self.params)
        return other.hand_in(client, bundle_sha256=hashlib.sha256(bundle).hexdigest())


def test_a_submission_is_checked_in_everything_that_it_names(module_place: Place) -> None:
    honest = Handed.honest()
    toy = pack(job(folder=job().folder.parent / "toyjob")).to_bytes()  # type: ignore[union-attr]
    refused: dict[str, tuple[Callable[[Client], Answer], str]] = {
        "another digest": (
            lambda c: honest.hand_in(c, plan_digest="f" * 64),
            "compiled another plan from this job than the sender",
        ),
        "no bundle": (lambda c: honest.hand_in(c, bundle_sha256="f" * 64), "is not in"),
        "no parameters": (lambda c: honest.hand_in(c, initial_sha256="f" * 64), "is not in"),
        "a path as a blob": (
            lambda c: honest.hand_in(c, initial_sha256="../secret.key"),
            "is no SHA-256",
        ),
        "NaN": (lambda c: honest.with_params(c, [0, 0, 0, 0, np.nan]), "are not 5 finite numbers"),
        "infinity": (lambda c: honest.with_params(c, [np.inf] * 5), "are not 5 finite numbers"),
        "too many": (lambda c: honest.with_params(c, np.zeros(6)), "are not 5 finite numbers"),
        "too few": (lambda c: honest.with_params(c, np.zeros(4)), "are not 5 finite numbers"),
        "half a number": (lambda c: honest.with_params(c, b"\0" * 19), "which are no vector"),
        "no numbers": (lambda c: honest.with_params(c, b""), ""),
        "another task's code": (lambda c: honest.with_bundle(c, toy), "is not the code that"),
        "code that is no bundle": (lambda c: honest.with_bundle(c, b"import os"), ""),
        "no words": (lambda c: honest.hand_in(c, words="{"), "the job is no JSON"),
        "deep words": (lambda c: honest.hand_in(c, words="[" * 100_000), "the job is no JSON"),
        "deep facts": (lambda c: honest.hand_in(c, facts="[" * 100_000), "is no JSON"),
        "words of a number": (lambda c: honest.hand_in(c, words=7), "a word is no text"),
        "a list": (lambda c: honest.hand_in(c, initial_sha256=["0"]), "a word is no text"),
        "a word too few": (lambda c: honest.hand_in(c, words=None), "no submission"),
        "a word too many": (lambda c: honest.hand_in(c, more="x"), "no submission"),
        "a job that does not fit": (
            lambda c: honest.hand_in(
                c, words=honest.submission.words.replace('"count":2', '"count":0')
            ),
            "",
        ),
    }

    def test(client: Client, federation: Any) -> None:
        for name, (ask, words) in refused.items():
            answer = ask(client)
            assert answer.status in (400, 422), name
            assert words in answer.json["message"], (name, answer.json["message"])
            assert answer.json["fix"], name
        assert not federation.coordinator.store.jobs()
        answer = honest.hand_in(client)
        assert answer.status == 200
        assert answer.json["plan_digest"] == honest.submission.plan_digest
        federation_jobs = federation.coordinator.store.jobs()
        assert [row.id for row in federation_jobs] == [answer.json["job"]]

    served(module_place, test)


def test_mutated_submissions_are_refused_or_taken_but_never_a_defect(place: Place) -> None:
    """Numbers, texts and structure of an honest submission are changed one at a time."""
    honest = Handed.honest()
    rng = np.random.default_rng(7)
    values = [-1, 0, 1e308, 2**70, "", "x" * 999, None, [], {}, True, float("nan"), "\0", [[]]]

    def mutated(text: str) -> str:
        whole = json.loads(text)
        inside: Any = whole
        while True:
            keys: list[Any] = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            key = keys[rng.integers(len(keys))]
            deeper = isinstance(inside[key], (dict, list)) and len(inside[key])
            if deeper and rng.random() < 0.8:
                inside = inside[key]
                continue
            inside[key] = values[rng.integers(len(values))]
            return json.dumps(whole)

    def test(client: Client, federation: Any) -> None:
        honest.hand_in(client, plan_digest="f" * 64)
        for number in range(150):
            name = ("words", "facts")[number % 2]
            words = {**asdict(honest.submission), name: mutated(getattr(honest.submission, name))}
            answer = client.ask("POST", "/v1/jobs", json.dumps(words).encode())
            assert answer.status in (200, 400, 422), (words[name], answer.body)
            assert len(answer.body) < 10_000
        for row in federation.coordinator.store.jobs():
            assert row.plan_digest == honest.submission.plan_digest

    served(place, test)


# ------------------------------------------------------------------ news


def test_news_go_on_where_they_were_left(place: Place) -> None:
    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents("bremen", "danzig", "kiel")
            job_id, plan = await federation.submit(job(rounds=Rounds(count=2, deadline=20)))
            await federation.ended(job_id)

            def read(after: int, count: int) -> list[dict[str, Any]]:
                lines = []
                for event in federation.remote.events(job_id, after, seconds=5):
                    lines.append(event)
                    if len(lines) == count:
                        break
                return lines

            total = len(federation.coordinator.store.events(job_id))
            everything = await asyncio.to_thread(read, 0, total)
            middle = everything[total // 2]["seq"]
            rest = await asyncio.to_thread(read, middle, total - total // 2 - 1)
            client = Client(place)
            for after in ("-1", "x", "1e3", "", "9" * 5000, str(2**63), "1.5", "%00"):
                path = f"/v1/events?after={after}"
                answer = await asyncio.to_thread(client.ask, "GET", path)
                assert answer.status == 400, after[:20]
                assert answer.json["message"] == "after is no number"
            # Whoever waits at the end of all news is told the next at once.
            waiting = asyncio.create_task(asyncio.to_thread(read, everything[-1]["seq"], 1))
            others = asyncio.create_task(asyncio.to_thread(_first_of_all, federation.remote, total))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await federation.revoke("riga")
            assert (await others)["kind"] == "site.revoked"
            waiting.cancel()
            return plan, federation.records(job_id), everything, rest, total

    plan, records, everything, rest, total = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1])
    kinds = [event["kind"] for event in everything]
    assert kinds[0] == "job.submitted"
    assert kinds.count("round.closed") == 3
    assert everything[-1]["body"]["to"] == "done"
    assert [event["seq"] for event in everything] == sorted({e["seq"] for e in everything})
    assert rest == everything[total // 2 + 1 :]


def _first_of_all(remote: Any, known: int) -> dict[str, Any]:
    """The first event about the federation that is newer than what was known."""
    for event in remote.events(None, 0, seconds=5):
        if event["kind"] == "site.revoked":
            found: dict[str, Any] = event
            return found
    raise AssertionError("the news ended")
