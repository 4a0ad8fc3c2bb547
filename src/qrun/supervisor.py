"""Who owns an engine's process: one task starts it, knows its state, restarts it and stops it.

Others ask for an outcome (`ready`, `died`, `stop`) and never read the state to decide what to do next.

The rules:
- An engine that never answered is not tried again by itself: a second try would fail alike. `ready` reports it at once
  to everyone who waits or asks in the following seconds, after that it tries again.
- One that has served is restarted as soon as it died, after a growing pause; the third death within a minute is final
  in the same sense.
- Every start asks `launch` for a new command with a new private folder: no stale socket, no used key.
- A stopped supervisor stays stopped, so that no late request starts an engine that nobody would stop.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from qrun.engine_health import until_healthy
from qrun.engine_log import EngineLog
from qrun.engine_process import Ended, EngineProcess
from qrun.errors import EngineFailed
from qrun.private_dir import make_private_dir, remove_private_dir
from qrun.runner import FailureReason, Launch
from qrun.uninterrupted import wait_uninterrupted

__all__ = ["Explainer", "State", "Supervisor"]

State = Literal["stopped", "starting", "ready", "failed", "stopping"]

_PAUSES_S = (0.0, 1.0)  # before the restart after a first and a second death; a third is final
_DEATHS_WITHIN_S = 60.0
_FAILED_FOR_S = 10.0  # how long a failure is reported before `ready` tries again
_LOG_CHECK_S = 60.0

_log = logging.getLogger(__name__)


async def _nothing() -> None:
    """Where nothing is to be prepared."""


async def _no_other_way(_failure: EngineFailed) -> None:
    """Where an engine that failed would fail again."""


class Explainer(Protocol):
    """What the supervisor asks of a runner."""

    @property
    def name(self) -> str:
        """What the engine is called."""
        ...

    def explain_failure(self, log_text: str) -> FailureReason | None:
        """The engine's own reason, found in its log."""
        ...


