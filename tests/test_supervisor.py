"""The supervisor over a stand-in engine: its states, on demand. Over real engines: test_supervisor_engines.py."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import psutil
import pytest

from engine_launches import StandInRunner, kill, lives, stand_in, until
from qrun import supervisor as supervisor_module
from qrun.errors import EngineFailed, EngineMissing
from qrun.runner import Launch, UnixAddress
from qrun.supervisor import Supervisor


class Launches:
    """Launches of the stand-in, one behaviour after another (the last for all further ones), each remembered."""

    def __init__(self, *behaviours: str) -> None:
        self._behaviours = behaviours
        self.made: list[Launch] = []
        self.private_dirs: list[Path] = []

    def __call__(self, private_dir: Path) -> Launch:
        """The next one."""
        behaviour = self._behaviours[min(len(self.made), len(self._behaviours) - 1)]
        self.private_dirs.append(private_dir)
        self.made.append(stand_in(behaviour)(private_dir))
        return self.made[-1]


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Supervise:
    """Makes supervisors of stand-in engines, with one log."""

    def supervise(
        launch: Callable[[Path], Launch], *, environ: Mapping[str, str] = os.environ, ready_timeout_s: float = 60
    ) -> Supervisor:
        log_path = tmp_path / "logs" / "engine.log"
        return Supervisor(
            launch, runner=StandInRunner(), log_path=log_path, environ=environ, ready_timeout_s=ready_timeout_s
        )

    return supervise


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts follow at once."""
    monkeypatch.setattr(supervisor_module, "_PAUSES_S", (0.0, 0.0))


def lines_of(failure: EngineFailed) -> list[str]:
    """What stands in the log that a failure names."""
    return Path(failure.log_path).read_text().splitlines()


def test_engine_is_ready_once_it_answers_after_refusing_and_loading(supervise: Supervise):
    """Refused, then 503, then 200 is an engine's normal way up; only then is it ready."""

    async def check() -> None:
        supervisor = supervise(stand_in("loads"))
        before = supervisor.state
        waiting = asyncio.create_task(supervisor.ready())
        await asyncio.sleep(0)
        during = supervisor.state
        launch = await waiting
        after = supervisor.state
        answers = launch.address.socket.exists()
        await supervisor.stop()

        assert (before, during, after, supervisor.state) == ("stopped", "starting", "ready", "stopped")
        assert answers

    asyncio.run(check())


def test_stopped_engine_leaves_no_process_and_no_folder(supervise: Supervise):
    """When `stop` returns, the engine, its keeper, its memory and its socket's folder are gone."""

    async def check() -> None:
        supervisor = supervise(stand_in())
        launch = await supervisor.ready()
        ours = psutil.Process().children(recursive=True)
        await supervisor.stop()

        assert len(ours) == 2
        assert not [process for process in ours if process.is_running()]
        assert not launch.address.socket.parent.exists()
        assert supervisor.pid is None

    asyncio.run(check())


def test_callers_share_one_start(supervise: Supervise):
    """However many ask at once, one engine is started."""

    async def check() -> None:
        launches = Launches("loads")
        async with supervise(launches) as supervisor:
            got = await asyncio.gather(*(supervisor.ready() for _ in range(10)))
            again = await supervisor.ready()

        assert len(launches.made) == 1
        assert {id(launch) for launch in [*got, again]} == {id(launches.made[0])}

    asyncio.run(check())


def test_caller_that_leaves_does_not_stop_the_start(supervise: Supervise):
    """A client that goes away while the model loads must not cost the others their engine."""

    async def check() -> None:
        launches = Launches("loads")
        async with supervise(launches) as supervisor:
            leaver, stayer = (asyncio.create_task(supervisor.ready()) for _ in range(2))
            await asyncio.sleep(0)
            leaver.cancel()
            launch = await stayer

        assert leaver.cancelled()
        assert [launch] == launches.made

    asyncio.run(check())


