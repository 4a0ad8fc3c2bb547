"""The application: routes, and what every request goes through.

From outside in: whatever goes wrong becomes an envelope and is counted; the guard; the route. Only listed routes reach
the engine: those that change it (POST /props, saving slots, loading models) do not.
"""

import logging
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from qrun.gateway.auth import Guard
from qrun.gateway.client_stream import ClientLeft
from qrun.gateway.envelope import ApiError
from qrun.gateway.front import Front, Handler
from qrun.gateway.metrics import Metrics
from qrun.gateway.params import Kind
from qrun.gateway.relay import Relay
from qrun.gateway.served_names import ServedModel
from qrun.gateway.upstream import EngineOwner, Upstream

__all__ = ["FRONT", "make_app"]

FRONT = web.AppKey("FRONT", Front)

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
    front = Front(
        served, upstream, Relay(upstream, metrics, heartbeat_s=heartbeat_s), metrics, needs_key=api_key is not None
    )
    app = web.Application(
        middlewares=[_tell_errors(metrics), _guarded(Guard(api_key, hosts))], client_max_size=_MOST_BODY_BYTES
    )
    _add_routes(app, front)
    app.on_response_prepare.append(_sign)
    app.on_cleanup.append(lambda _app: upstream.close())
    app[FRONT] = front
    return app


def _add_routes(app: web.Application, front: Front) -> None:
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
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        metrics.in_flight += 1
        metrics.most_in_flight = max(metrics.most_in_flight, metrics.in_flight)
        status = _CLIENT_LEFT
        try:
            response = await _answered(request, handler)
            status = response.status
            return response
        finally:
            metrics.in_flight -= 1
            metrics.count_request(_route_of(request), status)

    return middleware


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
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
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
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
