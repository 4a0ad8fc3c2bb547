"""What a model needs in memory at a given context.

Pure: opens no file, asks no device. Sizes are bytes, unknown is None, every formula names its source. The figures are
those of llama.cpp with flash attention, as its server prints them in its dry run ("memory breakdown"); how near they
come is in docs/measurements/memory.md.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from qrun.compute import HOST, PIPELINE_COPIES, Layout, compute_bytes, padded
from qrun.engine_formula import EngineParts, engine_parts
from qrun.hardware import Device
from qrun.model import LayerShape, ModelShape, Weights
from qrun.placement import Placement
from qrun.request import KvType

__all__ = ["DeviceNeed", "MemoryNeed", "kv_cache_bytes", "memory_need"]

# Bytes of 32 numbers in the cache: f16 two each; ggml's q8_0 and q4_0 blocks add a scale of two bytes.
_KV_BLOCK = 32
_KV_BLOCK_BYTES: dict[KvType, int] = {"f16": 64, "q8_0": 34, "q4_0": 18}
_LLAMA_CPP = "llamacpp"
# Their loaders make the output head before the embeddings, so that a tied table is held twice even where both lie in
# host RAM (llama.cpp src/models: TENSOR_DUPLICATED before tok_embd).
_HEAD_IS_A_COPY = frozenset({"gemma3n", "gemma4"})
# Their last layers read the cache of the last layer of their kind that has one.
_SHARES_CACHES = frozenset({"gemma3n", "gemma4"})


@dataclass(frozen=True, slots=True)
class DeviceNeed:
    """The need on one device, with the budget it is held against (None: unknown)."""

    name: str
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    budget_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and compute together."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The need of one choice (DESIGN section 2): accelerators in use, or host RAM in mode `cpu`.

    In the modes `split` and `experts-on-cpu` the sums count both sides. `host_bytes` stays in RAM beside them.
    """

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    host_bytes: int
    devices: tuple[DeviceNeed, ...]
    source: str  # "engine" | "header" | "formula"

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and compute together."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes


def memory_need(
    shape: ModelShape,
    weights: Weights,
    placement: Placement,
    *,
    n_ctx: int,
    n_parallel: int,
    kv_cache_type: KvType,
    gpus: Sequence[Device] = (),
    ram_budget_bytes: int | None = None,
    n_ubatch: int = 512,
    source: str = "header",
    engine: str = "llamacpp",
) -> MemoryNeed:
    """The memory that `placement` takes with `n_parallel` slots of `n_ctx` tokens each.

    That of another `engine` than llama.cpp is an estimate (`engine_formula`), whatever `source` says.

    `gpus` are the devices in the order of `placement.tensor_split`; without a split the first is used alone, and with
    none given one nameless device stands in. `devices` lists the accelerators (mode `cpu`: the host). Not counted: the
    prompt cache, which is given what is left; a row of logits for each slot in host RAM (0.5 MiB at 128k tokens); the
    engine's own context on a device, which the budget leaves room for.
    """
    used = _devices_of(placement, gpus)
    if engine != _LLAMA_CPP:
        estimate = engine_parts(engine, shape, weights, n_ctx=n_ctx, n_parallel=n_parallel, kv_cache_type=kv_cache_type)
        return _by_formula(estimate, placement, used, ram_budget_bytes)
    kv = kv_cache_bytes(shape, n_ctx=n_ctx, n_parallel=n_parallel, kv_cache_type=kv_cache_type, n_ubatch=n_ubatch)
    owners = _owners(shape.n_layer, placement, len(used))
    has_experts = tuple(map(bool, weights.expert_bytes)) or (shape.n_expert > 0,) * shape.n_layer
    layout = Layout(tuple(owners), has_experts, len(used))
    compute = compute_bytes(shape, placement, layout, n_ctx=n_ctx, n_parallel=n_parallel, n_ubatch=n_ubatch)
    held = _weights_held(shape, weights, layout, placement.n_cpu_moe or 0)
    if placement.mode == "cpu":
        host = _Part(sum(held), sum(kv), compute.host_bytes)
        return MemoryNeed(*host, 0, (DeviceNeed("CPU", *host, ram_budget_bytes),), source)

    cached = _summed(zip(owners, kv, strict=False), len(used))
    computed = [*compute.device_bytes, compute.host_bytes]
    computed[0] += _weights_copied(weights, placement, used)
    for owner, copied in _caches_copied(shape, layout, kv):
        computed[owner] += copied
    *parts, host = (_Part(*part) for part in zip(held, cached, computed, strict=True))
    devices = tuple(
        DeviceNeed(gpu.name if gpu else "GPU", *part, gpu.budget_bytes if gpu else None)
        for gpu, part in zip(used, parts, strict=True)
    )
    counted = parts if placement.whole_on_gpu else [*parts, host]
    together = _Part(*(sum(column) for column in zip(*counted, strict=True)))
    return MemoryNeed(*together, sum(host), devices, source)