def test_engine_that_dies_while_loading_fails_at_once_with_the_reason_from_its_log(supervise: Supervise):
    """Death is noticed although the limit is far, told to all who wait, and not tried again by itself."""

    async def check() -> None:
        launches = Launches("dies-loading")
        async with supervise(launches, ready_timeout_s=10_000) as supervisor:
            first, second = await asyncio.gather(supervisor.ready(), supervisor.ready(), return_exceptions=True)
            with pytest.raises(EngineFailed) as third:
                await supervisor.ready()

            assert isinstance(first, EngineFailed)
            assert (first.runner, first.reason) == ("stand-in", "the weights are made of cheese")
            assert lines_of(first)[-1] == first.reason
            assert first is second is third.value
            assert len(launches.made) == 1
            assert supervisor.state == "failed"
            assert supervisor.generation == 0
        assert not launches.private_dirs[0].exists()

    asyncio.run(check())


def test_failure_that_the_runner_cannot_explain_has_the_status_and_the_last_line(supervise: Supervise):
    """Without a reason from the runner the error tells what is known: how it ended, and its last words."""

    async def check() -> None:
        async with supervise(stand_in("dies-loading")) as supervisor:
            with (
                mock.patch.object(StandInRunner, "explain_failure", return_value=None),
                pytest.raises(EngineFailed) as e,
            ):
                await supervisor.ready()

        assert e.value.reason == "it exited with status 1 after 'the weights are made of cheese'"

    asyncio.run(check())


def test_engine_that_is_not_there_fails_with_its_name(supervise: Supervise):
    """A command that cannot be run is no riddle."""

    async def check() -> None:
        async with supervise(lambda folder: Launch(("/no/engine",), UnixAddress(folder / "s"))) as supervisor:
            with pytest.raises(EngineFailed, match="it could not be started: /no/engine: No such file or directory"):
                await supervisor.ready()

    asyncio.run(check())


@pytest.mark.parametrize("behaviour", ["never-healthy", "hangs"])
def test_engine_that_never_answers_fails_when_its_time_is_up(supervise: Supervise, behaviour: str):
    """An engine that neither answers nor dies is ended after the limit, and leaves nothing."""

    async def check() -> None:
        launches = Launches(behaviour)
        async with supervise(launches, ready_timeout_s=0.5) as supervisor:
            with pytest.raises(EngineFailed, match=r"it did not answer /health within 0\.5 s"):
                await supervisor.ready()

            assert not psutil.Process().children(recursive=True)
            assert not launches.private_dirs[0].exists()

    asyncio.run(check())


def test_failure_is_forgotten_after_a_while(supervise: Supervise, monkeypatch: pytest.MonkeyPatch):
    """What failed may be mended: after some seconds `ready` tries again."""
    monkeypatch.setattr(supervisor_module, "_FAILED_FOR_S", 0.0)

    async def check() -> None:
        launches = Launches("dies-loading", "answers")
        async with supervise(launches) as supervisor:
            with pytest.raises(EngineFailed):
                await supervisor.ready()
            launch = await supervisor.ready()

        assert [launch] == launches.made[1:]

    asyncio.run(check())


def test_refusal_of_the_launch_reaches_the_caller(supervise: Supervise):
    """A runner that finds no engine any more says so itself."""

    def refuse(private_dir: Path) -> Launch:
        raise EngineMissing("stand-in", "gone since it was found", "Install it.")

    async def check() -> None:
        async with supervise(refuse) as supervisor:
            with pytest.raises(EngineMissing):
                await supervisor.ready()

    asyncio.run(check())


def test_engine_that_was_killed_is_started_again_with_a_fresh_launch(supervise: Supervise):
    """After a death the next `ready` gets a new engine with a new private folder, and the old folder is gone."""

    async def check() -> None:
        launches = Launches("answers")
        async with supervise(launches) as supervisor:
            first = await supervisor.ready()
            used, pid = supervisor.generation, supervisor.pid
            kill(pid, signal.SIGKILL)
            death = await supervisor.died(used)
            second = await supervisor.ready()

            assert death.reason == "it was ended by SIGKILL"
            assert [first, second] == launches.made
            assert launches.private_dirs[0] != launches.private_dirs[1]
            assert not launches.private_dirs[0].exists()
            assert (used, supervisor.generation) == (1, 2)
            assert supervisor.pid != pid

    asyncio.run(check())


