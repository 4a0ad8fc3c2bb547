"""What of a model can be taken at all, before memory is looked at: filters, defects, engines.

Pure. Each candidate that is passed over gets one reason; each that is left comes with an engine that would run it and
the GPUs that this engine can use.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qrun.fit import usable_gpus
from qrun.ggml_types import GGML_TYPES
from qrun.hardware import DeviceKind, Hardware
from qrun.model import Candidate, ModelShape, Weights
from qrun.quality import expected_quality
from qrun.quant import same_quant
from qrun.request import Request
from qrun.resolution import EngineState, Reason, Rejection

__all__ = ["Able", "sift"]

_KIND_NAMES: dict[DeviceKind, str] = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "Metal"}
_LOADED_TYPES = frozenset(one.name for one in GGML_TYPES.values() if one.supported)


@dataclass(frozen=True, slots=True)
class Able:
    """A candidate with an engine that would run it here, on those GPUs of the machine (indexes; empty: the CPU)."""

    candidate: Candidate
    shape: ModelShape
    weights: Weights
    engine: EngineState
    gpus: tuple[int, ...]


def sift(
    request: Request, candidates: Iterable[Candidate], hardware: Hardware, engines: Sequence[EngineState], *, n_ctx: int
) -> tuple[list[Able], list[Rejection]]:
    """Those that can be taken, once for each engine, and the others with their reason."""
    able: list[Able] = []
    rejected: list[Rejection] = []
    for candidate in candidates:
        if refused := _unwanted(request, candidate) or _defective(candidate):
            rejected.append(refused)
            continue
        outcomes = list(_with_engines(request, candidate, hardware, engines, n_ctx=n_ctx))
        found = [outcome for outcome in outcomes if isinstance(outcome, Able)]
        able += found
        if not found:
            rejected.append(next(outcome for outcome in outcomes if isinstance(outcome, Rejection)))
    return able, rejected


def _unwanted(request: Request, candidate: Candidate) -> Rejection | None:
    if request.quant is not None and not same_quant(request.quant, candidate.quant):
        return _rejection(candidate, "filtered", f"--quant {request.quant} was asked for")
    if request.format is not None and request.format != candidate.format:
        return _rejection(candidate, "filtered", f"--format {request.format} was asked for")
    return None


def _defective(candidate: Candidate) -> Rejection | None:
    if candidate.defect is None:
        return None
    return _rejection(candidate, candidate.defect.reason, candidate.defect.detail)


def _with_engines(
    request: Request, candidate: Candidate, hardware: Hardware, engines: Sequence[EngineState], *, n_ctx: int
) -> Iterator[Able | Rejection]:
    """One outcome for each engine of the candidate's format, or one rejection where there is none."""
    of_format = [engine for engine in engines if candidate.format in engine.formats]
    if not of_format:
        yield _rejection(candidate, "engine_unavailable", f"no runner loads {candidate.format}")
        return
    wanted = [engine for engine in of_format if _is_wanted(request, engine)]
    if not wanted:
        names = ", ".join(engine.runner for engine in of_format)
        detail = f"only {names} loads it, which was not asked for"
        yield _rejection(candidate, "filtered", detail, would_fit=f"--engine {of_format[0].runner}")
        return
    for engine in sorted(wanted, key=lambda engine: (not engine.installed, engine.runner)):
        yield _with_engine(request, candidate, hardware, engine, n_ctx=n_ctx)


def _is_wanted(request: Request, engine: EngineState) -> bool:
    if request.engine is not None:
        return engine.runner == request.engine
    return not request.engines or engine.runner in request.engines


def _with_engine(  # noqa: PLR0911  # one way out for each reason
    request: Request, candidate: Candidate, hardware: Hardware, engine: EngineState, *, n_ctx: int
) -> Able | Rejection:
    shape, weights = candidate.shape, candidate.weights
    if beyond := _beyond_hardware(candidate, hardware, engine):
        return beyond
    if not engine.installed and not engine.can_install:
        why = engine.why_not or "it is not installed"
        return _rejection(candidate, "engine_unavailable", f"{engine.runner}: {why}", engine, _how_to_have(engine))
    if shape is None or weights is None:
        detail = "its dimensions are not known, so its memory is not"
        return _rejection(candidate, "architecture_unsupported", detail, engine)
    if engine.architectures is not None and shape.architecture not in engine.architectures:
        detail = f"{engine.runner} does not load {shape.architecture}"
        return _rejection(candidate, "architecture_unsupported", detail, engine)
    loaded = _LOADED_TYPES if engine.tensor_types is None else engine.tensor_types
    foreign = [name for name, _ in weights.type_bytes if name not in loaded]
    if foreign and candidate.format == "gguf":
        detail = f"it holds {foreign[0]} tensors, which {engine.runner} does not load"
        return _rejection(candidate, "architecture_unsupported", detail, engine)
    if shape.n_ctx_train is not None and n_ctx > shape.n_ctx_train:
        return _rejection(candidate, "filtered", f"its context ends at {shape.n_ctx_train} tokens", engine)
    gpus = usable_gpus(hardware, engine.backends, min_compute_capability=engine.min_compute_capability)
    if hardware.gpus and not gpus and not request.allow_cpu_engine:
        detail = f"{engine.runner} here runs on the CPU alone"
        would = f"--allow-cpu-engine, or {_how_to_have(engine)}"
        return _rejection(candidate, "engine_unavailable", detail, engine, would)
    return Able(candidate, shape, weights, engine, gpus)


def _how_to_have(engine: EngineState) -> str:
    remedy = engine.remedy or f"qrun engines install {engine.runner}"
    return remedy.removeprefix("Run: ").removesuffix(".")


def _beyond_hardware(candidate: Candidate, hardware: Hardware, engine: EngineState) -> Rejection | None:
    """Why no build of the engine loads that format on this machine, with what would; None: some build may."""
    if engine.runs_on is not None and "cpu" not in engine.runs_on:
        kinds = " or ".join(sorted(_KIND_NAMES[kind] for kind in engine.runs_on))
        if not any(gpu.kind in engine.runs_on for gpu in hardware.gpus):
            detail = f"{engine.runner} runs on {kinds} alone"
            return _rejection(candidate, "hardware_unsupported", detail, engine, f"a GPU with {kinds}")
    least = engine.min_compute_capability
    cards = [gpu for gpu in hardware.gpus if gpu.kind == "cuda"]
    if least is None or not cards or usable_gpus(hardware, engine.runs_on, min_compute_capability=least):
        return None
    best = max(float(gpu.compute_capability) for gpu in cards if gpu.compute_capability)
    detail = f"{engine.runner} needs compute capability {least}, this GPU has {best}"
    return _rejection(candidate, "hardware_unsupported", detail, engine, f"a GPU of compute capability {least} or more")


def _rejection(
    candidate: Candidate, reason: Reason, detail: str, engine: EngineState | None = None, would_fit: str | None = None
) -> Rejection:
    quality = None if candidate.defect else expected_quality(candidate)
    return Rejection(candidate, engine.runner if engine else None, reason, detail, would_fit, quality=quality)
