"""The installed engine asked what a choice takes, before anything is downloaded (DESIGN 3.4).

The file's header is written into a sparse file of the file's size, in a private folder; the engine lays the model out
from that alone, with the choice's own settings, tells its memory and is ended. It never holds the asker up: an engine
that says nothing within the limit, or cannot be started, has said nothing.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from qrun.engine_memory import EngineWord, need_told
from qrun.gguf_header import HeaderDamaged, read_header
from qrun.hardware import Hardware
from qrun.hub_client import HubClient
from qrun.model import Candidate, ModelFile
from qrun.private_dir import make_private_dir, remove_private_dir
from qrun.resolution import Choice
from qrun.runner import DryRunner, Engine, Launch, ServePlan
from qrun.store_layout import blob_key

__all__ = ["ReadFile", "asked", "header_files", "hub_reader", "plan_of"]

ReadFile = Callable[[ModelFile, int, int], bytes]  # a file of the candidate, an offset, a number of bytes

_LIMIT_S = 20.0  # 0.3 s on two cores; waking a GPU takes a second or two
_READ_BYTES = 64 * 1024


def asked(
    choice: Choice,
    plan: ServePlan,
    runner: DryRunner,
    engine: Engine,
    hardware: Hardware,
    *,
    read: ReadFile,
    environ: Mapping[str, str],
    limit_s: float = _LIMIT_S,
) -> EngineWord:
    """What `engine` says of `choice`. `plan` is what it would be served by; its paths are put in here.

    `read` gives the candidate's bytes (ranged, cached); what it raises passes through. Raises nothing of its own: what
    keeps the engine from an answer is the word's `silence`.
    """
    try:
        folder = make_private_dir(environ)
    except OSError as error:
        return EngineWord(silence=f"no temporary folder: {error.strerror}")
    try:
        model = header_files(choice.candidate.files, folder, read)
        log = _log_of(runner.dry_run(engine, _placed(plan, model, folder)), runner, environ, limit_s)
    except (OSError, HeaderDamaged) as error:
        return EngineWord(silence=str(error))
    finally:
        remove_private_dir(folder)
    if refusal := runner.refuses_model(log):
        return EngineWord(refusal=refusal)
    if places := runner.memory_told(log):
        return EngineWord(need=need_told(places, choice, hardware))
    return EngineWord(silence="the engine did not tell its memory")


def plan_of(choice: Choice, *, cuda_uuids: tuple[str, ...] = ()) -> ServePlan:
    """What a choice would be served by, as far as its memory depends on it."""
    return ServePlan(
        model_path=Path(),
        alias="dry-run",
        n_ctx=choice.n_ctx,
        n_parallel=choice.n_parallel,
        kv_cache_type=choice.kv_cache_type,
        placement=choice.placement,
        threads=1,
        cache_ram_bytes=0,
        private_dir=Path(),
        cuda_uuids=cuda_uuids,
    )


def hub_reader(client: HubClient, candidate: Candidate) -> ReadFile:
    """The candidate's files on the Hub. What was read of their headers before is in the client's cache."""
    repo_id, commit = candidate.repo_id or "", candidate.revision or ""

    def read(file: ModelFile, start: int, n: int) -> bytes:
        key = blob_key(file) or f"{repo_id}@{commit}/{file.path}"
        return client.read(repo_id, commit, file.path, key=key, start=start, n=n)

    return read


def header_files(files: Iterable[ModelFile], folder: Path, read: ReadFile) -> Path:
    """Write each file's header and a hole as large as the rest; returns the first. Raises HeaderDamaged, OSError."""
    paths = []
    for file in files:
        header = read_header(partial(read, file), file.size_bytes)
        path = folder / PurePosixPath(file.path).name
        with path.open("xb") as out:
            out.write(read(file, 0, header.data_offset))
            out.truncate(file.size_bytes)
        paths.append(path)
    return paths[0]


def _placed(plan: ServePlan, model: Path, folder: Path) -> ServePlan:
    return replace(plan, model_path=model, private_dir=folder, mmproj_path=None)


def _log_of(launch: Launch, runner: DryRunner, environ: Mapping[str, str], limit_s: float) -> str:
    """The engine's log as far as it is of interest. The engine is ended, with all its children, in any case."""
    child = subprocess.Popen(
        launch.argv,
        env={**environ, **launch.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    alarm = threading.Timer(limit_s, _end, [child])
    alarm.start()
    try:
        return _until_told(child, runner)
    finally:
        alarm.cancel()
        _end(child)
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def _until_told(child: subprocess.Popen[bytes], runner: DryRunner) -> str:
    text = ""
    while child.stderr is not None and (chunk := os.read(child.stderr.fileno(), _READ_BYTES)):
        text += chunk.decode(errors="replace")
        if runner.memory_told(text):
            break
    return text


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