def test_engine_whose_keeper_was_killed_is_started_again(supervise: Supervise):
    """Losing the keeper counts as losing the engine: nothing of the old one stays, the next one serves."""

    async def check() -> None:
        launches = Launches("has-grandchildren", "answers")
        async with supervise(launches) as supervisor:
            await supervisor.ready()
            engine, used = supervisor.pid, supervisor.generation
            near = psutil.Process(engine).children()
            far = [child for child in near if os.getpgid(child.pid) != engine]
            kill(psutil.Process(engine).ppid(), signal.SIGKILL)
            death = await supervisor.died(used)
            await supervisor.ready()
            for process in far:  # the limit of it: one that left the group of an engine whose keeper is gone
                process.kill()

            assert death.reason == "it was lost with its keeper process"
            assert not lives(engine)
            assert len(near) == 2
            assert not [process for process in near if process not in far and lives(process.pid)]
            assert not launches.private_dirs[0].exists()

    asyncio.run(check())


def test_death_is_known_to_those_who_ask_late(supervise: Supervise):
    """Who asks for an engine that is gone already is answered at once."""

    async def check() -> None:
        async with supervise(stand_in()) as supervisor:
            await supervisor.ready()
            kill(supervisor.pid, signal.SIGKILL)
            await supervisor.died(1)
            await supervisor.ready()
            death = await supervisor.died(1)

            assert death.reason == "it is gone"

    asyncio.run(check())


@pytest.mark.usefixtures("no_pauses")
def test_third_death_within_a_minute_is_final(supervise: Supervise, caplog: pytest.LogCaptureFixture):
    """An engine that keeps dying is not started for ever; its last death is what callers hear."""

    async def check() -> None:
        launches = Launches("answers")
        async with supervise(launches) as supervisor:
            for generation in (1, 2, 3):
                await supervisor.ready()
                kill(supervisor.pid, signal.SIGKILL)
                await supervisor.died(generation)
            with pytest.raises(EngineFailed, match=r"it was ended by SIGKILL \(3 deaths within a minute\)"):
                await supervisor.ready()

            assert len(launches.made) == 3
            assert supervisor.state == "failed"
            assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]

    asyncio.run(check())


@pytest.mark.usefixtures("no_pauses", "caplog")
def test_restart_that_fails_counts_as_a_death(supervise: Supervise):
    """An engine that has served is worth a second try when its restart fails (its memory may not be free yet)."""

    async def check() -> None:
        launches = Launches("answers", "dies-loading", "answers")
        async with supervise(launches) as supervisor:
            await supervisor.ready()
            kill(supervisor.pid, signal.SIGKILL)
            await supervisor.died(1)
            launch = await supervisor.ready()

            assert launch is launches.made[2]

    asyncio.run(check())


def test_stop_breaks_off_a_start_and_tells_who_waits(supervise: Supervise):
    """A model that loads for minutes is stopped at once; those who waited hear why."""

    async def check() -> None:
        launches = Launches("hangs")
        supervisor = supervise(launches)
        waiting = asyncio.create_task(supervisor.ready())
        await until(lambda: supervisor.pid)
        await supervisor.stop()

        with pytest.raises(EngineFailed, match="qrun is stopping it"):
            await waiting
        assert not psutil.Process().children(recursive=True)
        assert not launches.private_dirs[0].exists()

    asyncio.run(check())


def test_stop_before_the_start_has_begun_starts_nothing(supervise: Supervise):
    """Stopped in the same breath as asked for: no engine, and an answer for the one who asked."""

    async def check() -> None:
        launches = Launches("answers")
        supervisor = supervise(launches)
        waiting = asyncio.create_task(supervisor.ready())
        await asyncio.sleep(0)
        await supervisor.stop()

        with pytest.raises(EngineFailed):
            await waiting
        assert launches.made == []

    asyncio.run(check())


def test_stop_of_what_was_never_started_does_nothing(supervise: Supervise):
    """`stop` is safe at any time."""

    async def check() -> None:
        supervisor = supervise(stand_in())
        await supervisor.stop()

        assert supervisor.state == "stopped"

    asyncio.run(check())


def test_stopped_supervisor_stays_stopped(supervise: Supervise):
    """A late request must not start an engine that nobody would stop."""

    async def check() -> None:
        launches = Launches("answers")
        supervisor = supervise(launches)
        await supervisor.ready()
        await asyncio.gather(supervisor.stop(), supervisor.stop())
        await supervisor.stop()

        with pytest.raises(EngineFailed, match="qrun is stopping it"):
            await supervisor.ready()
        assert len(launches.made) == 1

    asyncio.run(check())


