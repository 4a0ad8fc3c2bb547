"""The application: routes, and what every request goes through.

From outside in: whatever goes wrong becomes an envelope and is counted; the guard; the route. Only listed routes reach
the engine: those that change it (POST /props, saving slots, loading models) do not.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from qrun.gateway.auth import Guard
from qrun.gateway.client_stream import ClientLeft
from qrun.gateway.envelope import ApiError
from qrun.gateway.metrics import Metrics
from qrun.gateway.page import PAGE_HEADERS, page_for
from qrun.gateway.params import Body, Kind, check_body, read_body
from qrun.gateway.prepared import prepare
from qrun.gateway.relay import Relay
from qrun.gateway.served_names import ServedModel
from qrun.gateway.upstream import Call, EngineOwner, Upstream

__all__ = ["ServedModel", "make_app"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOST_BODY_BYTES = 64 * 2**20  # a long prompt is a few MiB; images come inside as base64
_CLIENT_LEFT = 499  # nginx's number for it; nobody receives it

_POSTS: Mapping[Kind, tuple[str, ...]] = {
    "chat": ("/v1/chat/completions", "/chat/completions"),
    "completions": ("/v1/completions",),
    "responses": ("/v1/responses", "/responses"),
    "messages": ("/v1/messages",),
    "native": ("/completion", "/completions", "/infill"),
    "other": (
        "/v1/embeddings",
        "/embeddings",
        "/embedding",
        "/v1/rerank",
        "/v1/reranking",
        "/rerank",
        "/reranking",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/v1/chat/completions/input_tokens",
        "/chat/completions/input_tokens",
        "/v1/responses/input_tokens",
        "/responses/input_tokens",
        "/v1/messages/count_tokens",
    ),
}
_GETS = ("/props", "/slots", "/lora-adapters")

_log = logging.getLogger(__name__)


def make_app(
    owner: EngineOwner,
    served: ServedModel,
    *,
    api_key: str | None = None,
    hosts: frozenset[str] | None = frozenset(),
    wait_s: float = 600,
    heartbeat_s: float = 5,
) -> web.Application:
    """The front of one model. Run it with `handler_cancellation=True`: clients that leave must end their handlers.

    `hosts`: names this server is called by beside the machine's own, None: any. `wait_s`: how long a request waits for
    the engine; `heartbeat_s`: the longest silence before a stream's first bytes.
    """
    metrics = Metrics()
    upstream = Upstream(owner, wait_s=wait_s)
    front = _Front(served, upstream, Relay(upstream, metrics, heartbeat_s=heartbeat_s), metrics, bool(api_key))
    app = web.Application(
        middlewares=[_tell_errors(metrics), _guarded(Guard(api_key, hosts))], client_max_size=_MOST_BODY_BYTES
    )
    _add_routes(app, front)
    app.on_response_prepare.append(_sign)
    app.on_cleanup.append(lambda _app: upstream.close())
    return app


class _Front:
    """The handlers of one model's routes."""

    def __init__(
        self,
        served: ServedModel,
        upstream: Upstream,
        relay: Relay,
        metrics: Metrics,
        needs_key: bool,  # noqa: FBT001 - private
    ) -> None:
        self._served = served
        self._upstream = upstream
        self._relay = relay
        self._metrics = metrics
        self._needs_key = needs_key

    def post(self, kind: Kind) -> _Handler:
        """The handler of the engine's routes of one kind."""

        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            body = read_body(raw)
            self._check_model(body)
            check_body(kind, body, n_parallel=self._served.n_parallel)
            prepared = prepare(kind, raw, body)
            call = Call("POST", request.path, prepared.raw)
            if prepared.streams and kind != "other":
                return await self._relay.streamed(request, call, kind)
            if prepared.assembles:
                return await self._relay.assembled(call, kind, body)
            return await self._relay.whole(call, kind)

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
        if not self._upstream.is_ready:
            raise ApiError(503, "The model is loading.", "loading", headers={"Retry-After": "1"})
        return web.json_response({"status": "ok"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """The engine's series as they are, and ours."""
        ours = self._metrics.as_text(engine_restarts=max(0, self._upstream.generation - 1))
        engines = await self._engine_metrics() if self._upstream.is_ready else ""
        return web.Response(text=engines + ours, content_type="text/plain", charset="utf-8")

    async def page(self, request: web.Request) -> web.Response:
        """The page for people."""
        endpoint = f"{request.scheme}://{request.host}/v1"
        page = page_for(self._served, endpoint=endpoint, is_ready=self._upstream.is_ready, needs_key=self._needs_key)
        return web.Response(text=page, headers=PAGE_HEADERS)

    async def _engine_metrics(self) -> str:
        try:
            answer = await self._relay.whole(Call("GET", "/metrics"))
        except ApiError as error:
            return f"# The engine's own series are missing: {error.message}\n"
        return bytes(answer.body).decode() if isinstance(answer.body, bytes) else ""

    def _check_model(self, body: Body) -> None:
        name = body.get("model")
        if name is None or name == "":
            return
        if not isinstance(name, str):
            raise ApiError(400, "model must be a string.", "invalid_value", "model")
        if not self._served.answers_to(name):
            names = ", ".join(self._served.names)
            raise ApiError(
                404,
                f"There is no model {name!r} here. Served: {names}.",
                "model_not_found",
                "model",
                "invalid_request_error",
            )


def _add_routes(app: web.Application, front: _Front) -> None:
    for kind, paths in _POSTS.items():
        for path in paths:
            app.router.add_post(path, front.post(kind))
    for path in _GETS:
        app.router.add_get(path, front.get)
    for prefix in ("", "/v1"):
        app.router.add_get(f"{prefix}/models", front.models)
        app.router.add_get(f"{prefix}/models/{{name:.+}}", front.model)
        app.router.add_get(f"{prefix}/health", front.health)
    app.router.add_get("/metrics", front.metrics)
    app.router.add_get("/", front.page)


def _tell_errors(metrics: Metrics) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        metrics.in_flight += 1
        status = _CLIENT_LEFT
        try:
            response = await _answered(request, handler)
            status = response.status
            return response
        finally:
            metrics.in_flight -= 1
            metrics.count_request(_route_of(request), status)

    return middleware


async def _answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The handler's answer, or the envelope of what it raised."""
    try:
        return await handler(request)
    except ApiError as error:
        return _envelope(error)
    except web.HTTPException as error:
        return _envelope(_of_aiohttp(request, error))
    except ClientLeft:
        return web.Response(status=_CLIENT_LEFT)
    except Exception:  # noqa: BLE001 - the front's last door: clients get an envelope, the log gets the traceback
        _log.exception("%s %s failed", request.method, request.path)
        return _envelope(ApiError(500, "qrun failed at this request; its log says how.", "internal_error"))


def _guarded(guard: Guard) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        refusal = guard.refusal(request.path, request.headers)
        if refusal is not None:
            raise refusal
        return await handler(request)

    return middleware


def _envelope(error: ApiError) -> web.Response:
    return web.Response(
        body=error.as_json(), status=error.status, content_type="application/json", headers=error.headers
    )


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> ApiError:
    where = f"{request.method} {request.path}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        headers = {"Allow": allowed}
        return ApiError(405, f"{where} is not possible; allowed: {allowed}.", "method_not_allowed", headers=headers)
    if isinstance(error, web.HTTPNotFound):
        return ApiError(404, f"There is no route {where}.", "unknown_route")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        most = _MOST_BODY_BYTES // 2**20
        return ApiError(413, f"The request body is larger than {most} MiB.", "body_too_large")
    return ApiError(error.status, f"{error.reason}.", "bad_request")


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


async def _sign(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["Server"] = "qrun"
