"""Every runner with its engine, or with why it has none: what `qrun engines` lists."""

from dataclasses import dataclass

from qrun.config import Config
from qrun.engines import engine_states, find_engine
from qrun.hardware import Hardware
from qrun.registry import registry
from qrun.resolution import EngineState
from qrun.runner import Engine

__all__ = ["ListedEngine", "list_engines"]


@dataclass(frozen=True, slots=True)
class ListedEngine:
    """One runner. `engine` is None where none is found; `why_not` and `remedy` say why, and what to do about it."""

    runner: str
    formats: tuple[str, ...]
    engine: Engine | None
    can_install: bool
    why_not: str | None = None
    remedy: str | None = None


def list_engines(config: Config, hardware: Hardware) -> tuple[ListedEngine, ...]:
    """All runners by name, those that do not load among them."""
    working = [_listed(config, state) for state in engine_states(config, hardware)]
    reinstall = "Install its distribution again."
    broken = [
        ListedEngine(
            one.name, (), None, can_install=False, why_not=f"the runner does not load: {one.why}", remedy=reinstall
        )
        for one in registry().broken
    ]
    return tuple(sorted([*working, *broken], key=lambda listed: listed.runner))


def _listed(config: Config, state: EngineState) -> ListedEngine:
    return ListedEngine(
        runner=state.runner,
        formats=tuple(sorted(state.formats)),
        engine=find_engine(config, state.runner) if state.installed else None,
        can_install=state.can_install,
        why_not=state.why_not,
        remedy=state.remedy,
    )
