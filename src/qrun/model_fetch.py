"""The chosen model's bytes, brought to this disk while the server listens already.

A download takes minutes, in which clients are to be told to wait and Ctrl-C is to work: it runs in a thread of its own
beside the event loop. What an interrupted one had fetched stays, and the next start goes on from there.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from qrun.source import Advance, Report, quiet

__all__ = ["ModelFetch"]

_GIVE_UP_S = 2.0  # for the thread to notice; it is a daemon, and what it wrote survives even a kill


class _BrokenOff(BaseException):
    """Raised in the download's threads. No Exception, so that nothing in there takes it for a failure to retry."""


class ModelFetch:
    """One download, run once. `path` is the model's first file, known when it is over.

    `report` is told how far it is; it may be set until the download begins.
    """

    def __init__(self, fetch: Callable[[Report], Path], report: Report = quiet) -> None:
        self._fetch = fetch
        self.report = report
        self._broken_off = threading.Event()
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The model's first file on this disk. Raises RuntimeError before the download is over."""
        if self._path is None:
            raise RuntimeError("the model is not there yet")
        return self._path

    def run(self) -> None:
        """Fetch, here and now. Raises what the source raises."""
        if self._path is None:
            self._path = self._fetch(self._told)

    async def run_beside(self) -> None:
        """Fetch in a thread of its own; cancelled, the download is broken off where it is. Raises as `run` does."""
        if self._path is not None:
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(target=self._run_for, args=(loop, over), name="model-fetch", daemon=True)
        thread.start()
        try:
            await asyncio.shield(over)
        except asyncio.CancelledError:
            self._broken_off.set()
            with suppress(Exception):  # its own failure does not matter any more
                await asyncio.wait_for(asyncio.shield(over), _GIVE_UP_S)
            raise

    def _run_for(self, loop: asyncio.AbstractEventLoop, over: "asyncio.Future[None]") -> None:
        failure: BaseException | None = None
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to the one who waits
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, over, failure)

    def _told(self, advance: Advance) -> None:
        if self._broken_off.is_set():
            raise _BrokenOff
        self.report(advance)


def _settle(over: "asyncio.Future[None]", failure: BaseException | None) -> None:
    if over.done():
        return
    if failure is None:
        over.set_result(None)
    elif isinstance(failure, Exception):
        over.set_exception(failure)
    else:
        over.cancel()
