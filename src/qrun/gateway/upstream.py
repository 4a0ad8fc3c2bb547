"""The engine as the front sees it: whichever process serves now, and a second try when it dies under a request.

A connection carries one request: llama-server keeps a thread for every open one, and one that it closes while idle
would break the next request for nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import aiohttp

from qrun.errors import EngineFailed, QrunError
from qrun.gateway.envelope import ApiError
from qrun.gateway.params import PROMPT_PARAM, Kind
from qrun.runner import Launch, UnixAddress

__all__ = ["Call", "EngineFacts", "EngineOwner", "Upstream", "engine_lost"]

_T = TypeVar("_T")
_DEATH_WITHIN_S = 5.0  # a broken connection whose engine lives on is no death


class EngineOwner(Protocol):
    """What is asked of the supervisor."""

    @property
    def state(self) -> str:
        """For display and the health check."""
        ...

    @property
    def generation(self) -> int:
        """The number of the engine that `ready` just returned."""
        ...

    async def ready(self) -> Launch:
        """Wait until an engine answers."""
        ...

    async def died(self, generation: int) -> EngineFailed:
        """Wait until that engine serves no more."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the engine; a body is JSON. `has_progress`: its stream begins with what the client did not ask."""

    method: str
    path: str
    body: bytes | None = None
    kind: Kind = "other"
    has_progress: bool = False

    @property
    def prompt_param(self) -> str | None:
        """What the prompt is called there."""
        return PROMPT_PARAM.get(self.kind)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine that runs says of itself; None: it does not say."""

    n_ctx: int | None = None  # of one slot
    n_parallel: int | None = None
    template_has_tools: bool | None = None


class Upstream:
    """Requests to whichever engine is ready. `wait_s`: how long a request waits for one."""

    def __init__(self, owner: EngineOwner, *, wait_s: float) -> None:
        self._owner = owner
        self._wait_s = wait_s
        self._launch: Launch | None = None
        self._session: aiohttp.ClientSession | None = None
        self._facts: EngineFacts | None = None  # of the engine in `_launch`

    @property
    def is_ready(self) -> bool:
        """Whether an engine answers, for the health check."""
        return self._owner.state == "ready"

    @property
    def has_failed(self) -> bool:
        """Whether the engine is given up, until somebody asks again."""
        return self._owner.state == "failed"

    @property
    def generation(self) -> int:
        """How many engines have served."""
        return self._owner.generation

    def send(self, session: aiohttp.ClientSession, call: Call) -> "aiohttp.client._RequestContextManager":
        """The engine's answer, as an asynchronous context: leaving it ends the generation."""
        # Nothing of the client's headers goes on: some of them (X-Conversation-Id) change what the engine does.
        headers = {"Content-Type": "application/json"} if call.body is not None else {}
        return session.request(call.method, call.path, data=call.body, headers=headers)

    async def twice(self, attempt: Callable[[aiohttp.ClientSession], Awaitable[_T]]) -> _T:
        """Run `attempt` on the engine; once more, on the next one, if the engine dies before it is done.

        For what the client has seen nothing of. Raises ApiError 503 without an engine, 502 when both died.
        """
        try:
            return await self._once(attempt)
        except _Lost:
            pass
        try:
            return await self._once(attempt)
        except _Lost as lost:
            raise engine_lost(str(lost)) from lost

    async def facts(self) -> EngineFacts:
        """What the engine says of itself, asked once of each engine. Raises ApiError as `twice` does."""

        async def ask(session: aiohttp.ClientSession) -> EngineFacts:
            async with self.send(session, Call("GET", "/props")) as answer:
                return _facts_in(await answer.json()) if answer.status == HTTPStatus.OK else EngineFacts()

        if self._facts is None:
            self._facts = await self.twice(ask)
        return self._facts

    async def reason_of_loss(self, generation: int, broken: Exception) -> str:
        """Why the connection to that engine broke; returns when the engine is known to be gone, or to live on."""
        with suppress(TimeoutError):
            return (await asyncio.wait_for(self._owner.died(generation), _DEATH_WITHIN_S)).reason
        return f"it broke the connection ({type(broken).__name__})"

    async def close(self) -> None:
        """Close what is open to the engine."""
        if self._session is not None:
            await self._session.close()

    async def _once(self, attempt: Callable[[aiohttp.ClientSession], Awaitable[_T]]) -> _T:
        session = await self._to_ready_engine()
        generation = self._owner.generation
        try:
            return await attempt(session)
        except (aiohttp.ClientError, ConnectionError) as broken:
            raise _Lost(await self.reason_of_loss(generation, broken)) from broken

    async def _to_ready_engine(self) -> aiohttp.ClientSession:
        try:
            launch = await asyncio.wait_for(self._owner.ready(), self._wait_s)
        except TimeoutError:
            raise _still_loading(self._wait_s) from None
        except EngineFailed as failed:
            raise ApiError(503, f"The engine is not running: {failed.reason}.", "engine_failed") from failed
        except (QrunError, OSError) as error:
            raise ApiError(503, f"The engine could not be started: {error}", "engine_failed") from error
        if self._session is None or launch is not self._launch:
            await self.close()
            self._launch, self._session, self._facts = launch, _session_to(launch), None
        return self._session


class _Lost(Exception):
    """The engine went away under a request."""


def _facts_in(props: Any) -> EngineFacts:
    settings, caps = props.get("default_generation_settings", {}), props.get("chat_template_caps", {})
    return EngineFacts(settings.get("n_ctx"), props.get("total_slots"), caps.get("supports_tool_calls"))


def engine_lost(reason: str) -> ApiError:
    """What a client is told whose answer the engine did not survive."""
    return ApiError(502, f"The engine stopped in the middle of the answer: {reason}. Ask again.", "engine_died")


def _still_loading(waited_s: float) -> ApiError:
    sentence = f"The model is not loaded after {waited_s:g} s. Ask again later."
    return ApiError(503, sentence, "loading", headers={"Retry-After": "30"})


def _session_to(launch: Launch) -> aiohttp.ClientSession:
    address = launch.address
    if isinstance(address, UnixAddress):
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(address.socket), limit=0, force_close=True)
        base = "http://localhost"
    else:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        base = f"http://{address.host}:{address.port}"
    headers = {"Authorization": f"Bearer {launch.api_key}"} if launch.api_key else {}
    return aiohttp.ClientSession(
        base,
        connector=connector,
        headers=headers,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),  # a long prompt is silent for minutes
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
