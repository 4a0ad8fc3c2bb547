"""`qrun serve`, and the very engine that it started once more without qrun: the two sides of every comparison.

The bare engine gets the command line that qrun gave its own, read from the running process; only the address differs,
a loopback port in place of qrun's private socket.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["ServerFailed", "bare_engine", "engine_argv", "free_port", "qrun_serve", "wait_until_ready"]

_READY_WITHIN_S = 120
_STOPPED_WITHIN_S = 30


class ServerFailed(Exception):
    """A server that would not start, answer or stop."""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def qrun_serve(args: Sequence[str], *, port: int, log: Path) -> Iterator[psutil.Process]:
    """`qrun serve ARGS` on `port`, stopped at the end; not waited for."""
    qrun = Path(sys.executable).with_name("qrun")
    with _running([str(qrun), "serve", *args, "--port", str(port)], log) as process:
        yield process


@contextmanager
def bare_engine(argv: Sequence[str], *, port: int, log: Path) -> Iterator[psutil.Process]:
    """The engine of `argv` (from `engine_argv`) on a loopback port, stopped at the end; not waited for."""
    at = argv.index("--host")
    with _running([*argv[:at], "--host", "127.0.0.1", "--port", str(port), *argv[at + 2 :]], log) as process:
        yield process


def engine_argv(qrun: psutil.Process) -> list[str]:
    """The command line of the engine that `qrun serve` runs. Raises ServerFailed where it runs none."""
    for child in qrun.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            argv = child.cmdline()
            if argv and Path(argv[0]).name.startswith("llama-server") and "--host" in argv:
                return argv
    raise ServerFailed(
        "qrun serve runs no llama-server: install the native engine (qrun engines install llamacpp --build)"
    )


def wait_until_ready(process: psutil.Process, port: int, *, every_s: float = 0.01) -> None:
    """Return when `/health` says 200. Raises ServerFailed where the process ends first or takes too long."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while not _is_ready(port):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise ServerFailed(f"{process.pid} ended before it was ready (see its log)")
        if time.monotonic() > deadline:
            raise ServerFailed(f"{process.pid} was not ready within {_READY_WITHIN_S} s")
        time.sleep(every_s)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _running(argv: Sequence[str], log: Path) -> Iterator[psutil.Process]:
    with log.open("ab") as out:
        process = psutil.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=dict(os.environ))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOPPED_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