class Supervisor:
    """The owner of one engine's process. `launch` is given the private folder of each start (mode 0700).

    `prepare` is awaited before an engine is launched for the first time: what it fetches (the model) is then there.
    `otherwise` is asked when an engine never answered: the words for what `launch` gives differently from now on, for
    one more start; None: there is nothing more to try. What it raises ends the start as a failure.
    """

    def __init__(
        self,
        launch: Callable[[Path], Launch],
        *,
        runner: Explainer,
        log_path: Path,
        environ: Mapping[str, str],
        ready_timeout_s: float = 600,
        prepare: Callable[[], Awaitable[None]] = _nothing,
        otherwise: Callable[[EngineFailed], Awaitable[str | None]] = _no_other_way,
    ) -> None:
        self._launch = launch
        self._prepare = prepare
        self._otherwise = otherwise
        self._tried: list[str] = []  # what was changed after failures, for the next log's first lines
        self._runner = runner
        self._engine_log = EngineLog(log_path)
        self._environ = environ
        self._ready_timeout_s = ready_timeout_s
        self._state: State = "stopped"
        self._stopped = False
        self._owner: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[Launch] | None = None  # of the start under way, or of the last one
        self._process: EngineProcess | None = None
        self._failed_at = 0.0
        self._generation = 0
        self._death: asyncio.Future[EngineFailed] | None = None  # of the current generation

    @property
    def state(self) -> State:
        """For display and `/health`; never for decisions."""
        return self._state

    @property
    def generation(self) -> int:
        """How many engines have become ready; read right after `ready`, the number of the one it returned."""
        return self._generation

    @property
    def pid(self) -> int | None:
        """The engine's process id while it lives, to measure its memory."""
        return self._process.pid if self._process is not None and not self._process.ended.done() else None

    @property
    def log_path(self) -> Path:
        """Where the engine writes."""
        return self._engine_log.path

    def log_tail(self) -> str:
        """The last 64 KiB of what the engine wrote."""
        return self._engine_log.tail(after=self._tried)

    async def ready(self) -> Launch:
        """Wait until an engine answers, starting or restarting one if need be; raises EngineFailed.

        Single-flight: all callers wait for the same start. A caller that is cancelled does not stop the start. What
        `prepare` and `launch` raise is raised here, and OSError where the log or the private folder cannot be written.
        """
        if self._stopped:
            raise self._failure("qrun is stopping it")
        if self._outcome is None or self._may_try_again():
            self._outcome = self._begin()
        return await asyncio.shield(self._outcome)

    async def died(self, generation: int) -> EngineFailed:
        """Wait until the engine of `generation` serves no more; returns how it ended, at once if it is gone.

        A death is known within milliseconds, but a connection can break before that: who sees a broken connection
        waits here (with a limit) and then asks `ready` for the next engine.
        """
        if self._death is None or generation != self._generation:
            return self._failure("it is gone")
        return await asyncio.shield(self._death)

    async def stop(self) -> None:
        """End the engine and everything it started; returns when its memory is free. Safe to call twice.

        A start under way is broken off. Cancellation does not break `stop`, and is raised when all is done. Raises
        Failure if the kernel does not let the process go.
        """
        first, self._stopped = not self._stopped, True
        if self._owner is None:
            return
        if first:
            self._break_off(self._owner)
        try:
            await wait_uninterrupted(self._owner)
        finally:
            self._state = "stopped"
        if not self._owner.cancelled():
            self._owner.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _begin(self) -> "asyncio.Future[Launch]":
        loop = asyncio.get_running_loop()
        self._state = "starting"
        self._owner = loop.create_task(self._own())
        return loop.create_future()

    def _may_try_again(self) -> bool:
        return self._state == "failed" and time.monotonic() - self._failed_at >= _FAILED_FOR_S

    def _break_off(self, owner: "asyncio.Task[None]") -> None:
        self._state = "stopping"
        owner.cancel()
        stopping = self._failure("qrun is stopping it")
        self._tell_waiting(stopping)
        self._tell_death(stopping)

    async def _own(self) -> None:
        """The owner: keeps an engine alive until it cannot be, or until `stop` cancels it."""
        try:
            await self._keep_alive()
        except Exception as error:  # whatever it is, those who wait are told it: nobody awaits this task but `stop`
            if self._stopped:
                raise  # to `stop`
            self._state, self._failed_at = "failed", time.monotonic()
            self._tell_waiting(error)
            self._tell_death(self._failure(str(error)))

    async def _keep_alive(self) -> None:
        await self._prepare()
        before = self._generation
        deaths: list[float] = []
        while True:
            failure = await self._live()
            if self._generation == before:  # it never served
                if (change := await self._otherwise(failure)) is None:
                    raise failure
                self._tried.append(f"qrun: {failure.reason}; trying again with {change}")
                continue
            deaths = [*(at for at in deaths if time.monotonic() - at < _DEATHS_WITHIN_S), time.monotonic()]
            if len(deaths) > len(_PAUSES_S):
                final = self._failure(f"{failure.reason} ({len(deaths)} deaths within a minute)")
                _log.error("%s It is not started again.", final)
                raise final
            _log.warning("%s Starting it again.", failure)
            await asyncio.sleep(_PAUSES_S[len(deaths) - 1])

    async def _live(self) -> EngineFailed:
        """One engine, from its launch until all of it is gone; returns why it ended."""
        private_dir = make_private_dir(self._environ)
        try:
            launch = self._launch(private_dir)
            self._process = self._spawn(launch, private_dir)
            try:
                return await self._serve(self._process, launch)
            finally:
                await self._process.end()
        finally:
            remove_private_dir(private_dir)

    def _spawn(self, launch: Launch, private_dir: Path) -> EngineProcess:
        log_fd = self._engine_log.open(self._tried)
        try:
            return EngineProcess(launch, private_dir=private_dir, log_fd=log_fd, environ=self._environ)
        finally:
            os.close(log_fd)

    async def _serve(self, process: EngineProcess, launch: Launch) -> EngineFailed:
        failure = await self._until_ready(process, launch)
        if failure is not None:
            return failure
        self._now_ready(launch)
        while not process.ended.done():
            await asyncio.wait({process.ended}, timeout=_LOG_CHECK_S)
            self._engine_log.keep_small()
        failure = self._explain(process.ended.result())
        self._now_dead(failure)
        return failure

    async def _until_ready(self, process: EngineProcess, launch: Launch) -> EngineFailed | None:
        """Wait until the engine answers; returns why it never will."""
        probe = asyncio.create_task(until_healthy(launch))
        either: set[asyncio.Future[Any]] = {probe, process.ended}
        try:
            await asyncio.wait(either, timeout=self._ready_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if process.ended.done():  # asked first: somebody else may answer on a port that was to be ours
                return self._explain(process.ended.result(), loading=True)
            if probe.done():
                return probe.result()  # None; or what went wrong in the probe is raised
            limit = f"{self._ready_timeout_s:g} s"
            return self._failure(f"it did not answer {launch.health_path} within {limit}")
        finally:
            probe.cancel()
            await asyncio.wait({probe})

    def _now_ready(self, launch: Launch) -> None:
        self._state = "ready"
        self._generation += 1
        self._death = asyncio.get_running_loop().create_future()
        if self._outcome is not None:
            self._outcome.set_result(launch)

    def _now_dead(self, failure: EngineFailed) -> None:
        """From here on `ready` waits for the next engine."""
        self._state = "starting"
        self._outcome = asyncio.get_running_loop().create_future()
        self._tell_death(failure)

    def _tell_waiting(self, error: Exception) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # asyncio complains of one that nobody waited for

    def _tell_death(self, failure: EngineFailed) -> None:
        if self._death is not None and not self._death.done():
            self._death.set_result(failure)

    def _explain(self, ended: Ended, *, loading: bool = False) -> EngineFailed:
        if ended.leaves_no_reason:
            failure = self._failure(f"it {ended}")
            # Nobody else kills an engine that loads: the kernel does, where RAM or the cgroup's share of it runs out.
            failure.lacks_memory = loading and ended.was_killed
            return failure
        text = self._engine_log.tail(after=self._tried)
        found = self._runner.explain_failure(text)
        if found is None:
            return self._failure(f"it {ended}{_last_line(text)}")
        failure = self._failure(found.words)
        failure.lacks_memory, failure.wanted_bytes = found.lacks_memory, found.wanted_bytes
        return failure

    def _failure(self, reason: str) -> EngineFailed:
        return EngineFailed(self._runner.name, reason.rstrip("."), str(self._engine_log.path))


def _last_line(text: str) -> str:
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), None)
    return f" after {last[:200]!r}" if last else ""
