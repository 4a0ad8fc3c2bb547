"""An engine's start that makes do with less where memory is short: the steps of `step_down`, one after the other.

The supervisor asks for another way when an engine ran out of memory before it answered; here the next step becomes the
plan. No download is made that the command did not begin with: another quant is taken where it is on this disk, or where
this command fetched the first one itself.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from qrun.config import Config
from qrun.engine_start import EngineStart, engine_start, log_path_of
from qrun.errors import EngineCannot, EngineFailed, EngineMissing
from qrun.here import Here
from qrun.model import Candidate
from qrun.resolution import Choice
from qrun.runner import Engine, FailureReason, Launch, Runner
from qrun.source import Report
from qrun.step_down import Attempt, Step, steps_down
from qrun.supervisor import Supervisor

__all__ = ["SteppedStart"]

_log = logging.getLogger(__name__)


class SteppedStart:
    """The plan in force, and what comes after it. `on_step` hears of each step, with the failure that made it needed.

    To the supervisor it is the runner too: another quant may be another engine's.
    """

    def __init__(self, here: Here, *, config: Config, alias: str, extra_args: Sequence[str] = ()) -> None:
        """Decide the first start. Raises as `engine_start` does."""
        self.on_step: Callable[[EngineFailed, Step], None] = _say_nothing
        self.taken: list[Step] = []
        self.failed: list[Attempt] = []  # for lack of memory
        self._here = here
        self._config = config
        self._alias = alias
        self._extra_args = extra_args
        self._fetches = not _is_on_this_disk(here, here.resolution.require().candidate)
        self._start = engine_start(here, config=config, alias=alias, extra_args=extra_args)
        self._attempt = Attempt(here.resolution.require())
        self._steps = steps_down(here.resolution, has_projector=self._start.plan.mmproj_path is not None)

    @property
    def choice(self) -> Choice:
        """What is started now."""
        return self._attempt.choice

    @property
    def engine(self) -> Engine:
        """The engine of it."""
        return self._start.engine

    @property
    def attempt(self) -> Attempt:
        """What is started now, with the settings that are no part of a choice."""
        return self._attempt

    @property
    def name(self) -> str:
        """The runner's name."""
        return self._start.runner.name

    def explain_failure(self, log_text: str) -> FailureReason | None:
        """As the runner explains it."""
        return self._start.runner.explain_failure(log_text)

    @property
    def runner(self) -> Runner:
        """The runner of it."""
        return self._start.runner

    def report_to(self, report: Report) -> None:
        """Who hears of the model's download."""
        self._start.model.report = report

    def fetch(self) -> None:
        """Have the model's files on this disk. Raises what the source raises."""
        self._start.model.run()

    def supervisor(self, log_name: str) -> Supervisor:
        """The owner of the process. `log_name` tells the logs of servers side by side apart."""
        return Supervisor(
            self._launch,
            runner=self,
            log_path=log_path_of(self._config, self._alias, log_name),
            environ=self._config.environ,
            prepare=self._prepare,
            otherwise=self.otherwise,
        )

    async def otherwise(self, failure: EngineFailed) -> str | None:
        """Take the next step after a failure for lack of memory; None where it was another, or no step is left.

        A step that cannot be taken (its files are not here, its engine is not installed) is passed over.
        """
        if not failure.lacks_memory:
            return None
        self.failed.append(self._attempt)
        for step in self._steps:
            if (start := self._start_of(step)) is None:
                continue
            await start.model.run_beside()
            self._start, self._attempt = start, step.attempt
            self.taken.append(step)
            _log.info("%s Trying again with %s.", failure, step.words)
            self.on_step(failure, step)
            return step.words
        if self.taken:
            tried = ", ".join(step.words for step in self.taken)
            failure.reason = f"{failure.reason}; also with {tried}"
        return None

    def _start_of(self, step: Step) -> EngineStart | None:
        candidate = step.attempt.choice.candidate
        if candidate is self._attempt.choice.candidate:
            plan = engine_start(
                self._here,
                config=self._config,
                alias=self._alias,
                extra_args=self._extra_args,
                attempt=step.attempt,
            )
            return EngineStart(plan.runner, plan.engine, plan.plan, self._start.model)
        if not self._fetches and not _is_on_this_disk(self._here, candidate):
            return None
        try:
            return engine_start(
                self._here, config=self._config, alias=self._alias, extra_args=self._extra_args, attempt=step.attempt
            )
        except (EngineMissing, EngineCannot) as lacking:
            _log.info("%s is passed over: %s", step.words, lacking)
            return None

    def _launch(self, private_dir: Path) -> Launch:
        return self._start.launch(private_dir)

    async def _prepare(self) -> None:
        await self._start.model.run_beside()


def _is_on_this_disk(here: Here, candidate: Candidate) -> bool:
    """Also all that a folder or file of the user's own holds, which keeps no decisions."""
    return candidate.stored or here.pins is None


def _say_nothing(_failure: EngineFailed, _step: Step) -> None:
    """Where nobody is to be told."""
