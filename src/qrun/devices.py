"""What a device is by the name its driver gives it: bandwidth, memory, compute (`data/devices.tsv`).

Pure. A name matches only where all its words do: a `3080 Ti` is no `3080`, a `4090 Laptop GPU` no `4090`, a part of a
card (MIG, vGPU) not the card. Where several devices bear one name, memory tells them apart; where it does not, the one
that is called so itself is meant, else the slowest, so that no promise is made of the name alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

from qrun.hardware import Device, Hardware
from qrun.units import GIB

__all__ = ["DeviceSpec", "all_devices", "find_device", "with_bandwidths"]


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device as its maker specifies it. `fp16_tflops` is dense; `shared_memory`: its memory is the host's."""

    name: str
    kind: Literal["gpu", "cpu"]
    memory_gib: tuple[int, ...]  # the sizes it is sold with; empty: any
    bandwidth_bytes_per_s: float
    fp16_tflops: float | None
    capability: str | None  # CUDA compute capability, gfx target, or the architecture's name
    shared_memory: bool
    source: str


@lru_cache(maxsize=64)  # asked for every candidate of a decision
def find_device(
    name: str, *, memory_bytes: int | None = None, kind: Literal["gpu", "cpu"] | None = None
) -> DeviceSpec | None:
    """The device that a driver or /proc/cpuinfo calls `name`; None where none is known by all of its words.

    `memory_bytes`, as the driver reports it, tells devices of one name apart. `kind` None: GPUs are looked at first.
    """
    if kind != "cpu" and (gpu := _gpu_named(name, memory_bytes)):
        return gpu
    return _cpu_named(name) if kind != "gpu" else None


def all_devices() -> tuple[DeviceSpec, ...]:
    """Every device that is known."""
    return tuple(_spec(fields) for kind in _tables().values() for fields in kind)


def with_bandwidths(hardware: Hardware) -> Hardware:
    """`hardware` with the nominal bandwidths of devices that are known by name and lack one."""
    gpus = tuple(_filled(gpu) for gpu in hardware.gpus)
    if hardware.ram_bandwidth_bytes_per_s is not None or hardware.cpu.name is None:
        return replace(hardware, gpus=gpus)
    cpu = find_device(hardware.cpu.name, kind="cpu")
    if cpu is None:
        return replace(hardware, gpus=gpus)
    return replace(
        hardware, gpus=gpus, ram_bandwidth_bytes_per_s=cpu.bandwidth_bytes_per_s, ram_bandwidth_source="specification"
    )


class _Row(NamedTuple):
    """A device that bears a name; `own_name`: it is called so itself, not by an alias."""

    spec: DeviceSpec
    own_name: bool


# What names carry beside the device's own words.
_MARKS = re.compile(r"\((?:r|tm|c)\)|[®™©]", re.IGNORECASE)
_BRACKETS = re.compile(r"[([]([^)\]]*)[)\]]")
_WITH_GPU = re.compile(r"\b(?:w/|with) radeon.*", re.IGNORECASE)
_NOISE = frozenset(
    {
        *(
            "nvidia",
            "geforce",
            "tesla",
            "amd",
            "ati",
            "radeon",
            "instinct",
            "intel",
            "apple",
            "qualcomm",
            "corporation",
        ),
        *("inc", "gpu", "graphics", "generation", "edition", "design", "with", "series", "oam", "radv"),
    }
)
_SAME: Mapping[str, str] = {"mobile": "laptop", "dgpu": "gpu"}
_CPU_NOISE = re.compile(
    r"\b(?:amd|intel|genuine|cpu|processor|[0-9]+-cores?|[0-9]+th gen|quad-core|six-core|eight-core)\b|@.*"
)
# Drivers report a little less than what is sold; firmware and ECC take up to an eighth.
_LEAST_SHARE, _MOST_SHARE = 0.8, 1.05


def _gpu_named(name: str, memory_bytes: int | None) -> DeviceSpec | None:
    for key in _keys(name):
        if key and (
            rows := [row for fields in _tables()["gpu"] if _may_be(fields, key) for row in _bearing(fields, key)]
        ):
            return _by_memory(rows, memory_bytes)
    return None


