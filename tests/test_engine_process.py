"""One engine process behind its keeper, where the supervisor's tests do not reach."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from engine_launches import kill, lives, stand_in, until
from qrun import engine_process
from qrun.engine_process import Ended, EngineProcess
from qrun.errors import Failure


def start(tmp_path: Path, behaviour: str = "answers") -> EngineProcess:
    """The stand-in, started."""
    log_fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        launch = stand_in(behaviour)(tmp_path)
        return EngineProcess(launch, private_dir=tmp_path / "private", log_fd=log_fd, environ=os.environ)
    finally:
        os.close(log_fd)


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(0), "exited with status 0"),
        (Ended(3), "exited with status 3"),
        (Ended(-signal.SIGSEGV), "was ended by SIGSEGV"),
        (Ended(-40), "was ended by signal 40"),
        (
            Ended(None, not_started="/x: No such file or directory"),
            "could not be started: /x: No such file or directory",
        ),
        (Ended(None), "was lost with its keeper process"),
    ],
)
def test_end_is_told_in_words(ended: Ended, words: str):
    """An end is told by what is known of it, the signal by its name."""
    assert str(ended) == words


@pytest.mark.skipif(sys.platform != "linux", reason="rests on Linux's PR_SET_PDEATHSIG")
def test_keeper_that_is_stuck_is_killed_with_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A keeper that somebody stopped (SIGSTOP) cannot do its work; `end` does not wait for it for ever."""
    monkeypatch.setattr(engine_process, "_KEEPER_LIMIT_S", 0.1)

    async def check() -> None:
        process = start(tmp_path)
        await until(lambda: process.pid)
        keeper = psutil.Process(process.pid).ppid()
        kill(keeper, signal.SIGSTOP)
        await process.end()

        assert not lives(process.pid)
        assert not psutil.pid_exists(keeper)
        assert process.ended.result() == Ended(None)

    asyncio.run(check())


def test_group_that_does_not_end_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that the kernel holds on to keeps its memory: that is said, not passed over.

    Such a process cannot be made without a broken driver; here SIGKILL itself is made to do nothing.
    """
    monkeypatch.setattr(engine_process, "_GROUP_LIMIT_S", 0.1)
    monkeypatch.setattr(engine_process, "_KEEPER_LIMIT_S", 0.1)

    async def check() -> None:
        process = start(tmp_path)
        await until(lambda: process.pid)
        kill(psutil.Process(process.pid).ppid(), signal.SIGSTOP)
        monkeypatch.setattr(engine_process.os, "killpg", lambda _pid, _number: None)

        with pytest.raises(Failure, match=f"engine process {process.pid} does not end, not even by SIGKILL"):
            await process.end()

    asyncio.run(check())


def test_windows_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where no keeper can work, no engine is started that nobody would end."""
    monkeypatch.setattr(engine_process.sys, "platform", "win32")

    async def check() -> None:
        with pytest.raises(Failure, match="Run it in WSL"):
            start(tmp_path)

    asyncio.run(check())


def test_end_can_be_asked_for_twice(tmp_path: Path):
    """A second `end`, beside the first or after it, finds the work done."""

    async def check() -> None:
        process = start(tmp_path)
        await asyncio.gather(process.end(), process.end())
        await process.end()

        assert process.ended.done()

    asyncio.run(check())