def kv_cache_bytes(
    shape: ModelShape, *, n_ctx: int, n_parallel: int, kv_cache_type: KvType, n_ubatch: int = 512
) -> tuple[int, ...]:
    """What each layer keeps for `n_parallel` slots of `n_ctx` tokens.

    Keys and values of every cell in blocks of `kv_cache_type`; layers with a sliding window keep the window and one
    batch (llama-kv-cache-iswa.cpp), recurrent layers a state of fixed size a slot (llama-memory-recurrent.cpp).
    """
    cells = padded(n_ctx)
    batch = min(n_ubatch, n_ctx * n_parallel)
    item_bytes = _KV_BLOCK_BYTES[kv_cache_type]
    sizes: dict[LayerShape, int] = {}
    for layer in set(shape.layers):
        kept = cells if layer.window is None else padded(min(cells, layer.window + batch))
        items = layer.n_head_kv * (layer.head_dim_k + layer.head_dim_v)
        sizes[layer] = n_parallel * (items * kept * item_bytes // _KV_BLOCK + layer.state_bytes)
    return tuple(sizes[layer] for layer in shape.layers)


class _Part(NamedTuple):
    """What lies in one place."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int


def _by_formula(
    parts: EngineParts, placement: Placement, used: Sequence[Device | None], ram_budget_bytes: int | None
) -> MemoryNeed:
    """An engine that divides a model over its devices by proportion, each with buffers of its own."""
    if not used:
        host = _Part(parts.weights_bytes + parts.host_bytes, parts.kv_cache_bytes, parts.compute_bytes)
        return MemoryNeed(*host, 0, (DeviceNeed("CPU", *host, ram_budget_bytes),), "formula")
    shares = placement.tensor_split or (1.0,)
    devices = tuple(
        DeviceNeed(
            gpu.name if gpu else "GPU",
            round(parts.weights_bytes * share),
            round(parts.kv_cache_bytes * share),
            parts.compute_bytes if share else 0,
            gpu.budget_bytes if gpu else None,
        )
        for gpu, share in zip(used, shares, strict=True)
    )
    sums = (
        sum(device.weights_bytes for device in devices),
        sum(device.kv_cache_bytes for device in devices),
        sum(device.compute_bytes for device in devices),
    )
    return MemoryNeed(*sums, parts.host_bytes, devices, "formula")


def _devices_of(placement: Placement, gpus: Sequence[Device]) -> Sequence[Device | None]:
    """The GPUs that the placement uses, in order; None stands for one that was not described."""
    if placement.mode == "cpu":
        return ()
    n_devices = len(placement.tensor_split or (1,))
    return [*gpus[:n_devices], *[None] * (n_devices - len(gpus))]


def _owners(n_layer: int, placement: Placement, n_devices: int) -> list[int]:
    """The place of each layer and, last, of the output head: a device's index, or -1 for host RAM.

    As llama.cpp's load_tensors: the last `n_gpu_layers` of them lie on the devices, in order, by proportion. Draft
    layers, which it counts too, are left out here.
    """
    if placement.mode == "cpu":
        return [HOST] * (n_layer + 1)
    whole = placement.mode != "split" or placement.n_gpu_layers is None
    on_gpu = n_layer + 1 if whole else min(placement.n_gpu_layers or 0, n_layer + 1)
    bounds = list(accumulate(placement.tensor_split or (1.0,)))
    places = [min(bisect_right(bounds, bounds[-1] * i / on_gpu), n_devices - 1) for i in range(on_gpu)]
    return [HOST] * (n_layer + 1 - on_gpu) + places


def _weights_held(shape: ModelShape, weights: Weights, layout: Layout, n_cpu_moe: int) -> list[int]:
    """The weights on each device and, last, in host RAM."""
    inputs = weights.token_embd_bytes + weights.other_input_bytes
    rest = weights.total_bytes - inputs - weights.output_bytes - sum(weights.layer_bytes)
    # Tied embeddings are held twice: for the input in RAM, for the output where the head is.
    head = rest + (weights.token_embd_bytes if weights.tied else weights.output_bytes)
    if weights.tied and layout.owners[-1] == HOST and shape.architecture not in _HEAD_IS_A_COPY:
        head = rest
    on_host = sum(weights.expert_bytes[:n_cpu_moe])
    held = _summed(zip(layout.owners, [*weights.layer_bytes, head], strict=True), layout.n_devices)
    for owner, moved in zip(layout.owners, weights.expert_bytes[:n_cpu_moe], strict=False):
        held[owner] -= moved
    held[HOST] += inputs + on_host
    return held


def _weights_copied(weights: Weights, placement: Placement, used: Sequence[Device | None]) -> int:
    """What the first GPU needs to work on weights that lie in host RAM.

    A prompt's batches are computed there: llama.cpp copies the tensors over one by one (ggml-backend.cpp, op_offload),
    into a buffer for the largest. From its source; not measured for want of a GPU.
    """
    offloads = placement.mode in {"split", "experts-on-cpu"} and any(gpu and gpu.kind != "cpu" for gpu in used)
    return weights.largest_bytes if offloads else 0


def _caches_copied(shape: ModelShape, layout: Layout, kv: Sequence[int]) -> Iterable[tuple[int, int]]:
    """The caches that layers read from another device, as (owner, bytes): each comes over for every batch under way.

    Where layers lie in host RAM too there is one batch, and attention is computed where the cache lies.
    """
    if shape.architecture not in _SHARES_CACHES or not layout.pipelined:
        return
    sources: dict[int | None, int] = {}
    for index, layer in enumerate(shape.layers):
        if layer.n_head_kv:
            sources[layer.window] = index
        elif layer.window in sources and layout.owners[sources[layer.window]] != layout.owners[index]:
            yield layout.owners[index], PIPELINE_COPIES * kv[sources[layer.window]]


def _summed(sizes: Iterable[tuple[int, int]], n_devices: int) -> list[int]:
    """Sizes by their owner; host RAM, which is -1, comes last."""
    sums = [0] * (n_devices + 1)
    for owner, size_bytes in sizes:
        sums[owner] += size_bytes
    return sums
