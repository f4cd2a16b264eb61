"""Two versions meet: both are told who must upgrade, and the agent does not try for ever."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from hansa.core.plan import FORMAT
from hansa.errors import VersionMismatch
from hansa.wire.limits import PROTOCOL
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Place, running
from tests.support.rawsite import raw_site

OLDER, NEWER = "upgrade the site, which is older", "upgrade the coordinator, which is older"
SKEWS = {
    "an older protocol": ("PROTOCOL", "protocol", PROTOCOL, -1, OLDER),
    "a newer protocol": ("PROTOCOL", "protocol", PROTOCOL, +1, NEWER),
    "an older plan format": ("FORMAT", "plan format", FORMAT, -1, OLDER),
    "a newer plan format": ("FORMAT", "plan format", FORMAT, +1, NEWER),
}
RUN = """\
import sys
import hansa.site.agent as agent
agent.{name} += {skew}
from hansa.cli import main
sys.exit(main(["site", "run", "{folder}"]))
"""


def test_a_site_of_another_version_is_told_who_must_upgrade(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def whole() -> dict[str, VersionMismatch]:
        told = {}
        async with running(place) as federation, raw_site(place, "kiel") as site:
            for name, (_, field, ours, skew, _) in SKEWS.items():
                hello = pb.Hello(protocol=PROTOCOL, plan_format=FORMAT)
                setattr(hello, field.replace(" ", "_"), ours + skew)
                with pytest.raises(VersionMismatch) as error:
                    await site.attend(hello)
                told[name] = error.value
                assert not federation.coordinator.roster.present
            await site.attend()  # the connection is as good as before
        return told

    told = asyncio.run(whole())
    log = [record.getMessage() for record in caplog.records]
    for name, (_, what, ours, skew, fix) in SKEWS.items():
        message = f"the site speaks {what} {ours + skew}, the coordinator {what} {ours}"
        assert told[name].message == message
        assert fix in told[name].fix
        assert any(message in line and fix in line for line in log)


def test_the_agents_process_ends_with_code_1_and_the_answer(place: Place) -> None:
    sites = dict(zip(("bremen", "danzig", "kiel", "riga"), SKEWS.values(), strict=True))

    async def run(site: str, constant: str, skew: int) -> tuple[Any, str]:
        code = RUN.format(name=constant, skew=skew, folder=place.site(site))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )
        async with asyncio.timeout(LONG):
            said, _ = await process.communicate()
        return process.returncode, " ".join(said.decode().split())

    async def whole() -> list[tuple[Any, str]]:
        async with running(place):
            return await asyncio.gather(*(run(site, s[0], s[3]) for site, s in sites.items()))

    for (code, said), (_, what, ours, skew, fix) in zip(
        asyncio.run(whole()), sites.values(), strict=True
    ):
        assert code == 1, said
        assert f"the site speaks {what} {ours + skew}, the coordinator {what} {ours}" in said
        assert fix in said
        assert "Traceback" not in said
