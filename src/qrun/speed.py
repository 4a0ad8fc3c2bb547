"""How fast a choice would decode and prefill: tokens per second, with a range.

Pure. Decoding reads the active weights once for every token: bytes / (bandwidth * efficiency) + an overhead per layer.
Efficiencies hang on the tensor types and on whether a GPU or a CPU works on them (`data/speed.toml`). A bandwidth that
is not known is assumed by class: such a rate says "extrapolated" and has a wide range, but ranks candidates on one
machine as well as any, for it multiplies them all.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from qrun.hardware import Device, Hardware
from qrun.model import ModelShape, Weights
from qrun.placement import Placement

__all__ = ["Speed", "active_bytes", "expected_speed", "relative_efficiency"]

Processor = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Expected tokens/s at one client; `low` and `high` bound the decode rate. `prefill_tps` None: unknown.

    `source`: "model" from a known bandwidth, "extrapolated" from an assumed one.
    """

    decode_tps: float
    low: float
    high: float
    prefill_tps: float | None
    source: str


def expected_speed(shape: ModelShape, weights: Weights, placement: Placement, hardware: Hardware) -> Speed:
    """The decode rate of one request at a short context, each part of the weights read where it lies."""
    on_gpu, on_cpu = _active_sides(shape, weights, placement)
    parts: list[tuple[_Rate, float]] = []
    if on_gpu:
        share_of = _shares(placement, hardware.gpus)
        slowed = on_gpu / relative_efficiency(weights, "gpu")
        parts += [(_gpu_rate(gpu), slowed * share) for gpu, share in share_of if share]
    if on_cpu:
        parts.append((_cpu_rate(hardware), on_cpu / relative_efficiency(weights, "cpu")))
    overhead_s = shape.n_layer * float(_data()["overhead"]["layer_s"])
    expected_s, slow_s, fast_s = (
        overhead_s + sum(size_bytes / getattr(rate, which) for rate, size_bytes in parts)
        for which in ("median", "low", "high")
    )
    source = "extrapolated" if any(rate.assumed for rate, _ in parts) else "model"
    return Speed(1 / expected_s, 1 / slow_s, 1 / fast_s, None, source)


def active_bytes(shape: ModelShape, weights: Weights) -> int:
    """The bytes that one token reads: every layer, of routed experts those in use, and the output head."""
    head = weights.token_embd_bytes if weights.tied else weights.output_bytes
    return sum(_active_layers(shape, weights)) + head


def relative_efficiency(weights: Weights, processor: Processor) -> float:
    """How fast these tensor types are read, against F16 on the same processor.

    A type without a figure counts as the nearest in bits that has one.
    """
    table: Mapping[str, float] = _data()[processor]
    slowed = sum(size_bytes / _of_type(table, name) for name, size_bytes in weights.type_bytes)
    read = sum(size_bytes for _, size_bytes in weights.type_bytes)
    return read / slowed if slowed else 1.0


class _Rate(NamedTuple):
    """Bytes of F16 a second: expected, at least, at most."""

    median: float
    low: float
    high: float
    assumed: bool


def _of_type(table: Mapping[str, float], name: str) -> float:
    if name in table:
        return table[name]
    digits = [int(letter) for letter in name if letter.isdigit()]
    bits = digits[0] if digits else 4
    near = min((one for one in table if one[0] in "QI"), key=lambda one: (abs(int(one.lstrip("IQ")[0]) - bits), one))
    return table[near]


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


def _shares(placement: Placement, gpus: Sequence[Device]) -> Sequence[tuple[Device, float]]:
    if placement.tensor_split is None:
        return [(gpus[0], 1.0)]
    return list(zip(gpus, placement.tensor_split, strict=False))


def _gpu_rate(gpu: Device) -> _Rate:
    assumed_as = "unified" if gpu.unified and gpu.kind != "metal" else gpu.kind
    return _rate(gpu.bandwidth_bytes_per_s, gpu.kind, assumed_as)


def _cpu_rate(hardware: Hardware) -> _Rate:
    return _rate(hardware.ram_bandwidth_bytes_per_s, "cpu", "cpu")


def _rate(known: float | None, kind: str, assumed_as: str) -> _Rate:
    reached, assumed = _data()["reached"][kind], _data()["assumed"]
    if known is not None:
        return _Rate(known * reached["median"], known * reached["low"], known * reached["high"], assumed=False)
    middle = assumed[assumed_as] * reached["median"]
    return _Rate(middle, middle / assumed["range_factor"], middle * assumed["range_factor"], assumed=True)


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "speed.toml").read_text(encoding="utf-8"))
