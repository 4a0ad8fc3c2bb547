"""Serving a model until a signal: listen, start the engine, answer, and leave nothing behind.

The socket listens before the engine starts, so that clients can wait instead of being refused. An engine that fails at
its start ends the server; one that dies later is started again by its supervisor.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qrun.errors import EngineFailed
from qrun.gateway.front import Front
from qrun.gateway.served_names import ServedModel
from qrun.supervisor import Supervisor

__all__ = ["serve"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORDS_S = 2.0  # for streams that are open to end with an error event


async def serve(
    supervisor: Supervisor,
    planned: Callable[[], ServedModel],
    listener: socket.socket,
    *,
    api_key: str | None,
    hosts: frozenset[str] | None,
    on_ready: Callable[[ServedModel], None],
    watch: Callable[[Front], Coroutine[Any, Any, None]] | None = None,
) -> signal.Signals:
    """Serve until SIGINT or SIGTERM, and return which it was. Raises EngineFailed if the engine does not start.

    `planned` says what is to be served as things stand: a step down changes it. `on_ready` is told what is served in
    truth: the engine's own context and slots. `watch` runs from then on, and is cancelled before the engine is stopped.
    The engine and everything it started is gone on return. A second signal ends this process at once; the engine's
    keeper sees to the engine then.
    """
    from aiohttp import web

    from qrun.gateway.app import FRONT, make_app

    app = make_app(supervisor, planned(), api_key=api_key, hosts=hosts)
    site_runner = web.AppRunner(
        app, handle_signals=False, access_log=None, handler_cancellation=True, shutdown_timeout=_LAST_WORDS_S
    )
    watching: asyncio.Task[None] | None = None
    with _signals_caught() as ended:
        await site_runner.setup()
        try:
            await web.SockSite(site_runner, listener).start()
            await _until_ready(supervisor, ended)
            if not ended.done():
                on_ready(await app[FRONT].learn(planned()))
                if watch is not None:
                    watching = asyncio.create_task(watch(app[FRONT]))
            return await ended
        finally:
            if watching is not None:  # while there is an engine to ask
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
            await supervisor.stop()  # first: streams that are open end with an error event, not with silence
            await site_runner.cleanup()


async def _until_ready(supervisor: Supervisor, ended: "asyncio.Future[signal.Signals]") -> None:
    """Wait for the engine, or for a signal that comes before it."""
    starting = asyncio.ensure_future(supervisor.ready())
    either: set[asyncio.Future[Any]] = {starting, ended}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        return
    starting.cancel()
    with suppress(asyncio.CancelledError, EngineFailed):
        await starting


@contextmanager
def _signals_caught() -> "Iterator[asyncio.Future[signal.Signals]]":
    """The first signal as a future; what handled them before does again afterwards."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if ended.done():
            os._exit(128 + number)
        ended.set_result(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        with suppress(NotImplementedError):  # Windows: there Ctrl-C cancels the task that runs this
            loop.add_signal_handler(number, on_signal, number)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)
