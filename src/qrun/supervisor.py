"""Who owns an engine's process: one task starts it, knows its state, restarts it and stops it.

Others ask for an outcome (`ready`, `stop`) and never read the state to decide what to do next.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from qrun.runner import Launch, Runner

__all__ = ["State", "Supervisor"]

State = Literal["stopped", "starting", "ready", "failed", "stopping"]


class Supervisor:
    """The owner of one engine's process."""

    def __init__(
        self,
        launch: Callable[[], Launch],
        *,
        runner: Runner,
        log_path: Path,
        environ: Mapping[str, str],
        ready_timeout_s: float = 600,
    ) -> None:
        raise NotImplementedError

    @property
    def state(self) -> State:
        """For display and `/health`; never for decisions."""
        raise NotImplementedError

    async def ready(self) -> Launch:
        """Wait until an engine answers, starting or restarting one if need be; raises EngineFailed.

        Single-flight: all callers wait for the same start. A caller that is cancelled does not stop the start.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """End the engine and everything it started; returns when its memory is free. Safe to call twice."""
        raise NotImplementedError
