"""The keeper alone, as the process it is, over commands that show one rule each."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_launches import lives, wait_until
from qrun import keeper

KEEPER = [sys.executable, "-I", "-S", keeper.__file__]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="rests on Linux's prctl or /proc")


class Keepers:
    """Keepers of one test, each with a command as its engine; all write to one log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, script: str, **options) -> "subprocess.Popen[bytes]":
        """Start one with a shell script."""
        return self.run("sh", "-c", script, **options)

    def run(self, *command: str, **options) -> "subprocess.Popen[bytes]":
        """Start one with any command."""
        argv = [*KEEPER, str(self._folder / "private"), *command]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        with (self._folder / "log").open("ab") as log:
            self._started.append(subprocess.Popen(argv, start_new_session=True, stderr=log, **pipes, **options))
        return self._started[-1]

    def printed(self) -> list[str]:
        """The lines that the engines have printed so far."""
        return (self._folder / "log").read_text().splitlines()

    def end(self) -> None:
        """Close all pipes and see every keeper out."""
        for process in self._started:
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Keepers]:
    """Starts keepers; what is left of them is ended afterwards."""
    keepers = Keepers(tmp_path)
    yield keepers
    keepers.end()


def engine_pid(process: "subprocess.Popen[bytes]") -> int:
    """The pid in the keeper's first line."""
    word, pid = process.stdout.readline().split()
    assert word == b"engine"
    return int(pid)


def test_engine_that_exits_hands_its_status_on(start: Keepers):
    """The keeper says how the engine ended, and exits alike."""
    process = start("exit 3")

    assert process.wait(30) == 3
    assert process.stdout.read().splitlines()[1:] == [b"exit 3"]


def test_engine_that_is_killed_is_told_apart_from_one_that_exits(start: Keepers):
    """A signal is told as a negative code; the keeper's own status is a shell's, 128 and the signal."""
    process = start("kill -9 $$")

    assert process.wait(30) == 137
    assert process.stdout.read().splitlines()[1:] == [b"exit -9"]


def test_command_that_is_not_there_is_told_with_its_reason(start: Keepers, tmp_path: Path):
    """A command that cannot be run is told as such, not as an engine's exit."""
    process = start.run(str(tmp_path / "no-such-engine"))

    assert process.wait(30) == 127
    assert f"failed {tmp_path / 'no-such-engine'}: No such file or directory".encode() in process.stdout.read()


def test_closed_pipe_ends_the_engine_and_what_it_started(start: Keepers):
    """When qrun is gone, however it went, its pipe ends, and with it the engine's whole group."""
    process = start("sleep 600 & echo $!; wait")
    engine = engine_pid(process)
    wait_until(start.printed)
    grandchild = int(start.printed()[0])
    process.stdin.close()
    process.wait(30)

    assert not lives(engine)
    assert not lives(grandchild)


@on_linux
def test_closed_pipe_ends_a_grandchild_that_left_the_group(start: Keepers):
    """A daemonized grandchild is handed to the keeper and killed: it must not keep the memory."""
    process = start("setsid sh -c 'echo $$; exec sleep 600' & wait")
    wait_until(start.printed)
    grandchild = int(start.printed()[0])
    process.stdin.close()
    process.wait(30)

    assert not lives(grandchild)


def test_engine_that_exits_takes_its_grandchildren_along(start: Keepers):
    """What an engine left behind is ended although the engine ended by itself."""
    process = start("sleep 600 & echo $!; exit 0")
    process.wait(30)

    assert not lives(int(start.printed()[0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_the_keeper_ends_the_engine(start: Keepers, number: int):
    """Who asks the keeper to end, asks for the engine's end."""
    process = start("exec sleep 600")
    engine = engine_pid(process)
    process.send_signal(number)

    assert process.wait(30) == 128 + signal.SIGTERM
    assert not lives(engine)


def test_engine_that_hangs_on_the_first_sigterm_gets_a_second(start: Keepers):
    """llama-server with a request open hangs on the first SIGTERM and ends at once on the second."""
    process = start("n=0; trap 'n=$((n+1)); [ $n = 2 ] && exit 7' TERM; echo up; while :; do sleep 0.02; done")
    wait_until(start.printed)
    process.stdin.close()

    assert process.wait(30) == 7


def test_engine_that_ignores_sigterm_is_killed(start: Keepers):
    """Force comes last, and always comes."""
    process = start("trap '' TERM; echo up; while :; do sleep 0.02; done")
    wait_until(start.printed)
    process.stdin.close()

    assert process.wait(30) == 128 + signal.SIGKILL


@on_linux
def test_engine_dies_with_a_keeper_that_was_killed(start: Keepers):
    """Not even SIGKILL of the keeper leaves the engine behind: the kernel ends it."""
    process = start("exec sleep 600")
    engine = engine_pid(process)
    process.kill()
    process.wait(30)

    wait_until(lambda: not lives(engine))


def test_private_folder_is_gone_before_the_keeper_is(start: Keepers, tmp_path: Path):
    """The folder goes with everything in it, sockets too."""
    private_dir = tmp_path / "private"
    (private_dir / "deeper").mkdir(parents=True)
    (private_dir / "deeper" / "file").touch()
    os.mkfifo(private_dir / "like-a-socket")
    start("exit 0").wait(30)

    assert not private_dir.exists()


@on_linux
def test_engine_sees_no_pipe_of_the_keeper(start: Keepers, tmp_path: Path):
    """An engine that held qrun's pipe, or wrote into its reports, would break the rule that ends it."""
    start("cd /proc/$$/fd; for fd in *; do readlink $fd; done").wait(30)

    assert start.printed() == ["/dev/null", str(tmp_path / "log"), str(tmp_path / "log")]


def test_engine_gets_the_environment_whole(start: Keepers):
    """The keeper's own isolation (-I, -S) does not reach the engine, whose Python may need its variables."""
    start('echo "$PYTHONPATH"', env={**os.environ, "PYTHONPATH": "/some/where"}).wait(30)

    assert start.printed() == ["/some/where"]


def test_keeper_whose_reader_left_still_ends_the_engine(start: Keepers):
    """The reader may be gone before the keeper reports: a report nobody reads is no reason to leave the engine."""
    process = start("exec sleep 600")
    engine = engine_pid(process)
    process.stdout.close()
    process.stdin.close()
    process.wait(30)

    assert not lives(engine)


def test_pipe_that_is_closed_before_the_start_ends_the_engine_at_once(tmp_path: Path):
    """As when qrun is killed before the keeper reads its first line: the pipe ended long ago, and still counts."""
    argv = [*KEEPER, str(tmp_path / "private"), "sleep", "600"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)

    assert done.returncode == 128 + signal.SIGTERM
