"""What each engine can load, by the data of its pinned version: for where none is installed that could be asked.

Pure but for the data files: scripts/engine_models.py reads `data/engine_models.toml` from the engines' packages, and
`data/engine_limits.toml` says which GPUs they are for. An engine that is installed is asked itself (`engine_loads`).
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from qrun.config_keys import architectures_of
from qrun.ggml_types import type_name
from qrun.hardware import Hardware
from qrun.resolution import EngineState

__all__ = ["known_architectures", "known_tensor_types", "simulated_states"]

_IN_LLAMA_CPPS_NAMES = "llamacpp"  # the others' lists are of model types


def known_architectures(runner: str) -> frozenset[str] | None:
    """The architectures, in llama.cpp's names, that the pinned version loads; None for a runner without data.

    Where one architecture stands for several model types (`llama` for Mistral's too) and an engine loads some of them,
    it counts as loaded.
    """
    names = _models().get(runner, {}).get("names")
    if names is None:
        return None
    return frozenset(names) if runner == _IN_LLAMA_CPPS_NAMES else architectures_of(names)


def known_tensor_types(runner: str) -> frozenset[str] | None:
    """The tensor types of a GGUF file that the pinned version loads; None where that is not known, or no matter."""
    ids = _models().get(runner, {}).get("tensor_types")
    return None if ids is None else frozenset(map(type_name, ids))


def simulated_states(hardware: Hardware) -> tuple[EngineState, ...]:
    """Every engine as if it were installed; on simulated hardware all that run on it are available.

    The resolver refuses those that no build of runs there (`runs_on`). A format that this machine's cards are too old
    for is left out of an engine that has others for them.
    """
    states = (_simulated(runner, limits, hardware) for runner, limits in _limits().items())
    return tuple(sorted(states, key=lambda state: state.runner))


def _simulated(runner: str, limits: Mapping[str, Any], hardware: Hardware) -> EngineState:
    capability: Mapping[str, float] = limits.get("capability", {})
    able = frozenset(name for name in limits["formats"] if not _too_old(hardware, capability.get(name)))
    formats = able or frozenset(limits["formats"])
    runs_on = frozenset(limits["runs_on"])
    return EngineState(
        runner,
        formats,
        installed=True,
        architectures=known_architectures(runner),
        tensor_types=known_tensor_types(runner),
        backends=runs_on | {"cpu"},
        runs_on=runs_on,
        min_compute_capability=min((capability[name] for name in formats if name in capability), default=None),
        modes=frozenset(limits["modes"]) if "modes" in limits else None,
    )


def _too_old(hardware: Hardware, least: float | None) -> bool:
    """Whether every CUDA card whose capability is known lies below; without such a card nothing is."""
    known = [float(gpu.compute_capability) for gpu in hardware.gpus if gpu.kind == "cuda" and gpu.compute_capability]
    return least is not None and bool(known) and max(known) < least


@cache
def _models() -> Mapping[str, Any]:
    return _read("engine_models.toml")


@cache
def _limits() -> Mapping[str, Any]:
    return _read("engine_limits.toml")


def _read(name: str) -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / name).read_text(encoding="utf-8"))
