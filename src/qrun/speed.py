"""How fast a choice would decode and prefill: tokens per second, with a range.

Pure. A token takes the active weights' bytes / (bandwidth * efficiency of quant and engine), the same for the KV cache
that lies before it, and an overhead for each layer, larger where a layer picks experts. Prefill is bound by compute:
2 operations a weight and token. The constants are fitted to published measurements (`data/speed.toml`, which
scripts/bench/speed_fit.py writes; docs/measurements/speed.md has the error on rows they were not fitted to).
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from qrun.devices import find_device
from qrun.hardware import Device, Hardware
from qrun.model import Format, ModelShape, Weights
from qrun.placement import Placement

__all__ = [
    "Constants",
    "Part",
    "Speed",
    "active_bytes",
    "constants_of",
    "expected_speed",
    "parts_of_token",
    "peak_prefill_tps",
    "relative_efficiency",
    "seconds_of",
]

Processor = Literal["gpu", "cpu"]
_F16_BYTES = 2
_FEWEST_ROWS = 8  # of an engine, backend and format: with fewer the constants count as extrapolated


@dataclass(frozen=True, slots=True)
class Speed:
    """Expected tokens/s at one client; `low` and `high` bound the decode rate. `prefill_tps` None: unknown.

    `source`: "model" where measurements of that engine, backend and format stand behind it, "extrapolated" where fewer
    than 8 do, where parts lie on GPU and CPU, or where a bandwidth is assumed.
    """

    decode_tps: float
    low: float
    high: float
    prefill_tps: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Constants:
    """What is fitted for one engine on one backend. `low` and `high`: the range, as parts of the expected rate."""

    efficiency: float  # of the nominal bandwidth, on F16
    type_exponent: float  # of `relative_efficiency`: 0 where the engine reads all types alike
    layer_s: float
    expert_layer_s: float  # more, for a layer that picks experts
    low: float
    high: float
    prefill_efficiency: float | None  # of the device's dense fp16 rate
    rows: Mapping[str, int]  # format -> measurements that the constants were fitted to, or held against


@dataclass(frozen=True, slots=True)
class Part:
    """What one token does on one device. `bandwidth` is nominal; `relative`: the types' efficiency against F16."""

    kind: str
    bandwidth_bytes_per_s: float
    assumed: bool
    weight_bytes: float
    relative: float
    kv_bytes: float
    n_layer: float
    n_expert_layer: float


def expected_speed(
    shape: ModelShape,
    weights: Weights,
    placement: Placement,
    hardware: Hardware,
    *,
    engine: str = "llamacpp",
    format: Format = "gguf",  # noqa: A002  # the contract's word (DESIGN section 2)
    n_before: int = 0,
) -> Speed:
    """The rates of one request with `n_before` tokens in its KV cache (f16), each part read where it lies."""
    parts = parts_of_token(shape, weights, placement, hardware, n_before=n_before)
    parallel = _is_parallel(placement, engine)
    if parallel:
        parts = _everywhere(parts, shape)
    used = [constants_of(engine, part.kind) for part in parts]
    seconds = [seconds_of(part, one) for part, one in zip(parts, used, strict=True)]
    # Layers on several devices wait for each other; where every layer lies on all of them, these work at once.
    expected = _data()["tensor_parallel"]["efficiency"] / max(seconds) if parallel else 1 / sum(seconds)
    measured = all(one.rows.get(format, 0) >= _FEWEST_ROWS for one in used)
    assumed, mixed = any(part.assumed for part in parts), placement.mode in ("split", "experts-on-cpu")
    low, high = min(one.low for one in used), max(one.high for one in used)
    if mixed or not measured:
        low, high = 1 - _data()["extrapolated"]["range"], 1 + _data()["extrapolated"]["range"]
    if assumed:
        factor = _data()["assumed"]["range_factor"]
        low, high = 1 / factor, factor
    source = "extrapolated" if mixed or assumed or not measured else "model"
    return Speed(
        decode_tps=expected,
        low=expected * low,
        high=expected * high,
        prefill_tps=_prefill(shape, weights, placement, hardware, used[0].prefill_efficiency),
        source=source,
    )


