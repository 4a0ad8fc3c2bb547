"""The engines' own account of the memory a model takes: llama-server's dry run, read from its log.

Before it loads anything the server lays the model out and prints a breakdown, one line a device and one for the host,
in whole MiB. It is stopped at once after that. Both engines print the same lines.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "dry_run", "native_command", "ready_command", "stand_in_gpus"]

_DEADLINE_S = 60
_TABLE, _AFTER = "memory_breakdown_print", "params_fit_impl"
_NUMBERS = re.compile(r"\d+")

# What the runner's child does, cut down to the load; arguments: model, n_ctx, n_parallel, KV type, socket.
_READY = """
import sys, xllamacpp
model, n_ctx, n_parallel, kv, socket = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = model, [socket], 0
params.n_parallel, params.n_ctx, params.kv_unified = int(n_parallel), int(n_ctx) * int(n_parallel), False
params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{kv.upper()}")
params.verbosity, params.warmup, params.no_extra_bufts, params.ui = 4, False, True, False
xllamacpp.Server(params)
"""


@dataclass(frozen=True)
class Row:
    """One line of the breakdown, in MiB, rounded down by the engine: `total` is of bytes, not of the others."""

    place: str
    total: int
    model: int
    context: int
    compute: int


def native_command(
    server: Path, model: Path, *, n_ctx: int, n_parallel: int, kv: str, more: Sequence[str] = ()
) -> list[str]:
    """A llama-server that prints its breakdown; the socket's path is to be put at the end."""
    sizes = ["-c", str(n_ctx * n_parallel), "-np", str(n_parallel), "-ctk", kv, "-ctv", kv]
    return [str(server), "-m", str(model), *sizes, "-lv", "4", "--no-repack", "--no-warmup", *more, "--host"]


def ready_command(python: Path, model: Path, *, n_ctx: int, n_parallel: int, kv: str) -> list[str]:
    """The same of the ready engine."""
    return [str(python), "-c", _READY, str(model), str(n_ctx), str(n_parallel), kv]


def dry_run(command: Sequence[str]) -> list[Row]:
    """The breakdown that `command` prints; raises RuntimeError with the log's end where it prints none."""
    with tempfile.TemporaryDirectory(prefix="qrun-dry-") as folder, ExitStack() as stack:
        child = subprocess.Popen(
            [*command, f"{folder}/s.sock"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        stack.callback(_end, child)
        alarm = threading.Timer(_DEADLINE_S, _end, [child])
        alarm.start()
        stack.callback(alarm.cancel)
        assert child.stderr is not None
        lines = _until_told(child.stderr)
    rows = [row for row in map(_row, lines) if row]
    if not rows:
        raise RuntimeError(f"no memory breakdown: {''.join(lines[-5:])}")
    return rows


def _until_told(log: Iterator[str]) -> list[str]:
    lines = []
    for line in log:
        lines.append(line)
        if _AFTER in line and any(_TABLE in earlier for earlier in lines):
            break
    return lines


def _row(line: str) -> Row | None:
    if _TABLE not in line or "|   - " not in line:
        return None
    place, numbers = line.split("|   - ")[1].split("|", 1)
    values = [int(number) for number in _NUMBERS.findall(numbers)]
    # A device's line starts with its total and free memory.
    return Row(place.strip(), *(values[:4] if place.startswith("Host") else values[2:6]))


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stderr is not None:
        child.stderr.close()


@contextmanager
def stand_in_gpus(server: Path, count: int) -> Iterator[str]:
    """`count` ggml-rpc-servers beside `server`, which llama.cpp takes for devices; gives the value of `--rpc`."""
    with ExitStack() as stack:
        addresses = []
        for _ in range(count):
            port = _free_port()
            child = subprocess.Popen(
                [str(server.with_name("ggml-rpc-server")), "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
            stack.callback(_end, child)
            _wait_for(port)
            addresses.append(f"127.0.0.1:{port}")
        yield ",".join(addresses)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
