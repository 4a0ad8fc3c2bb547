"""`Resolution` as the JSON of `qrun resolve --json`: a contract with programs, pinned by a test (DESIGN section 2).

Pure. Every key is there whatever happened; what is unknown is null.
"""

from qrun.errors import QrunError
from qrun.hardware import Hardware
from qrun.memory import DeviceNeed, MemoryNeed
from qrun.model import Candidate, Weights
from qrun.placement import Placement
from qrun.quality import Quality
from qrun.request import Request
from qrun.resolution import Choice, Handover, Rejection, Resolution
from qrun.speed import Speed

__all__ = ["SCHEMA", "bpw_of", "error_json", "files_json", "quality_json", "to_json"]

SCHEMA = 1


def to_json(resolution: Resolution) -> dict[str, object]:
    """The document, its keys in the contract's order."""
    return {
        "schema": SCHEMA,
        "request": _request(resolution.request, resolution.n_ctx),
        "base_model": {"repo_id": resolution.base_model},
        "hardware": _hardware(resolution.hardware),
        "chosen": _chosen(resolution),
        "alternatives": [_choice(choice) for choice in resolution.alternatives],
        "warnings": list(resolution.warnings),
        "rejected": [_rejection(rejection) for rejection in resolution.rejected],
        "error": error_json(resolution.error),
    }


def bpw_of(candidate: Candidate) -> float | None:
    """EXL2 and EXL3: the nominal figure, which their label is; all else: weight bytes over parameters."""
    if candidate.format in ("exl2", "exl3"):
        nominal = candidate.quant.lower().removesuffix("bpw")
        return float(nominal) if nominal.replace(".", "", 1).isdigit() else None
    weights: Weights | None = candidate.weights
    return None if weights is None else round(weights.bpw, 3)


def files_json(candidate: Candidate) -> list[dict[str, object]]:
    """The candidate's files, first the one that the engine is given."""
    return [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in candidate.files]


def quality_json(quality: Quality) -> dict[str, object]:
    """The expected loss, and where the figure is from."""
    return {"kld": round(quality.kld, 6), "source": quality.source}


def error_json(error: QrunError | None) -> dict[str, object] | None:
    """A refusal: its exit code, its name, the sentence, and other names that may have been meant."""
    if error is None:
        return None
    return {
        "exit": error.exit_code,
        "name": error.name,
        "message": " ".join(str(error).split()),
        "nearest": list(error.nearest),
    }


def _request(request: Request, n_ctx: int | None) -> dict[str, object]:
    return {
        "model": request.model,
        "goal": request.goal,
        "n_ctx": n_ctx,
        "n_parallel": request.n_parallel,
        "vision": request.vision,
        "placement": request.placement,
        "quant": request.quant,
        "format": request.format,
        "engine": request.engine,
        "kv_type": request.kv_type,
    }


def _hardware(hardware: Hardware) -> dict[str, object]:
    devices = [
        {
            "name": device.name,
            "kind": device.kind,
            "memory_bytes": device.memory_bytes,
            "budget_bytes": device.budget_bytes,
        }
        for device in hardware.devices
    ]
    return {"name": hardware.name, "devices": devices}


def _chosen(resolution: Resolution) -> dict[str, object] | None:
    if resolution.handover is not None:
        return _handover(resolution.handover)
    return None if resolution.chosen is None else _choice(resolution.chosen)


def _choice(choice: Choice) -> dict[str, object]:
    return {
        **_file(choice.candidate),
        "engine": choice.engine,
        "engine_installed": choice.engine_installed,
        "n_ctx": choice.n_ctx,
        "n_parallel": choice.n_parallel,
        "kv_cache_type": choice.kv_cache_type,
        "placement": _placement(choice.placement),
        "memory": _memory(choice.memory),
        "speed": None if choice.speed is None else _speed(choice.speed),
        "quality": quality_json(choice.quality),
        "why": list(choice.why),
    }


def _handover(handover: Handover) -> dict[str, object]:
    """`chosen` of goal `finetune`: the same keys, no engine, and the line that loads it."""
    unknown = ("engine_installed", "n_ctx", "n_parallel", "kv_cache_type", "placement", "memory", "speed", "quality")
    return {
        **_file(handover.candidate),
        "engine": None,
        **dict.fromkeys(unknown),
        "why": list(handover.why),
        "load": handover.load,
    }


def _file(candidate: Candidate) -> dict[str, object]:
    return {
        "repo_id": candidate.repo_id,
        "revision": candidate.revision,
        "publisher": candidate.publisher,
        "files": files_json(candidate),
        "format": candidate.format,
        "quant": candidate.quant,
        "bpw": bpw_of(candidate),
    }


def _placement(placement: Placement) -> dict[str, object]:
    return {
        "mode": placement.mode,
        "n_gpu_layers": placement.n_gpu_layers,
        "n_cpu_moe": placement.n_cpu_moe,
        "tensor_split": None if placement.tensor_split is None else list(placement.tensor_split),
    }


def _memory(memory: MemoryNeed) -> dict[str, object]:
    return {
        "weights_bytes": memory.weights_bytes,
        "kv_cache_bytes": memory.kv_cache_bytes,
        "compute_bytes": memory.compute_bytes,
        "total_bytes": memory.total_bytes,
        "host_bytes": memory.host_bytes,
        "devices": [_device(device) for device in memory.devices],
        "source": memory.source,
    }


def _device(need: DeviceNeed) -> dict[str, object]:
    return {
        "name": need.name,
        "weights_bytes": need.weights_bytes,
        "kv_cache_bytes": need.kv_cache_bytes,
        "compute_bytes": need.compute_bytes,
        "total_bytes": need.total_bytes,
        "budget_bytes": need.budget_bytes,
    }


def _speed(speed: Speed) -> dict[str, object]:
    return {
        "decode_tps": round(speed.decode_tps, 2),
        "low": round(speed.low, 2),
        "high": round(speed.high, 2),
        "prefill_tps": None if speed.prefill_tps is None else round(speed.prefill_tps, 2),
        "source": speed.source,
    }


def _rejection(rejection: Rejection) -> dict[str, object]:
    candidate = rejection.candidate
    return {
        "repo_id": candidate.repo_id,
        "path": candidate.files[0].path if candidate.files else None,
        "quant": candidate.quant,
        "format": candidate.format,
        "engine": rejection.engine,
        "reason": rejection.reason,
        "detail": rejection.detail,
        "would_fit": rejection.would_fit,
        "size_bytes": candidate.size_bytes,
        "memory_bytes": rejection.needed_bytes,
        "speed": None if rejection.speed is None else _speed(rejection.speed),
        "quality": None if rejection.quality is None else quality_json(rejection.quality),
    }