def parts_of_token(
    shape: ModelShape, weights: Weights, placement: Placement, hardware: Hardware, *, n_before: int = 0
) -> list[Part]:
    """What one token does on each device in use: GPUs in their order, then the host."""
    on_gpu, on_cpu = _active_sides(shape, weights, placement)
    total = max(1, on_gpu + on_cpu)
    sides: list[tuple[str, float, bool, float, Processor]] = []
    if on_gpu:
        for gpu, share in _shares(placement, hardware.gpus):
            if share:
                sides.append((gpu.kind, *_gpu_bandwidth(gpu), on_gpu * share, "gpu"))
    if on_cpu:
        sides.append(("cpu", *_ram_bandwidth(hardware), on_cpu, "cpu"))
    kv_bytes = _kv_bytes(shape, n_before)
    return [
        Part(
            kind=kind,
            bandwidth_bytes_per_s=bandwidth,
            assumed=assumed,
            weight_bytes=size_bytes,
            relative=relative_efficiency(weights, processor),
            kv_bytes=kv_bytes * size_bytes / total,
            n_layer=shape.n_layer * size_bytes / total,
            n_expert_layer=(shape.n_layer if shape.n_expert else 0) * size_bytes / total,
        )
        for kind, bandwidth, assumed, size_bytes, processor in sides
    ]


def seconds_of(part: Part, constants: Constants) -> float:
    """What that part of a token takes."""
    weights_s = part.weight_bytes / (constants.efficiency * math.pow(part.relative, constants.type_exponent))
    kv_s = part.kv_bytes / float(_data()["kv_cache"]["efficiency"])
    overhead_s = part.n_layer * constants.layer_s + part.n_expert_layer * constants.expert_layer_s
    return (weights_s + kv_s) / part.bandwidth_bytes_per_s + overhead_s


def constants_of(engine: str, kind: str) -> Constants:
    """Those of `engine` on a backend; where it has none there, llama.cpp's, without any row behind them."""
    known = _constants()
    if (engine, kind) in known:
        return known[engine, kind]
    return replace(known["llamacpp", kind], prefill_efficiency=None, rows={})


def peak_prefill_tps(shape: ModelShape, weights: Weights, placement: Placement, hardware: Hardware) -> float | None:
    """Prompt tokens/s at the GPUs' whole dense fp16 rate: 2 operations a weight in use. None where one is unknown."""
    if not placement.whole_on_gpu or not weights.total_bytes:
        return None
    gpus = [gpu for gpu, share in _shares(placement, hardware.gpus) if share]
    specs = [find_device(gpu.name, memory_bytes=gpu.memory_bytes, kind="gpu") for gpu in gpus]
    tflops = [spec.fp16_tflops for spec in specs if spec is not None and spec.fp16_tflops is not None]
    if len(tflops) < len(specs):
        return None
    active_params = weights.n_params * active_bytes(shape, weights) / weights.total_bytes
    return min(tflops) * 1e12 / (2 * active_params)  # layers on several GPUs wait for each other


def active_bytes(shape: ModelShape, weights: Weights) -> int:
    """The bytes that one token reads: every layer, of routed experts those in use, and the output head."""
    head = weights.token_embd_bytes if weights.tied else weights.output_bytes
    return sum(_active_layers(shape, weights)) + head


def relative_efficiency(weights: Weights, processor: Processor) -> float:
    """How fast these tensor types are read, against F16 on the same processor, by llama.cpp's own table.

    A type without a figure counts as the nearest in bits that has one.
    """
    table: Mapping[str, float] = _data()[processor]
    slowed = sum(size_bytes / _of_type(table, name) for name, size_bytes in weights.type_bytes)
    read = sum(size_bytes for _, size_bytes in weights.type_bytes)
    return read / slowed if slowed else 1.0


def _prefill(
    shape: ModelShape, weights: Weights, placement: Placement, hardware: Hardware, efficiency: float | None
) -> float | None:
    peak = None if efficiency is None else peak_prefill_tps(shape, weights, placement, hardware)
    return None if peak is None or efficiency is None else peak * efficiency


