"""The supervisor over real llama.cpp engines on real weights, native and ready."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine_launches import LAUNCHES, StandInRunner, complete, kill, open_stream
from qrun.errors import EngineFailed
from qrun.runner import Launch
from qrun.supervisor import Supervisor

pytestmark = pytest.mark.engine
EXECUTABLES = {"native": "native_server", "ready": "ready_python"}
LaunchOf = Callable[[Path], Callable[[Path], Launch]]


@pytest.fixture(params=list(EXECUTABLES))
def launch_of(request: pytest.FixtureRequest) -> LaunchOf:
    """Launches of each engine, for a model."""
    executable = request.getfixturevalue(EXECUTABLES[request.param])
    return lambda model: LAUNCHES[request.param](executable, model)


def supervise(launch: Callable[[Path], Launch], tmp_path: Path) -> Supervisor:
    """A supervisor of a real engine."""
    return Supervisor(launch, runner=StandInRunner(), log_path=tmp_path / "engine.log", environ=os.environ)


def test_engine_answers_and_is_gone_after_stop(launch_of: LaunchOf, smollm2_q4_1: Path, tmp_path: Path):
    """The life of an engine: ready, an answer over its socket, then no process, no memory, no socket."""
    weights_bytes = smollm2_q4_1.stat().st_size

    async def check() -> None:
        supervisor = supervise(launch_of(smollm2_q4_1), tmp_path)
        launch = await supervisor.ready()
        answer = await complete(launch)
        ours = psutil.Process().children(recursive=True)
        held_bytes = psutil.Process(supervisor.pid).memory_info().rss
        await supervisor.stop()

        assert len(answer.split()) >= 4
        assert held_bytes > weights_bytes
        assert len(ours) == 2
        assert not [process for process in ours if process.is_running()]
        assert not launch.address.socket.parent.exists()

    asyncio.run(check())


def test_engine_with_a_stream_open_is_gone_after_stop(launch_of: LaunchOf, smollm2_q4_1: Path, tmp_path: Path):
    """llama-server hangs on SIGTERM with a request open; `stop` does not."""

    async def check() -> None:
        supervisor = supervise(launch_of(smollm2_q4_1), tmp_path)
        async with open_stream(await supervisor.ready()) as stream:
            await stream.readuntil(b"data: ")
            ours = psutil.Process().children(recursive=True)
            await supervisor.stop()

            assert len(ours) == 2
            assert not [process for process in ours if process.is_running()]

    asyncio.run(check())


def test_engine_killed_in_the_middle_is_started_again(launch_of: LaunchOf, smollm2_q4_1: Path, tmp_path: Path):
    """A stream from a killed engine ends, the death is told, and the next engine gives the same answer."""

    async def check() -> None:
        async with supervise(launch_of(smollm2_q4_1), tmp_path) as supervisor:
            first = await supervisor.ready()
            before = await complete(first)
            async with open_stream(first) as stream:
                await stream.readuntil(b"data: ")
                kill(supervisor.pid, signal.SIGKILL)
                await stream.read()
            death = await supervisor.died(1)
            second = await supervisor.ready()
            after = await complete(second)

            assert death.reason == "it was ended by SIGKILL"
            assert first.address != second.address
            assert before == after

    asyncio.run(check())


def test_file_that_is_no_model_fails_while_loading(launch_of: LaunchOf, tmp_path: Path):
    """An engine that cannot load its file is reported as soon as it gives up, with where its log is."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing more")

    async def check() -> None:
        async with supervise(launch_of(broken), tmp_path) as supervisor:
            with pytest.raises(EngineFailed, match=r"it exited with status 1|it was ended by SIGABRT") as failed:
                await supervisor.ready()

        assert failed.value.log_path == str(tmp_path / "engine.log")

    asyncio.run(check())
