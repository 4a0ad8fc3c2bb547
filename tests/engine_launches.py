"""Launches of the engines that the supervisor's tests start, and how they wait for what has to happen."""

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from qrun.runner import Launch, UnixAddress

_STAND_IN = Path(__file__).with_name("stand_in_engine.py")


class StandInRunner:
    """What the supervisor asks of a runner: its name, and the reason in a log."""

    name = "stand-in"

    def explain_failure(self, log_text: str) -> str | None:
        """The reason of the stand-in that dies while loading."""
        found = re.search(r"the weights are made of \w+", log_text)
        return found[0] if found else None


def stand_in(behaviour: str = "answers", **env: str) -> Callable[[Path], Launch]:
    """Launches of the stand-in, in one behaviour."""

    def launch(private_dir: Path) -> Launch:
        engine = private_dir / "engine.sock"
        argv = (sys.executable, "-I", "-S", str(_STAND_IN), str(engine), behaviour)
        return Launch(argv, UnixAddress(engine), env=env)

    return launch


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