def _of_type(table: Mapping[str, float], name: str) -> float:
    if name in table:
        return table[name]
    digits = [int(letter) for letter in name if letter.isdigit()]
    bits = digits[0] if digits else 4
    near = min((one for one in table if one[0] in "QI"), key=lambda one: (abs(int(one.lstrip("IQ")[0]) - bits), one))
    return table[near]


def _is_parallel(placement: Placement, engine: str) -> bool:
    return placement.tensor_split is not None and engine in _data()["tensor_parallel"]["engines"]


def _everywhere(parts: Sequence[Part], shape: ModelShape) -> list[Part]:
    """Every device works on every layer."""
    expert_layers = shape.n_layer if shape.n_expert else 0
    return [replace(part, n_layer=shape.n_layer, n_expert_layer=expert_layers) for part in parts]


def _active_layers(shape: ModelShape, weights: Weights) -> list[int]:
    idle = 1 - shape.n_expert_used / shape.n_expert if shape.n_expert else 0.0
    experts = [*weights.expert_bytes, *[0] * (len(weights.layer_bytes) - len(weights.expert_bytes))]
    return [layer - int(expert * idle) for layer, expert in zip(weights.layer_bytes, experts, strict=True)]


def _active_sides(shape: ModelShape, weights: Weights, placement: Placement) -> tuple[int, int]:
    """The active bytes on GPUs and in host RAM: llama.cpp puts the first layers, and the first experts, in RAM."""
    total = active_bytes(shape, weights)
    if placement.whole_on_gpu:
        return total, 0
    if placement.mode == "cpu":
        return 0, total
    layers = _active_layers(shape, weights)
    if placement.mode == "experts-on-cpu":
        used = shape.n_expert_used / shape.n_expert if shape.n_expert else 1.0
        off = sum(int(expert * used) for expert in weights.expert_bytes[: placement.n_cpu_moe or 0])
    else:
        off = sum(layers[: max(0, len(layers) + 1 - (placement.n_gpu_layers or 0))])
    return total - off, off


def _kv_bytes(shape: ModelShape, n_before: int) -> int:
    """What of the KV cache (f16) a token reads: all before it, in a windowed layer the window, and recurrent states."""
    return sum(
        layer.n_head_kv
        * (layer.head_dim_k + layer.head_dim_v)
        * _F16_BYTES
        * (n_before if layer.window is None else min(n_before, layer.window))
        + layer.state_bytes
        for layer in shape.layers
    )


def _shares(placement: Placement, gpus: Sequence[Device]) -> Sequence[tuple[Device, float]]:
    if placement.tensor_split is None:
        return [(gpus[0], 1.0)]
    return list(zip(gpus, placement.tensor_split, strict=False))


def _gpu_bandwidth(gpu: Device) -> tuple[float, bool]:
    if gpu.bandwidth_bytes_per_s is not None:
        return gpu.bandwidth_bytes_per_s, False
    assumed_as = "unified" if gpu.unified and gpu.kind != "metal" else gpu.kind
    return float(_data()["assumed"][assumed_as]), True


def _ram_bandwidth(hardware: Hardware) -> tuple[float, bool]:
    """The nominal bandwidth of RAM: a measured one is what of it a processor reads."""
    known = hardware.ram_bandwidth_bytes_per_s
    if known is None:
        return float(_data()["assumed"]["cpu"]), True
    if hardware.ram_bandwidth_source == "measured":
        known /= float(_data()["measured"]["of_nominal"])
    return known, False


@cache
def _constants() -> Mapping[tuple[str, str], Constants]:
    return {
        (engine, kind): Constants(
            efficiency=one["efficiency"],
            type_exponent=one["type_exponent"],
            layer_s=one["layer_s"],
            expert_layer_s=one["expert_layer_s"],
            low=one["low"],
            high=one["high"],
            prefill_efficiency=one.get("prefill_efficiency"),
            rows=one.get("rows", {}),
        )
        for engine, kinds in _data()["engine"].items()
        for kind, one in kinds.items()
    }


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "speed.toml").read_text(encoding="utf-8"))
