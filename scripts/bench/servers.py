"""`qrun serve`, and the very engine that it started once more without qrun: the two sides of every comparison.

The bare engine gets the command line and environment that qrun gave its own, read from the running process; only the
address differs, a loopback port in place of qrun's private socket.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = [
    "EngineCommand",
    "ServerFailed",
    "bare_engine",
    "engine_command",
    "free_port",
    "qrun_serve",
    "wait_until_ready",
]

_PLAN = "QRUN_LLAMACPP_PLAN"
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


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """An engine's command line and environment, as qrun made them."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]

    def on_port(self, port: int) -> "EngineCommand":
        """The same engine, listening on a loopback port."""
        if _PLAN in self.environ:  # the ready engine is told everything by one JSON document
            plan = json.loads(self.environ[_PLAN]) | {"hostname": "127.0.0.1", "port": port}
            return EngineCommand(self.argv, {**self.environ, _PLAN: json.dumps(plan)})
        at = self.argv.index("--host")
        host = ("--host", "127.0.0.1", "--port", str(port))
        return EngineCommand((*self.argv[:at], *host, *self.argv[at + 2 :]), self.environ)

    def shown(self) -> str:
        """One line for the report: what it was told, without this machine's folders."""
        if _PLAN in self.environ:
            plan = json.loads(self.environ[_PLAN])
            return f"xllamacpp with {json.dumps(plan | {key: Path(plan[key]).name for key in ('model', 'hostname')})}"
        return " ".join(Path(word).name if word.startswith("/") else word for word in self.argv)


@contextmanager
def bare_engine(command: EngineCommand, *, port: int, log: Path) -> Iterator[psutil.Process]:
    """The engine of `command` on a loopback port, stopped at the end; not waited for."""
    alone = command.on_port(port)
    with _running(alone.argv, log, alone.environ) as process:
        yield process


def engine_command(qrun: psutil.Process) -> EngineCommand:
    """What `qrun serve` runs its engine with. Raises ServerFailed where it runs none."""
    for child in qrun.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            argv, environ = child.cmdline(), child.environ()
            if argv and _is_engine(argv):
                return EngineCommand(tuple(argv), environ)
    raise ServerFailed("qrun serve runs no llama.cpp engine")


def _is_engine(argv: Sequence[str]) -> bool:
    if any(Path(word).name == "keeper.py" for word in argv):  # between qrun and the engine, with its command line
        return False
    return Path(argv[0]).name.startswith("llama-server") or Path(argv[-1]).name == "xllamacpp_server.py"


def wait_until_ready(process: psutil.Process, port: int, *, every_s: float = 0.01) -> None:
    """Return when `/health` says 200. Raises ServerFailed where the process ends first or takes too long."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while not _is_ready(port):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise ServerFailed("a server ended before it was ready")
        if time.monotonic() > deadline:
            raise ServerFailed(f"a server was not ready within {_READY_WITHIN_S} s")
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
def _running(argv: Sequence[str], log: Path, environ: Mapping[str, str] = os.environ) -> Iterator[psutil.Process]:
    with log.open("ab") as out:
        process = psutil.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=dict(environ))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOPPED_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