def _may_be(fields: Mapping[str, str], key: tuple[str, ...]) -> bool:
    """Whether a row's text holds the words at all: to read every name of the table word by word takes 20 ms."""
    text = f"{fields['name']}|{fields['aliases']}".lower()
    return all(word in text for word in key if not word.endswith("gb") and word not in _SAME.values())


def _bearing(fields: Mapping[str, str], key: tuple[str, ...]) -> Iterator[_Row]:
    """The row, where it bears that name."""
    own = _keys(fields["name"])[0] == key
    if own or any(_keys(alias)[0] == key for alias in fields["aliases"].split("|") if alias):
        yield _Row(_spec(fields), own)


def _keys(name: str) -> list[tuple[str, ...]]:
    """The words that tell, sorted: of the name, or where it has none of its own, of what stands in its brackets."""
    plain = _WITH_GPU.sub("", _MARKS.sub(" ", name)).strip() or _MARKS.sub(" ", name)
    outside = _words(_BRACKETS.sub(" ", plain))
    inside = [words for text in _BRACKETS.findall(plain) if (words := _words(text))]
    whole = _words(plain)
    return [whole, outside] if outside else [whole, *inside]


def _words(text: str) -> tuple[str, ...]:
    parts = re.split(r"[^a-z0-9+_.]+", re.sub(r"(\d) (gb|gib)\b", r"\1gb", text.lower()))
    kept = (_SAME.get(part, part) for part in parts if part)
    return tuple(sorted(part for part in kept if part not in _NOISE))


def _by_memory(rows: Sequence[_Row], memory_bytes: int | None) -> DeviceSpec:
    """Of devices of one name that with such memory; else the one that is called so itself; else the slowest."""
    fitting = [row for row in rows if memory_bytes is not None and _sold_with(row.spec, memory_bytes)]
    own = [row for row in rows if row.own_name]
    named = [row.spec for row in fitting or own or rows]
    return min(named, key=lambda one: (one.bandwidth_bytes_per_s, one.fp16_tflops or 0.0, one.name))


def _sold_with(spec: DeviceSpec, memory_bytes: int) -> bool:
    return any(_LEAST_SHARE <= memory_bytes / (size * GIB) <= _MOST_SHARE for size in spec.memory_gib)


def _cpu_named(name: str) -> DeviceSpec | None:
    text = _BRACKETS.sub(" ", _WITH_GPU.sub("", _MARKS.sub(" ", name))).lower()
    text = " ".join(_CPU_NOISE.sub(" ", text).split())
    return next((_spec(fields) for fields in _tables()["cpu"] if re.fullmatch(fields["pattern"], text)), None)


def _filled(gpu: Device) -> Device:
    if gpu.bandwidth_bytes_per_s is not None:
        return gpu
    spec = find_device(gpu.name, memory_bytes=gpu.memory_bytes, kind="gpu")
    if spec is None:
        return gpu
    return replace(gpu, bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s, bandwidth_source="specification")


@cache
def _tables() -> Mapping[str, Sequence[Mapping[str, str]]]:
    """The rows of the table, by kind."""
    text = (files("qrun") / "data" / "devices.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    rows = [dict(zip(lines[0], fields, strict=True)) for fields in lines[1:]]
    return {kind: [row for row in rows if row["kind"] == kind] for kind in ("gpu", "cpu")}


def _spec(fields: Mapping[str, str]) -> DeviceSpec:
    return DeviceSpec(
        name=fields["name"],
        kind="gpu" if fields["kind"] == "gpu" else "cpu",
        memory_gib=tuple(int(size) for size in fields["memory_gib"].split(",") if size),
        bandwidth_bytes_per_s=float(fields["bandwidth_gb_s"]) * 1e9,
        fp16_tflops=float(fields["fp16_tflops"]) if fields["fp16_tflops"] else None,
        capability=fields["capability"] or None,
        shared_memory=fields["memory"] == "shared",
        source=fields["source"],
    )
