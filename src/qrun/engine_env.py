"""Environments of engines: made by venv, filled by pip with pinned hashes, each step a child that dies with qrun.

pip is the user's: its configuration, index, proxy and certificates hold. qrun's own pip fills an environment that has
none (it saves the 3.5 s of giving it one); without one the environment gets its own, from ensurepip or by uv.
"""

import asyncio
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qrun.engine_process import EngineProcess
from qrun.errors import Failure, FileDamaged
from qrun.runner import Launch, UnixAddress

__all__ = ["Workshop", "make_environment", "pip_command", "python_of", "requirement"]

_POLL_S = 0.1
_TAIL_BYTES = 256 * 1024
# What would put the packages elsewhere, or forbid what we do.
_NOT_FOR_PIP = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV",
    "PYTHONHOME",
    "PYTHONPATH",
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where an installation works: its scratch folder (removed by the steps themselves), log and environment."""

    scratch: Path
    log_path: Path
    environ: Mapping[str, str]

    def run(
        self,
        argv: Sequence[str],
        *,
        extra: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run one step; its output goes to the log, and line by line to `on_line`.

        However qrun ends, the step and all it started end with it. Raises Failure with the log's most telling line,
        FileDamaged where pip refused a hash.
        """
        self.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = {name: value for name, value in self.environ.items() if name not in _NOT_FOR_PIP}
        environ = {**kept, "TMPDIR": str(self.scratch), "PYTHONUNBUFFERED": "1", **(extra or {})}
        code = asyncio.run(self._run(tuple(argv), environ, on_line))
        if code != 0:
            raise self._failure(argv, code)

    async def _run(
        self, argv: tuple[str, ...], environ: Mapping[str, str], on_line: Callable[[str], None] | None
    ) -> int | None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        log_fd = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            # Not an engine, but the same promise: the keeper ends the whole group however qrun goes.
            launch = Launch(argv, UnixAddress(self.scratch / "none"))
            process = EngineProcess(launch, private_dir=self.scratch, log_fd=log_fd, environ=environ)
        finally:
            os.close(log_fd)
        try:
            with self.log_path.open(errors="replace") as log:
                while not process.ended.done():
                    await asyncio.wait({process.ended}, timeout=_POLL_S)
                    _pass_on(log.readlines(), on_line)
        finally:
            await process.end()
        return process.ended.result().code

    def _failure(self, argv: Sequence[str], code: int | None) -> Exception:
        text = _tail(self.log_path)
        if "DO NOT MATCH THE HASHES" in text:
            return FileDamaged(argv[-1], "a package's sha256 is not the one qrun pins", f"The log: {self.log_path}")
        telling = _telling_line(text) or f"{Path(argv[0]).name} ended with status {code}"
        return Failure(f"the engine could not be installed: {telling}.", f"The whole log: {self.log_path}")


def make_environment(folder: Path, workshop: Workshop) -> Path:
    """A new virtual environment of this Python; returns its interpreter. Raises Failure where none can be made."""
    if _own_pip():
        workshop.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)])
    elif importlib.util.find_spec("ensurepip"):
        workshop.run([sys.executable, "-I", "-m", "venv", str(folder)])
    elif uv := shutil.which("uv", path=workshop.environ.get("PATH", "")):
        workshop.run([uv, "venv", "--seed", "--python", sys.executable, str(folder)])
    else:
        raise Failure(
            "this Python has neither pip nor ensurepip to make an environment with.",
            "Install one of them (on Debian: apt install python3-venv), or uv.",
        )
    return python_of(folder)


def pip_command(python: Path) -> list[str]:
    """The pip command for the environment of `python`, asking nothing."""
    own = [sys.executable, "-I", "-m", "pip", "--python", str(python)]
    pip = own if _own_pip() else [str(python), "-I", "-m", "pip"]
    return [*pip, "--no-input", "--disable-pip-version-check"]


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def requirement(distribution: str, version: str, sha256: Sequence[str]) -> str:
    """A pinned line of a requirements file."""
    return f"{distribution}=={version} {' '.join(f'--hash=sha256:{one}' for one in sha256)}\n"


def _own_pip() -> bool:
    """Whether qrun's own environment has a pip that Python's isolated mode sees."""
    spec = importlib.util.find_spec("pip")
    folders = (sysconfig.get_path(scheme) for scheme in ("purelib", "platlib"))
    return spec is not None and spec.origin is not None and any(Path(spec.origin).is_relative_to(f) for f in folders)


def _pass_on(lines: Sequence[str], on_line: Callable[[str], None] | None) -> None:
    for line in lines if on_line else ():
        on_line(line.rstrip("\n"))  # type: ignore[misc]  # the loop is empty where it is None


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def _telling_line(text: str) -> str | None:
    """The line that says why: a compiler's or CMake's error before pip's own, which only says that there was one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for marks in ((" error:", "fatal error", "CMake Error", "ninja: error", "No space left"), ("ERROR:", "error:")):
        at = next((index for index, line in enumerate(lines) if any(mark in line for mark in marks)), None)
        if at is not None:
            # CMake says where in its first line, and what in those that follow.
            told = lines[at : at + 4] if "CMake Error" in lines[at] else lines[at : at + 1]
            return " ".join(told).removeprefix("ERROR: ").rstrip(".")[:300]
    return lines[-1][:300] if lines else None
