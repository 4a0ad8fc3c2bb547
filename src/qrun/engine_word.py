"""The installed engine's last word on a fresh choice, before anything is downloaded (DESIGN 3.4).

Only for a choice whose header was read from the Hub and whose engine is here and can be asked; about a third of a
second. A choice that it refuses, or that needs more by its account than there is, is made again without it.
"""

from collections.abc import Callable

from qrun.config import Config
from qrun.dry_run import asked, hub_reader, plan_of
from qrun.engine_memory import EngineWord, confirmed
from qrun.engines import find_engine
from qrun.errors import EngineMissing
from qrun.hardware import Hardware, cuda_uuids
from qrun.model_source import ModelSource
from qrun.registry import runner_named
from qrun.resolution import Choice, Resolution
from qrun.runner import DryRunner
from qrun.source import FoundModel

__all__ = ["with_engine_word"]


def with_engine_word(
    found: FoundModel,
    resolution: Resolution,
    *,
    opened: ModelSource,
    config: Config,
    again: Callable[[FoundModel], Resolution],
) -> tuple[FoundModel, Resolution]:
    """The candidates and the decision after the engine was asked; `again` decides over other candidates.

    Unchanged on simulated hardware and away from the Hub. Raises HubUnreachable where a header cannot be read.
    """
    if resolution.hardware.simulated or not opened.is_hub or opened.hub.offline:
        return found, resolution

    def ask(choice: Choice) -> EngineWord:
        return _ask(choice, opened, config, resolution.hardware)

    return confirmed(resolution, found, ask=ask, again=again)


def _ask(choice: Choice, opened: ModelSource, config: Config, hardware: Hardware) -> EngineWord:
    candidate = choice.candidate
    if candidate.format != "gguf" or candidate.weights is None or candidate.weights.estimated:
        return EngineWord(silence="its header was not read")
    runner = runner_named(choice.engine)
    if not choice.engine_installed or not isinstance(runner, DryRunner):
        return EngineWord(silence="the engine is not here, or cannot be asked")
    try:
        engine = find_engine(config, choice.engine)
    except EngineMissing as missing:
        return EngineWord(silence=str(missing))
    plan = plan_of(choice, cuda_uuids=cuda_uuids(hardware))
    read = hub_reader(opened.client, candidate)
    return asked(choice, plan, runner, engine, hardware, read=read, environ=config.environ)
