"""Answers on their way from the engine to the client: whole, put together, or as a stream of bytes.

The coroutine that sends owns the engine's answer: leaving it, for whatever reason, closes the connection and so ends
the generation; aiohttp cancels that coroutine as soon as the client is gone. A stream's bytes are not looked into: its
frames are counted, and how it ended is told from its last bytes.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from aiohttp import web

from qrun.gateway.assemble import ASSEMBLERS, EngineRefusal, Event, Incomplete, SseReader
from qrun.gateway.client_stream import ClientStream
from qrun.gateway.envelope import ApiError, refused_by_engine
from qrun.gateway.metrics import Metrics
from qrun.gateway.params import Body, Kind
from qrun.gateway.upstream import Call, Upstream, engine_lost

__all__ = ["Relay"]

_T = TypeVar("_T")

_LAST_FRAME = b"data: [DONE]\n\n"
_ENDS_WITH_DONE = frozenset({"chat", "completions"})
_FRAME_END = b"\n\n"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A stream that has begun: the engine's answer, its first bytes, and which engine gives it."""

    answer: aiohttp.ClientResponse
    first: bytes
    generation: int


class Relay:
    """Sends calls to the engine and its answers to clients. `heartbeat_s`: the longest silence before a stream."""

    def __init__(self, upstream: Upstream, metrics: Metrics, *, heartbeat_s: float) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s

    async def whole(self, call: Call) -> web.Response:
        """The engine's answer as it is."""
        body, content_type = await self.fetched(call)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def fetched(self, call: Call) -> tuple[bytes, str]:
        """The engine's answer and its content type. Raises ApiError for any status but 200."""

        async def fetch(session: aiohttp.ClientSession) -> tuple[bytes, str]:
            async with self._upstream.send(session, call) as answer:
                body = await answer.read()
            if answer.status != HTTPStatus.OK:
                raise refused_by_engine(answer.status, body, prompt_param=call.prompt_param)
            return body, answer.headers.get("Content-Type", "application/json")

        return await self._upstream.twice(fetch)

    async def assembled(self, call: Call, asked: Body) -> web.Response:
        """The engine's stream put together: until it is whole, a lost engine costs the client only time."""
        return web.Response(body=_encoded(await self.answer(call, asked)), content_type="application/json")

    async def answer(self, call: Call, asked: Body) -> Event:
        """The engine's answer to a call that streams, whole."""
        asked_at = time.monotonic()

        async def fetch(session: aiohttp.ClientSession) -> Event:
            assembler, reader = ASSEMBLERS[call.kind](asked), SseReader()
            opened = await self._open(session, call, asked_at)
            async with opened.answer as answer:
                chunk = opened.first
                while chunk:
                    for event in reader.feed(chunk):
                        assembler.add(event)
                    chunk = await answer.content.readany()
            return assembler.answer()

        try:
            return await self._upstream.twice(fetch)
        except EngineRefusal as refusal:
            raise refused_by_engine(500, refusal.body, prompt_param=call.prompt_param) from refusal

    async def streamed(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The engine's stream, byte for byte, after heartbeats where it has to be waited for."""
        asked_at = time.monotonic()

        async def pass_on(client: ClientStream) -> None:
            opening = asyncio.create_task(self._upstream.twice(lambda session: self._open(session, call, asked_at)))
            opened = await self._with_heartbeats(opening, client, if_unused=_close)
            async with opened.answer:
                await self._copy(opened, client, call.kind)

        return await self._to_client(request, pass_on)

    async def in_one_frame(self, request: web.Request, making: Awaitable[bytes]) -> web.StreamResponse:
        """A stream of which nothing can be sent before all of it is there."""

        async def pass_on(client: ClientStream) -> None:
            await client.send(await self._with_heartbeats(asyncio.ensure_future(making), client))

        return await self._to_client(request, pass_on)

    async def _to_client(
        self, request: web.Request, pass_on: Callable[[ClientStream], Awaitable[None]]
    ) -> web.StreamResponse:
        """Send a stream; what goes wrong once it is open is its last event."""
        client = ClientStream(request)
        try:
            await pass_on(client)
        except ApiError as error:
            if not client.is_open:
                raise
            await client.send(error.as_event())
        return await client.end()

    async def _open(self, session: aiohttp.ClientSession, call: Call, asked_at: float) -> _Opened:
        """Wait for the first bytes of a stream."""
        answer = await self._upstream.send(session, call)
        try:
            first = await _first_bytes(answer, call)
        except BaseException:
            answer.close()
            raise
        self._metrics.observe_first_byte(time.monotonic() - asked_at)
        return _Opened(answer, first, self._upstream.generation)

    async def _with_heartbeats(
        self, waited_for: "asyncio.Future[_T]", client: ClientStream, if_unused: Callable[[_T], None] | None = None
    ) -> _T:
        try:
            while not (await asyncio.wait({waited_for}, timeout=self._heartbeat_s))[0]:
                await client.heartbeat()
        except BaseException:  # the client is gone: what was being opened for it is closed
            waited_for.add_done_callback(lambda done: _drop(done, if_unused))
            waited_for.cancel()
            raise
        return waited_for.result()

    async def _copy(self, opened: _Opened, client: ClientStream, kind: Kind) -> None:
        """Copy until the end. Raises ApiError where the engine did not get there."""
        chunk = tail = opened.first
        readany = opened.answer.content.readany
        try:
            while chunk:
                self._metrics.frames += chunk.count(_FRAME_END)
                await client.send(chunk)
                tail = tail[-len(_LAST_FRAME) :] + chunk if len(chunk) < len(_LAST_FRAME) else chunk
                chunk = await readany()
        except (aiohttp.ClientError, ConnectionError) as broken:
            raise engine_lost(await self._upstream.reason_of_loss(opened.generation, broken)) from broken
        if kind in _ENDS_WITH_DONE and not tail.endswith(_LAST_FRAME) and b'"error"' not in tail:
            raise engine_lost("its stream ended early")


async def _first_bytes(answer: aiohttp.ClientResponse, call: Call) -> bytes:
    if answer.status != HTTPStatus.OK:
        raise refused_by_engine(answer.status, await answer.read(), prompt_param=call.prompt_param)
    first = b""
    while True:
        chunk = await answer.content.readany()
        if not chunk:
            raise Incomplete("the engine's stream ended before it began")
        first = _without_progress(first + chunk) if call.has_progress else first + chunk
        if first and (not call.has_progress or _FRAME_END in first):
            return first


def _without_progress(data: bytes) -> bytes:
    """What is left when the frames before the first token are taken off: progress of the prompt, and comments."""
    while _FRAME_END in data:
        frame, _, rest = data.partition(_FRAME_END)
        if b'"prompt_progress"' not in frame and not frame.startswith(b":"):
            return data
        data = rest
    return data


def _drop(done: "asyncio.Future[_T]", if_unused: Callable[[_T], None] | None) -> None:
    if not done.cancelled() and done.exception() is None and if_unused is not None:
        if_unused(done.result())


def _close(opened: _Opened) -> None:
    opened.answer.close()


def _encoded(answer: Event) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()
