"""Launches of the engines that the supervisor's tests start, and how they wait for what has to happen."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from qrun.runner import FailureReason, Launch, UnixAddress

_STAND_IN = Path(__file__).with_name("stand_in_engine.py")


class StandInRunner:
    """What the supervisor asks of a runner: its name, and the reason in a log."""

    name = "stand-in"

    def explain_failure(self, log_text: str) -> FailureReason | None:
        """The reason of the stand-in that dies while loading."""
        found = re.search(r"the weights are made of \w+", log_text)
        return FailureReason(found[0]) if found else None


def stand_in(behaviour: str = "answers", **env: str) -> Callable[[Path], Launch]:
    """Launches of the stand-in, in one behaviour."""

    def launch(private_dir: Path) -> Launch:
        engine = private_dir / "engine.sock"
        argv = (sys.executable, "-I", "-S", str(_STAND_IN), str(engine), behaviour)
        return Launch(argv, UnixAddress(engine), env=env)

    return launch


_READY = """
import signal, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], [sys.argv[2]], 0
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 4096, 1, 2
server = xllamacpp.Server(params)
while True:
    signal.pause()
"""


def native(server: Path, model: Path) -> Callable[[Path], Launch]:
    """Launches of llama-server with one slot of 4096 tokens."""

    def launch(private_dir: Path) -> Launch:
        engine = private_dir / "engine.sock"
        argv = (server, "-m", model, "--host", engine, "-c", 4096, "-np", 1, "-t", 2, "--no-warmup")
        return Launch(tuple(map(str, argv)), UnixAddress(engine))

    return launch


def ready(python: Path, model: Path) -> Callable[[Path], Launch]:
    """Launches of the ready engine, like `native`."""

    def launch(private_dir: Path) -> Launch:
        engine = private_dir / "engine.sock"
        return Launch((str(python), "-c", _READY, str(model), str(engine)), UnixAddress(engine))

    return launch


LAUNCHES = {"native": native, "ready": ready}


@asynccontextmanager
async def open_stream(launch: Launch, n_predict: int = -1) -> AsyncIterator[asyncio.StreamReader]:
    """A streamed answer that goes on, unless `n_predict` tokens end it, until the context is full."""
    body = {"prompt": "Once upon a time", "n_predict": n_predict, "ignore_eos": True, "stream": True, "temperature": 0}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(launch.address.socket)
    head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    try:
        writer.write(head.encode() + data)
        yield reader
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def complete(launch: Launch) -> str:
    """Eight tokens of an answer, whole."""
    async with open_stream(launch, n_predict=8) as stream:
        lines = (await stream.read()).decode().splitlines()
    return "".join(json.loads(line.removeprefix("data: "))["content"] for line in lines if line.startswith("data: "))


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], object], within_s: float = 30) -> None:
    """Wait until the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {within_s} s: {condition}"
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], within_s: float = 30) -> None:
    """`until`, outside of an event loop."""
    asyncio.run(until(condition, within_s))


def kill(pid: int | None, number: int) -> None:
    """Send a signal to a process that must be there."""
    assert pid is not None
    os.kill(pid, number)
