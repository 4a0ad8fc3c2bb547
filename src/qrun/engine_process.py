"""One engine process, started through its keeper (`keeper.py`), from its start until all of it is gone.

The keeper ends the engine when the pipe to it closes, so closing it is how qrun ends an engine, and what happens by
itself when qrun dies. Linux and macOS; Windows would need a job object in the keeper's place, and is refused.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from qrun.errors import Failure
from qrun.runner import Launch
from qrun.uninterrupted import wait_uninterrupted

__all__ = ["Ended", "EngineProcess"]

_KEEPER = Path(__file__).with_name("keeper.py")
_KEEPER_LIMIT_S = 15.0  # it needs 2 s for an engine that ignores SIGTERM; one that takes longer is stopped or stuck
_GROUP_LIMIT_S = 5.0  # for the kernel to take down a group after SIGKILL
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Ended:
    """How an engine ended: its exit `code`, negative for a signal; None where it never ran or nobody saw it end."""

    code: int | None
    not_started: str | None = None

    @property
    def leaves_no_reason(self) -> bool:
        """Whether the engine's log cannot tell why: it never ran, was killed, or was told to end."""
        return self.code in {None, 0, -signal.SIGKILL}

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it, which no engine sends itself."""
        return self.code == -signal.SIGKILL

    def __str__(self) -> str:
        """A verb phrase, for after `it`."""
        if self.not_started is not None:
            return f"could not be started: {self.not_started}"
        if self.code is None:
            return "was lost with its keeper process"
        return f"was ended by {_signal_name(-self.code)}" if self.code < 0 else f"exited with status {self.code}"


class EngineProcess:
    """A started engine. Made inside a running event loop; `end` must be awaited, whatever happened before.

    `ended` is done when the engine is dead (what it started may still be being ended); wait for it by `asyncio.wait`,
    which leaves it whole when the waiting is cancelled.
    """

    def __init__(self, launch: Launch, *, private_dir: Path, log_fd: int, environ: Mapping[str, str]) -> None:
        """Start it. Raises OSError where the keeper cannot be started, Failure on Windows."""
        if sys.platform == "win32":
            raise Failure("qrun cannot start engines on Windows.", "Run it in WSL.")
        self.pid: int | None = None
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self._keeper_left = asyncio.Event()
        self._heard = b""
        self._ending: asyncio.Task[None] | None = None
        self._keeper = _start_keeper(launch, private_dir=private_dir, log_fd=log_fd, environ=environ)
        self._pipe, self._status = cast("IO[bytes]", self._keeper.stdin), cast("IO[bytes]", self._keeper.stdout)
        self._loop.add_reader(self._status, self._hear)

    async def end(self) -> None:
        """End the engine and all it started; returns when they are gone. Not broken by cancellation; safe to repeat."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        await wait_uninterrupted(self._ending)
        self._ending.result()

    async def _end(self) -> None:
        self._pipe.close()
        try:
            async with asyncio.timeout(_KEEPER_LIMIT_S):
                await self._keeper_left.wait()
        except TimeoutError:
            self._keeper.kill()
            await self._keeper_left.wait()
        while self._keeper.poll() is None:  # noqa: ASYNC110 - no event tells of an exit; its pipe is closed, so it is near
            await asyncio.sleep(_POLL_S)
        if self.pid is not None and self.ended.result().code is None:  # the keeper left before the engine
            await _kill_group(self.pid)

    def _hear(self) -> None:
        """Take in what the keeper says; end of file says that it has left."""
        said = os.read(self._status.fileno(), 4096)
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            self._understand(line.decode(errors="replace"))
        if not said:
            self._loop.remove_reader(self._status)
            self._status.close()
            self._keeper_left.set()
            self._set_ended(Ended(None))

    def _understand(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "engine":
            self.pid = int(rest)
        elif word == "failed":
            self._set_ended(Ended(None, not_started=rest))
        elif word == "exit":
            self._set_ended(Ended(int(rest)))

    def _set_ended(self, ended: Ended) -> None:
        if not self.ended.done():  # the first to tell knows most
            self.ended.set_result(ended)


def _start_keeper(
    launch: Launch, *, private_dir: Path, log_fd: int, environ: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    # -I and -S: no variable, folder or site package of the user's reaches the keeper; the engine inherits `env` whole.
    # A session of its own: Ctrl-C in the terminal is for qrun, which ends the engine in its own order.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", _KEEPER, private_dir, *launch.argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log_fd,
        bufsize=0,
        env={**environ, **launch.env},
        start_new_session=True,
    )


async def _kill_group(pid: int) -> None:
    """Kill a group that has lost its keeper, until the kernel knows it no more. Raises Failure if it stays."""
    deadline = time.monotonic() + _GROUP_LIMIT_S
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            return
        with contextlib.suppress(ChildProcessError):  # they are ours to reap where qrun is process 1 of a container
            os.waitpid(-pid, os.WNOHANG)  # noqa: ASYNC222 - does not block
        await asyncio.sleep(_POLL_S)
    raise Failure(f"engine process {pid} does not end, not even by SIGKILL.", "Its memory stays taken until it does.")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
