"""No orphan, whatever ends qrun, with a request open, on both real engines.

A separate process supervises and streams; the processes below it and the engine's folder are noted, then somebody is
killed, and all of them have to go.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from engine_launches import kill, lives, wait_until

pytestmark = pytest.mark.engine
EXECUTABLES = {"native": "native_server", "ready": "ready_python"}
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="rests on Linux's PR_SET_PDEATHSIG")


@dataclass(frozen=True)
class Supervised:
    """A process that supervises an engine, and what has to be gone when it is."""

    process: "subprocess.Popen[bytes]"
    keeper: int
    engine: int
    private_dir: Path

    def nothing_is_left(self) -> bool:
        """Whether keeper, engine and folder are gone."""
        return not lives(self.keeper) and not lives(self.engine) and not self.private_dir.exists()


@pytest.fixture(params=list(EXECUTABLES))
def supervised(request: pytest.FixtureRequest, smollm2_q4_1: Path, tmp_path: Path) -> Iterator[Supervised]:
    """Each engine, supervised and streaming."""
    executable = request.getfixturevalue(EXECUTABLES[request.param])
    script = Path(__file__).with_name("supervised.py")
    argv = [sys.executable, script, request.param, executable, smollm2_q4_1, tmp_path / "engine.log"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        told = json.loads(process.stdout.readline())
        below = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        (keeper,) = below - {told["engine"]}
        assert told["engine"] in below
        yield Supervised(process, keeper, told["engine"], Path(told["socket"]).parent)
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_to_qrun_leaves_no_orphan(supervised: Supervised, number: int):
    """Interrupted, terminated or killed in the middle of a stream: the engine goes with it."""
    supervised.process.send_signal(number)
    supervised.process.wait(30)

    wait_until(supervised.nothing_is_left)


def test_closed_terminal_leaves_no_orphan(supervised: Supervised):
    """SIGHUP ends qrun without a word; the keeper is in no terminal's session and ends the engine."""
    supervised.process.send_signal(signal.SIGHUP)
    supervised.process.wait(30)

    wait_until(supervised.nothing_is_left)


@on_linux
def test_killed_keeper_takes_its_engine_along(supervised: Supervised):
    """The kernel ends an engine whose keeper was killed, and qrun clears up behind it."""
    kill(supervised.keeper, signal.SIGKILL)
    supervised.process.wait(30)  # its stream has ended, and with it its work

    wait_until(supervised.nothing_is_left)


@on_linux
def test_qrun_and_keeper_killed_at_once_leave_no_process(supervised: Supervised):
    """With nobody left to clear up there is still no engine; only its folder stays."""
    kill(supervised.process.pid, signal.SIGSTOP)  # so that it cannot act on the keeper's death
    kill(supervised.keeper, signal.SIGKILL)
    kill(supervised.process.pid, signal.SIGKILL)
    supervised.process.wait(30)

    wait_until(lambda: not lives(supervised.keeper) and not lives(supervised.engine))
    for left in supervised.private_dir.iterdir():
        left.unlink()
    supervised.private_dir.rmdir()
