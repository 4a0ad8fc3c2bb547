"""From a decision to an engine that can be started: which engine, told what, logged where.

Shared by all commands that run a model. Starts nothing: `supervisor` does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qrun.config import Config
from qrun.engines import find_engine, install_command
from qrun.errors import EngineCannot
from qrun.hardware import cuda_uuids, engine_threads
from qrun.here import Here
from qrun.model_fetch import ModelFetch
from qrun.registry import runner_named
from qrun.runner import Engine, Launch, Runner, ServePlan
from qrun.step_down import Attempt

__all__ = ["EngineStart", "engine_start", "log_path_of"]

_PICKED_BY = {"cuda": ("CUDA_VISIBLE_DEVICES",), "rocm": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")}
_NOT_IN_FILE_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class EngineStart:
    """A runner, its engine, and the plan for it. The plan's private folder is that of each start, its model's path
    known when `model` is fetched.
    """

    runner: Runner
    engine: Engine
    plan: ServePlan
    model: ModelFetch

    def launch(self, private_dir: Path) -> Launch:
        """The command of one start, once the model is there."""
        plan = replace(self.plan, private_dir=private_dir, model_path=self.model.path)
        return self.runner.launch(self.engine, plan)


def log_path_of(config: Config, alias: str, log_name: str) -> Path:
    """Where an engine's log is kept. `log_name` tells the logs of servers side by side apart."""
    name = _NOT_IN_FILE_NAMES.sub("-", f"{alias}-{log_name}").strip("-.")
    return config.state_dir / "logs" / f"{name}.log"


def engine_start(
    here: Here, *, config: Config, alias: str, extra_args: Sequence[str] = (), attempt: Attempt | None = None
) -> EngineStart:
    """What the decision comes to, or `attempt` in its place. Fetches nothing.

    Raises the decision's error, EngineMissing or EngineCannot.
    """
    attempt = attempt or Attempt(here.resolution.require())
    choice = attempt.choice
    runner = runner_named(choice.engine)
    engine = find_engine(config, choice.engine)
    plan = ServePlan(
        model_path=Path(),
        alias=alias,
        n_ctx=choice.n_ctx,
        n_parallel=choice.n_parallel,
        kv_cache_type=choice.kv_cache_type,
        placement=choice.placement,
        threads=engine_threads(here.hardware.cpu),
        cache_ram_bytes=choice.cache_ram_bytes,
        private_dir=Path(),
        mmproj_on_cpu=attempt.mmproj_on_cpu,
        n_batch=attempt.n_batch,
        extra_args=tuple(extra_args),
        cuda_uuids=cuda_uuids(here.hardware),
        gpus_picked=_gpus_picked(here, config),
    )
    if lacks := runner.cannot(engine, plan):
        remedy = f"Build the one that can: {install_command(runner.name)} --build"
        raise EngineCannot(runner.name, engine.flavour, lacks, remedy)
    chosen = replace(here, resolution=replace(here.resolution, chosen=choice))
    return EngineStart(runner, engine, plan, ModelFetch(chosen.model_path))


def _gpus_picked(here: Here, config: Config) -> bool:
    """Whether the user has left GPUs out by an option or a variable; not where they tell Vulkan of it themselves."""
    if config.environ.get("GGML_VK_VISIBLE_DEVICES"):
        return False
    variables = (name for gpu in here.hardware.gpus for name in _PICKED_BY.get(gpu.kind, ()))
    return here.resolution.request.gpus is not None or any(config.environ.get(name) for name in variables)
