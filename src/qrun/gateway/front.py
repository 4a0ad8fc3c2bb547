"""The handlers of one model's routes: what is checked, in which order, and which way the answer goes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from aiohttp import web

from qrun.gateway.described_tools import as_frames, with_calls, with_described_tools
from qrun.gateway.envelope import ApiError
from qrun.gateway.metrics import Metrics
from qrun.gateway.page import PAGE_HEADERS, page_for
from qrun.gateway.params import Body, Kind, check_body, read_body
from qrun.gateway.prepared import prepare, with_named_tool
from qrun.gateway.relay import Relay
from qrun.gateway.served_names import ServedModel
from qrun.gateway.upstream import Call, Upstream

__all__ = ["Front", "Handler"]

_METRICS_WITHIN_S = 5.0  # half of Prometheus' own limit: a busy engine must not cost our series

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """The front of one model."""

    def __init__(
        self, served: ServedModel, upstream: Upstream, relay: Relay, metrics: Metrics, *, needs_key: bool
    ) -> None:
        self._served = served
        self._upstream = upstream
        self._relay = relay
        self._metrics = metrics
        self._needs_key = needs_key

    async def learn(self, planned: ServedModel | None = None) -> ServedModel:
        """Ask the engine what it serves in truth, and tell clients that from now on; else it stays as planned.

        `planned`: what it was started with in the end, where that is not what this front was made for.
        """
        self._served = planned or self._served
        try:
            facts = await self._upstream.facts()
        except ApiError:  # it died just now: every request is told so, and this one was only ours
            return self._served
        n_ctx, n_parallel = facts.n_ctx or self._served.n_ctx, facts.n_parallel or self._served.n_parallel
        self._served = replace(self._served, n_ctx=n_ctx, n_parallel=n_parallel)
        return self._served

    def post(self, kind: Kind) -> Handler:
        """The handler of the engine's routes of one kind."""

        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            body = read_body(raw)
            self._check_model(body)
            check_body(kind, body, n_parallel=self._served.n_parallel)
            if _wants_tools(body) and not await self._template_has_tools():
                return await self._with_described_tools(request, kind, body)
            return await self._relayed(request, kind, raw, body)

        return handle

    async def get(self, request: web.Request) -> web.StreamResponse:
        """What the engine says of itself."""
        return await self._relay.whole(Call("GET", request.path_qs))

    async def models(self, _request: web.Request) -> web.Response:
        """The list of models: one entry."""
        return web.json_response({"object": "list", "data": [self._served.as_entry()]})

    async def model(self, request: web.Request) -> web.Response:
        """One model by any of its names."""
        self._check_model({"model": request.match_info["name"]})
        return web.json_response(self._served.as_entry())

    async def health(self, _request: web.Request) -> web.Response:
        """200 when the model answers."""
        if self._upstream.has_failed:
            raise ApiError(503, "The engine has failed; the next request tries it again.", "engine_failed")
        if not self._upstream.is_ready:
            raise ApiError(503, "The model is loading.", "loading", headers={"Retry-After": "1"})
        return web.json_response({"status": "ok"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """The engine's series as they are, and ours."""
        ours = self._metrics.as_text(engine_restarts=max(0, self._upstream.generation - 1))
        engines = await self._engine_metrics() if self._upstream.is_ready else b""
        return web.Response(body=engines + ours.encode(), content_type="text/plain", charset="utf-8")

    async def sample(self) -> tuple[str, int]:
        """The engine's own series, and how many requests were answered at once since the last sample."""
        engines = await self._engine_metrics() if self._upstream.is_ready else b""
        most, self._metrics.most_in_flight = self._metrics.most_in_flight, self._metrics.in_flight
        return engines.decode(errors="replace"), most

    async def page(self, request: web.Request) -> web.Response:
        """The page for people."""
        endpoint = f"{request.scheme}://{request.host}/v1"
        page = page_for(self._served, endpoint=endpoint, is_ready=self._upstream.is_ready, needs_key=self._needs_key)
        return web.Response(text=page, headers=PAGE_HEADERS)

    async def _engine_metrics(self) -> bytes:
        try:
            async with asyncio.timeout(_METRICS_WITHIN_S):
                return (await self._relay.fetched(Call("GET", "/metrics")))[0]
        except (ApiError, TimeoutError) as error:
            why = error.message if isinstance(error, ApiError) else f"no answer within {_METRICS_WITHIN_S:g} s"
            return f"# The engine's own series are missing: {why}\n".encode()

    async def _relayed(self, request: web.Request, kind: Kind, raw: bytes, body: Body) -> web.StreamResponse:
        prepared = prepare(kind, raw, body)
        call = Call("POST", request.path, prepared.raw, kind, prepared.has_progress)
        if prepared.streams and kind != "other":
            return await self._relay.streamed(request, call)
        if prepared.assembles:
            return await self._relay.assembled(call, body)
        return await self._relay.whole(call)

    async def _template_has_tools(self) -> bool:
        return (await self._upstream.facts()).template_has_tools is not False

    async def _with_described_tools(self, request: web.Request, kind: Kind, body: Body) -> web.StreamResponse:
        if kind != "chat":
            sentence = "This model's chat template has no tools. /v1/chat/completions describes them to it in words."
            raise ApiError(400, sentence, "not_supported", "tools")
        asked = with_described_tools(with_named_tool(body))
        prepared = prepare(kind, b"", {**asked, "stream": False})
        making = self._relay.answer(Call("POST", request.path, prepared.raw, kind, prepared.has_progress), asked)
        if not body.get("stream"):
            return web.json_response(with_calls(await making))
        include_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        async def frames() -> bytes:
            return as_frames(with_calls(await making), include_usage=include_usage)

        return await self._relay.in_one_frame(request, frames())

    def _check_model(self, body: Body) -> None:
        name = body.get("model")
        if name is None or name == "":
            return
        if not isinstance(name, str):
            raise ApiError(400, "model must be a string.", "invalid_value", "model")
        if not self._served.answers_to(name):
            sentence = f"There is no model {name!r} here. Served: {', '.join(self._served.names)}."
            raise ApiError(404, sentence, "model_not_found", "model", "invalid_request_error")


def _wants_tools(body: Body) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") not in ("none", {"type": "none"})
