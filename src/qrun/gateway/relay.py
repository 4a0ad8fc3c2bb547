"""Answers on their way from the engine to the client: whole, put together, or as a stream of bytes.

The coroutine that sends owns the engine's answer: leaving it, for whatever reason, closes the connection and so ends
the generation; aiohttp cancels that coroutine as soon as the client is gone. A stream's bytes are not looked into: its
frames are counted, and how it ended is told from its last bytes.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp import web

from qrun.gateway.assemble import ASSEMBLERS, EngineRefusal, Incomplete, SseReader
from qrun.gateway.client_stream import ClientLeft, ClientStream
from qrun.gateway.envelope import ApiError, refused_by_engine
from qrun.gateway.metrics import Metrics
from qrun.gateway.params import PROMPT_PARAM, Body, Kind
from qrun.gateway.upstream import Call, Upstream, engine_lost

__all__ = ["Relay"]

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

    async def whole(self, call: Call, kind: Kind = "other") -> web.Response:
        """The engine's answer as it is."""

        async def fetch(session: aiohttp.ClientSession) -> tuple[bytes, str]:
            async with self._upstream.send(session, call) as answer:
                body = await answer.read()
            if answer.status != HTTPStatus.OK:
                raise refused_by_engine(answer.status, body, prompt_param=PROMPT_PARAM.get(kind))
            return body, answer.headers.get("Content-Type", "application/json")

        body, content_type = await self._upstream.twice(fetch)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def assembled(self, call: Call, kind: Kind, asked: Body) -> web.Response:
        """The engine's stream put together: until it is whole, a lost engine costs the client only time."""
        asked_at = time.monotonic()

        async def fetch(session: aiohttp.ClientSession) -> bytes:
            assembler, reader = ASSEMBLERS[kind](asked), SseReader()
            opened = await self._open(session, call, kind, asked_at)
            async with opened.answer as answer:
                chunk = opened.first
                while chunk:
                    for event in reader.feed(chunk):
                        assembler.add(event)
                    chunk = await answer.content.readany()
            return json.dumps(assembler.answer(), ensure_ascii=False).encode()

        try:
            body = await self._upstream.twice(fetch)
        except EngineRefusal as refusal:
            raise refused_by_engine(500, refusal.body, prompt_param=PROMPT_PARAM.get(kind)) from refusal
        return web.Response(body=body, content_type="application/json")

    async def streamed(self, request: web.Request, call: Call, kind: Kind) -> web.StreamResponse:
        """The engine's stream, byte for byte, after heartbeats where it has to be waited for."""
        asked_at = time.monotonic()
        client = ClientStream(request)
        opening = asyncio.create_task(self._upstream.twice(lambda session: self._open(session, call, kind, asked_at)))
        try:
            opened = await self._with_heartbeats(opening, client)
            async with opened.answer:
                await self._pass_on(opened, client, kind)
        except ApiError as error:
            if not client.is_open:
                raise
            await client.send(error.as_event())
        except ClientLeft:
            return client.response
        return await client.end()

    async def _open(self, session: aiohttp.ClientSession, call: Call, kind: Kind, asked_at: float) -> _Opened:
        """Wait for the first bytes of a stream."""
        answer = await self._upstream.send(session, call)
        try:
            first = await _first_bytes(answer, kind)
        except BaseException:
            answer.close()
            raise
        self._metrics.observe_first_byte(time.monotonic() - asked_at)
        return _Opened(answer, first, self._upstream.generation)

    async def _with_heartbeats(self, opening: "asyncio.Task[_Opened]", client: ClientStream) -> _Opened:
        try:
            while not (await asyncio.wait({opening}, timeout=self._heartbeat_s))[0]:
                await client.heartbeat()
        except BaseException:  # the client is gone: what was being opened for it is closed
            opening.add_done_callback(_close_unused)
            opening.cancel()
            raise
        return opening.result()

    async def _pass_on(self, opened: _Opened, client: ClientStream, kind: Kind) -> None:
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


async def _first_bytes(answer: aiohttp.ClientResponse, kind: Kind) -> bytes:
    if answer.status != HTTPStatus.OK:
        raise refused_by_engine(answer.status, await answer.read(), prompt_param=PROMPT_PARAM.get(kind))
    first = await answer.content.readany()
    if not first:
        raise Incomplete("the engine's stream ended before it began")
    return first


def _close_unused(opening: "asyncio.Task[_Opened]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().answer.close()
