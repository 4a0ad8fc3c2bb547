"""An engine that never answered is started otherwise, as long as there is another way."""

import asyncio
import os
import signal

import pytest

from engine_launches import StandInRunner, kill, stand_in, until
from qrun.errors import EngineFailed
from qrun.supervisor import Supervisor


class Ways:
    """Launches one behaviour after the other; remembers what it was told of each failure."""

    def __init__(self, *behaviours: str) -> None:
        self.failures: list[EngineFailed] = []
        self._behaviours = list(behaviours)

    def launch(self, private_dir):
        """The behaviour in force."""
        return stand_in(self._behaviours[0])(private_dir)

    async def otherwise(self, failure):
        """The next one."""
        self.failures.append(failure)
        if len(self._behaviours) == 1:
            return None
        del self._behaviours[0]
        return f"behaviour {self._behaviours[0]}"


def supervised(ways, tmp_path):
    """Its supervisor."""
    return Supervisor(
        ways.launch,
        runner=StandInRunner(),
        log_path=tmp_path / "engine.log",
        environ=os.environ,
        otherwise=ways.otherwise,
    )


def test_who_waits_gets_the_engine_that_came_up_at_last(tmp_path):
    """Both failures are told, the log begins with them, and all callers wait for the same start."""
    ways = Ways("dies-loading", "dies-loading", "answers")

    async def start():
        async with supervised(ways, tmp_path) as supervisor:
            launches = await asyncio.gather(*(supervisor.ready() for _ in range(3)))
            return launches, supervisor.generation

    launches, generation = asyncio.run(start())
    lines = (tmp_path / "engine.log").read_text().splitlines()

    assert len({id(launch) for launch in launches}) == 1
    assert generation == 1
    assert [failure.reason for failure in ways.failures] == ["the weights are made of cheese"] * 2
    assert lines[:2] == [
        "qrun: the weights are made of cheese; trying again with behaviour dies-loading",
        "qrun: the weights are made of cheese; trying again with behaviour answers",
    ]


def test_without_another_way_the_last_failure_is_raised(tmp_path):
    """As if there had been no steps."""
    ways = Ways("dies-loading", "dies-loading")

    async def start():
        async with supervised(ways, tmp_path) as supervisor:
            with pytest.raises(EngineFailed) as failed:
                await supervisor.ready()
            return failed.value

    assert asyncio.run(start()) is ways.failures[-1]
    assert len(ways.failures) == 2


def test_an_engine_that_is_killed_while_it_loads_lacked_memory(tmp_path):
    """Only the kernel does that to it, where RAM runs out; its log cannot say so."""
    ways = Ways("hangs", "answers")

    async def start():
        async with supervised(ways, tmp_path) as supervisor:
            ready = asyncio.create_task(supervisor.ready())
            await until(lambda: supervisor.pid)
            kill(supervisor.pid, signal.SIGKILL)
            await ready

    asyncio.run(start())

    (failure,) = ways.failures
    assert (failure.reason, failure.lacks_memory) == ("it was ended by SIGKILL", True)


def test_an_engine_that_served_is_started_as_it_was(tmp_path):
    """It had its memory: whatever ended it, less of it is not the answer."""
    ways = Ways("answers", "dies-loading")

    async def start():
        async with supervised(ways, tmp_path) as supervisor:
            await supervisor.ready()
            first = supervisor.generation
            kill(supervisor.pid, signal.SIGKILL)
            failure = await supervisor.died(first)
            await supervisor.ready()
            return failure, supervisor.generation

    failure, generation = asyncio.run(start())

    assert ways.failures == []
    assert not failure.lacks_memory
    assert generation == 2


def test_stopping_breaks_off_what_looks_for_another_way(tmp_path):
    """A step may fetch a model: Ctrl-C ends that too."""
    ways, looking = Ways("dies-loading"), asyncio.Event()

    async def otherwise(_failure):
        looking.set()
        await asyncio.Event().wait()

    ways.otherwise = otherwise

    async def start():
        async with supervised(ways, tmp_path) as supervisor:
            ready = asyncio.create_task(supervisor.ready())
            await asyncio.wait_for(looking.wait(), 30)
            await supervisor.stop()
            with pytest.raises(EngineFailed):
                await ready

    asyncio.run(start())