def test_cancelled_stop_ends_the_engine_before_it_gives_way(supervise: Supervise):
    """Clean-up is not broken off by a second Ctrl-C; the cancellation is raised when all is done."""

    async def check() -> None:
        supervisor = supervise(stand_in("ignores-sigterm"))
        await supervisor.ready()
        ours = psutil.Process().children(recursive=True)
        stopping = asyncio.create_task(supervisor.stop())
        for _ in range(3):
            await asyncio.sleep(0.05)
            stopping.cancel()
        await asyncio.wait({stopping})

        assert stopping.cancelled()
        assert supervisor.state == "stopped"
        assert len(ours) == 2
        assert not [process for process in ours if process.is_running()]

    asyncio.run(check())


def test_stop_ends_the_wait_for_a_death(supervise: Supervise):
    """A stream that watches its engine hears of a stop as of a death."""

    async def check() -> None:
        supervisor = supervise(stand_in())
        await supervisor.ready()
        watching = asyncio.create_task(supervisor.died(supervisor.generation))
        await asyncio.sleep(0)
        await supervisor.stop()

        assert (await watching).reason == "qrun is stopping it"

    asyncio.run(check())


def test_stop_ends_grandchildren_too(supervise: Supervise):
    """Nothing that the engine started keeps its memory."""

    async def check() -> None:
        supervisor = supervise(stand_in("has-grandchildren"))
        await supervisor.ready()
        ours = psutil.Process().children(recursive=True)
        await supervisor.stop()

        assert len(ours) == 4
        assert not [process for process in ours if lives(process.pid)]

    asyncio.run(check())


def test_supervisor_forgotten_at_the_end_of_the_loop_leaves_no_engine(supervise: Supervise):
    """`asyncio.run` cancels what is left; the owner ends its engine then."""
    ours: list[psutil.Process] = []

    async def forget() -> None:
        await supervise(stand_in()).ready()
        ours.extend(psutil.Process().children(recursive=True))

    asyncio.run(forget())

    assert len(ours) == 2
    assert not [process for process in ours if process.is_running()]


def test_log_is_private_and_the_one_before_is_kept(supervise: Supervise, tmp_path: Path):
    """A restart must not bury the log that says why it was needed, and prompts in a log are nobody else's."""

    async def check() -> list[int]:
        async with supervise(stand_in()) as supervisor:
            await supervisor.ready()
            first = supervisor.pid
            kill(first, signal.SIGKILL)
            await supervisor.died(1)
            await supervisor.ready()
            return [first, supervisor.pid]

    pids = asyncio.run(check())
    logs = [tmp_path / "logs" / name for name in ("engine.log.1", "engine.log")]

    assert [path.read_text().split()[1] for path in logs] == [str(pid) for pid in pids]
    assert [stat.S_IMODE(path.stat().st_mode) for path in logs] == [0o600, 0o600]


def test_engine_gets_our_environment_and_the_launch_s(supervise: Supervise, tmp_path: Path):
    """A key reaches the engine by its environment; the process's own is not written."""

    async def check() -> None:
        async with supervise(stand_in(STAND_IN_NOTE="a key"), environ={"PATH": os.defpath}) as supervisor:
            await supervisor.ready()
            environ = psutil.Process(supervisor.pid).environ()

        assert environ.items() >= {"PATH": os.defpath, "STAND_IN_NOTE": "a key"}.items()
        assert "HOME" not in environ
        assert "STAND_IN_NOTE" not in os.environ

    asyncio.run(check())


def test_user_s_python_variables_do_not_break_the_keeper(supervise: Supervise, tmp_path: Path):
    """Whatever modules the user's PYTHONPATH shadows, the process that guards the engine runs."""
    (tmp_path / "select.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('customized')")

    async def check() -> None:
        async with supervise(stand_in(), environ={**os.environ, "PYTHONPATH": str(tmp_path)}) as supervisor:
            await supervisor.ready()

            assert supervisor.state == "ready"

    asyncio.run(check())
