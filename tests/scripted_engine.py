"""An engine that does what a test says: it speaks HTTP on a unix socket and misbehaves on demand.

For faults that a real engine shows seldom or slowly. Its owner is what the front asks of the supervisor.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from qrun.errors import EngineFailed
from qrun.runner import Launch, TcpAddress, UnixAddress

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedEngine:
    """Answers every request by `script`; can be away, come back, and die."""

    def __init__(self, folder: Path, *, port_key: str | None = None) -> None:
        self.script: Script = nothing
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []
        self.generation = 0
        self.failure: Exception | None = None
        self.open_requests = 0
        self._folder = folder
        self._port_key = port_key  # the key of an engine on a loopback port; None: on a unix socket
        self._runner: web.AppRunner | None = None
        self._up = asyncio.Event()
        self._launch: Launch | None = None
        self._death: asyncio.Future[EngineFailed] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """As the supervisor's."""
        if self.failure is not None:
            return "failed"
        return "ready" if self._up.is_set() else "starting"

    async def ready(self) -> Launch:
        """Wait for `start`."""
        if self.failure is not None:
            raise self.failure
        await self._up.wait()
        return self._launch

    async def died(self, generation: int) -> EngineFailed:
        """Wait for `die`."""
        if generation != self.generation or self._death is None:
            return EngineFailed("scripted", "it is gone")
        return await asyncio.shield(self._death)

    async def start(self) -> None:
        """Begin to answer."""
        socket = self._folder / f"{self.generation}.sock"
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        if self._port_key is None:
            await web.UnixSite(self._runner, str(socket)).start()
            self._launch = Launch((), UnixAddress(socket))
        else:
            site = web.TCPSite(self._runner, "127.0.0.1", 0)
            await site.start()
            self._launch = Launch((), TcpAddress(*self._runner.addresses[0]), self._port_key)
        self._death = asyncio.get_running_loop().create_future()
        self.generation += 1
        self._up.set()

    async def die(self) -> None:
        """Break every connection, as a killed process does."""
        self._up.clear()
        runner, self._runner = self._runner, None
        if self._death is not None and not self._death.done():
            self._death.set_result(EngineFailed("scripted", "it was ended by SIGKILL"))
        if runner is not None:
            await runner.cleanup()

    async def stop(self) -> None:
        """As the supervisor's."""
        await self.die()

    async def restart(self) -> None:
        """Die and start again."""
        await self.die()
        await self.start()

    async def killed(self, *, restarts: bool = False) -> None:
        """For a script: die under the request that it answers. Does not return."""
        self._ending = asyncio.create_task(self.restart() if restarts else self.die())
        await nothing()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/props":
            return web.json_response({"chat_template_caps": {"supports_tool_calls": True}})
        if request.path == "/metrics":
            return web.Response(text="llamacpp:requests 1\n")
        self.requests.append((request.path, await request.read(), dict(request.headers)))
        self.open_requests += 1
        try:
            return await self.script(request)
        finally:
            self.open_requests -= 1


async def nothing(_request: web.Request | None = None) -> web.StreamResponse:
    """Wait for ever."""
    await asyncio.Event().wait()
    raise AssertionError


def stream_of(*frames: bytes, then: Callable[[], Awaitable[None]] | None = None) -> Script:
    """A stream of these frames; `then` runs before its end."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for frame in frames:
            await response.write(frame)
        if then is not None:
            await then()
        await response.write_eof()
        return response

    return script


def json_of(body: object, status: int = 200) -> Script:
    """One JSON answer."""

    async def script(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return script
