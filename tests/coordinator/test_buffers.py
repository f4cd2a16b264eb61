"""Memory of transfers: one buffer, the next sender not far behind, a sum's memory used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from hansa.coordinator.buffers import Buffers
from hansa.coordinator.spare import Spare
from hansa.errors import UpdateRejected
from hansa.wire.transfer import AHEAD, ahead


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_next_sender_begins_while_a_buffer_is_still_in_use() -> None:
    async def whole() -> None:
        buffers, seen = Buffers(1), list[str]()
        folded = asyncio.Event()

        async def first() -> None:
            async with buffers.take(8):
                async with buffers.sending():
                    pass
                await folded.wait()
                seen.append("folded")

        async def second() -> None:
            async with buffers.sending():
                seen.append("sends")
                async with buffers.take(8):
                    seen.append("has the buffer")

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(first())
            await asyncio.sleep(0.1)
            group.create_task(second())
            await asyncio.sleep(0.1)
            assert seen == ["sends"]
            folded.set()
        assert seen == ["sends", "folded", "has the buffer"]

    asyncio.run(whole())


def test_no_more_senders_than_buffers() -> None:
    async def whole() -> None:
        buffers, at_once, most = Buffers(2), 0, 0

        async def send() -> None:
            nonlocal at_once, most
            async with buffers.sending(), buffers.take(8) as buffer:
                assert len(buffer) == 8
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0.01)
                at_once -= 1

        await asyncio.gather(*(send() for _ in range(6)))
        assert most == 2

    asyncio.run(whole())


def test_a_few_chunks_are_read_before_they_are_asked_for_and_no_more() -> None:
    read = list[int]()

    async def parts() -> AsyncIterator[memoryview]:
        for number in range(6):
            read.append(number)
            yield memoryview(bytes([number]))

    async def whole() -> None:
        async with ahead(parts()) as chunks:
            await _settle()
            assert len(read) == AHEAD + 1
            assert (await anext(chunks))[0] == 0
            await _settle()
            assert len(read) == AHEAD + 2
            assert [chunk[0] async for chunk in chunks] == [1, 2, 3, 4, 5]

    asyncio.run(whole())


@pytest.mark.parametrize("error", [UpdateRejected("no", fix="yes"), asyncio.CancelledError()])
def test_what_ends_the_chunks_is_raised_after_the_last_of_them(error: BaseException) -> None:
    """Also a cancellation from within, as the gRPC library has it for a connection that is lost."""

    async def parts() -> AsyncIterator[memoryview]:
        yield memoryview(b"a")
        raise error

    async def whole() -> None:
        async with asyncio.timeout(5), ahead(parts()) as chunks:
            assert bytes(await anext(chunks)) == b"a"
            with pytest.raises(type(error)):
                await anext(chunks)

    asyncio.run(whole())


def test_who_leaves_early_ends_the_reading() -> None:
    ended = list[bool]()

    async def parts() -> AsyncIterator[memoryview]:
        try:
            yield memoryview(b"a")
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def whole() -> None:
        async with ahead(parts()) as chunks:
            assert bytes(await anext(chunks)) == b"a"
            await _settle()
        assert ended

    asyncio.run(whole())


def test_a_sum_begins_with_zeros_in_the_same_memory() -> None:
    spare, like = Spare(), np.zeros(5, np.int64)
    first = spare.zeros_like(like)
    first[:] = 7
    again = spare.zeros_like(like)
    assert again is first
    assert not again.any()
    assert not like.any()
    for other in (np.zeros(5, np.uint32), np.zeros(6, np.int64)):
        found = spare.zeros_like(other)
        assert (found.shape, found.dtype) == (other.shape, other.dtype)
        assert not found.any()
