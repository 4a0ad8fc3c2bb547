"""Which engines this machine has: one environment for each, made by `engine_install`, found through their runners."""

from qrun.config import Config
from qrun.engine_loads import loads_of
from qrun.engine_models import known_architectures, known_tensor_types
from qrun.engine_site import survey
from qrun.engine_sources import Recipe, choose_recipe, sources_of
from qrun.engine_stamp import read_stamp
from qrun.errors import EngineMissing
from qrun.hardware import Hardware
from qrun.registry import runner_named, runners
from qrun.resolution import EngineState
from qrun.runner import Engine, EngineSearch, Found, Runner

__all__ = ["engine_states", "find_engine", "install_command", "search_for"]


def search_for(config: Config, runner_name: str) -> EngineSearch:
    """Where that runner may look on this machine."""
    stamp = read_stamp(config.engine_dir(runner_name))
    return EngineSearch(
        environment=stamp.environment if stamp else None,
        override=_override(config, runner_name),
        path=config.path,
    )


def find_engine(config: Config, runner_name: str) -> Engine:
    """The engine that would be launched. Raises EngineMissing with the command that mends it."""
    found = runner_named(runner_name).find(search_for(config, runner_name))
    if found.engine is None:
        raise _missing(runner_name, found)
    return found.engine


def engine_states(config: Config, hardware: Hardware) -> tuple[EngineState, ...]:
    """What the resolver must know of every runner on this machine."""
    return tuple(_state(config, name, runner, hardware) for name, runner in runners().items())


def install_command(runner_name: str) -> str:
    """What the user types to have that engine."""
    return f"qrun engines install {runner_name}"


def _state(config: Config, name: str, runner: Runner, hardware: Hardware) -> EngineState:
    found = runner.find(search_for(config, name))
    if found.engine is not None:
        loads = loads_of(runner, found.engine, config)
        return EngineState(
            name,
            runner.formats,
            installed=True,
            architectures=loads.architectures or known_architectures(name),
            tensor_types=loads.tensor_types or known_tensor_types(name),
            backends=found.engine.backends,
        )
    missing = _missing(name, found)
    if _override(config, name) is not None:  # the user has named an engine: another in its place would be a guess
        return _without(name, runner, missing)
    try:
        recipe, remedy = _recipe(config, name, hardware)
    except EngineMissing as impossible:
        return _without(name, runner, impossible)
    return EngineState(
        name,
        runner.formats,
        installed=False,
        why_not=missing.why,
        architectures=known_architectures(name),
        tensor_types=known_tensor_types(name),
        backends=recipe.backends,
        remedy=remedy or missing.remedy,
    )


def _without(name: str, runner: Runner, missing: EngineMissing) -> EngineState:
    return EngineState(
        name, runner.formats, installed=False, can_install=False, why_not=missing.why, remedy=missing.remedy
    )


def _recipe(config: Config, name: str, hardware: Hardware) -> tuple[Recipe, str | None]:
    """What would be installed; where that is for the CPU alone beside a GPU, also what one for the GPU would take."""
    sources = sources_of(name)
    if sources is None:
        raise EngineMissing(name, "qrun knows no source of its engine", "See the runner's own documentation.")
    site = survey(sources, config, hardware)
    try:
        return choose_recipe(name, sources, site, hardware, build=False, allow_cpu=False), None
    except EngineMissing as for_the_gpu:
        return choose_recipe(name, sources, site, hardware, build=False, allow_cpu=True), for_the_gpu.remedy


def _override(config: Config, runner_name: str) -> str | None:
    return config.llama_server if runner_name == "llamacpp" else None


def _missing(runner_name: str, found: Found) -> EngineMissing:
    remedy = found.remedy or f"Run: {install_command(runner_name)}"
    return EngineMissing(runner_name, found.why_not or "it is not installed", remedy)
