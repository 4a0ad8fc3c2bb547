"""The placement of one candidate on one machine: where its parts go so that they fit.

Pure. Each mode is tried as the fastest memory allows (DESIGN 3.5); what fits is held against today's budgets, device by
device, and what stays in host RAM against the RAM budget. KV cache in f16 where that fits, else q8_0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qrun.hardware import Device, Hardware, kinds_driven
from qrun.memory import MemoryNeed, memory_need
from qrun.model import ModelShape, Weights
from qrun.placement import Mode, Placement
from qrun.request import KvType, PlacementWish

__all__ = [
    "MAX_CACHE_RAM_BYTES",
    "Fit",
    "Task",
    "fit_in_mode",
    "kv_types_for",
    "lengthened",
    "modes_for",
    "smallest_need",
    "spare_ram_bytes",
    "usable_gpus",
    "with_more_slots",
]

MAX_CACHE_RAM_BYTES = 8 * 2**30  # llama-server's own default for its prompt cache; more is never given (DESIGN 3.4)
_MOST_SLOTS = 4
_MOST_SLOTS_ON_CPU = 1
_CTX_STEP = 256  # llama.cpp pads the context to it
_KV_BLOCK = 32  # a quantized cache stores heads in blocks of 32 numbers


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be placed where: a model of known shape and weights, a machine, and the GPUs of it to use.

    `gpus` are indexes into `hardware.gpus`, in the order in which they are filled. `modes`: what the engine can do;
    None: every mode. `engine` is the runner, whose layout of memory counts.
    """

    shape: ModelShape
    weights: Weights
    hardware: Hardware
    gpus: tuple[int, ...]
    n_ctx: int
    n_parallel: int = 1
    modes: frozenset[Mode] | None = None
    engine: str = "llamacpp"

    @property
    def divides(self) -> bool:
        """Whether the engine can keep a part of the layers on the CPU."""
        return self.modes is None or "split" in self.modes

    def open_modes(self, wish: PlacementWish) -> tuple[Mode, ...]:
        """The modes that model, machine, wish and engine leave open, fastest first."""
        found = modes_for(self.shape, self.hardware, self.gpus, wish)
        return tuple(mode for mode in found if self.modes is None or mode in self.modes)


@dataclass(frozen=True, slots=True)
class Fit:
    """A placement that fits, with the need it was measured by. `used` are the GPUs in use, by index."""

    placement: Placement
    used: tuple[int, ...]
    kv_cache_type: KvType
    n_ctx: int
    n_parallel: int
    memory: MemoryNeed


def usable_gpus(
    hardware: Hardware, backends: frozenset[str] | None = None, *, min_compute_capability: float | None = None
) -> tuple[int, ...]:
    """The GPUs that one engine would use together, fastest first.

    Of one kind, for an engine is built for one: the kind with the largest budget. A GPU that shares the host's RAM is
    left out beside others. `backends` None: unknown, all are believed; so is a card of unknown compute capability.
    """
    driven = None if backends is None else kinds_driven(backends)
    able = [index for index, gpu in enumerate(hardware.gpus) if driven is None or gpu.kind in driven]
    able = [index for index in able if not _is_older(hardware.gpus[index], min_compute_capability)]
    able = [index for index in able if not hardware.gpus[index].unified] or able[:1]
    kinds: dict[str, int] = {}
    for index in able:
        gpu = hardware.gpus[index]
        kinds[gpu.kind] = kinds.get(gpu.kind, 0) + gpu.budget_bytes
    if not kinds:
        return ()
    kind = max(sorted(kinds), key=lambda name: kinds[name])
    alike = [index for index in able if hardware.gpus[index].kind == kind]
    return tuple(sorted(alike, key=lambda index: _fastest_first(hardware.gpus[index])))


def modes_for(shape: ModelShape, hardware: Hardware, gpus: Sequence[int], wish: PlacementWish) -> tuple[Mode, ...]:
    """The modes open to a model, fastest first; `gpu` wishes the whole model in GPU memory and nothing else."""
    if not gpus:
        return () if wish == "gpu" else ("cpu",)
    whole: Mode = "unified" if hardware.gpus[gpus[0]].unified else "gpu"
    if wish == "gpu":
        return (whole,)
    if whole == "unified":
        return (whole, "cpu")  # parts on the CPU would lie in the same memory
    return (whole, "experts-on-cpu", "split", "cpu") if shape.n_expert else (whole, "split", "cpu")


def kv_types_for(shape: ModelShape, wish: str) -> tuple[KvType, ...]:
    """The KV cache types to try, the best first. `auto` never falls to q4_0, nor to what the head sizes forbid."""
    for named in ("f16", "q8_0", "q4_0"):
        if wish == named:
            return (named,)
    blocks = all(size % _KV_BLOCK == 0 for layer in shape.layers for size in (layer.head_dim_k, layer.head_dim_v))
    return ("f16", "q8_0") if blocks else ("f16",)


def fit_in_mode(task: Task, mode: Mode, kv_types: Sequence[KvType]) -> Fit | None:
    """The best placement of that mode that fits, or None."""
    for kv_cache_type in kv_types:
        for found in _placements(task, mode, kv_cache_type):
            if _fits(found, task.hardware):
                return found
    return None


def smallest_need(task: Task, mode: Mode, kv_types: Sequence[KvType]) -> MemoryNeed:
    """The least that the model takes whole in that mode's memory, whether or not it is there."""
    gpus = tuple(task.hardware.gpus[index] for index in task.gpus[:1])
    placement = _whole(task, mode)
    needs = [_need(task, placement, gpus, kv_cache_type) for kv_cache_type in kv_types]
    return min(needs, key=lambda need: need.total_bytes)


def with_more_slots(task: Task, fit: Fit) -> Fit:
    """The same placement with as many slots as fit, at most 4 (on the CPU: 1)."""
    most = _MOST_SLOTS_ON_CPU if fit.placement.mode == "cpu" else _MOST_SLOTS
    for n_parallel in range(most, fit.n_parallel, -1):
        more = _again(replace(task, n_parallel=n_parallel), fit)
        if _fits(more, task.hardware):
            return more
    return fit


def lengthened(task: Task, fit: Fit) -> Fit:
    """The same placement with the longest context that fits, up to the model's own."""
    longest = task.shape.n_ctx_train or fit.n_ctx
    if longest <= fit.n_ctx:
        return fit
    full = _again(replace(task, n_ctx=longest), fit)
    if _fits(full, task.hardware):
        return full
    steps = _last_true(
        fit.n_ctx // _CTX_STEP,
        longest // _CTX_STEP,
        lambda step: (
            step * _CTX_STEP <= fit.n_ctx or _fits(_again(replace(task, n_ctx=step * _CTX_STEP), fit), task.hardware)
        ),
    )
    return fit if steps * _CTX_STEP <= fit.n_ctx else _again(replace(task, n_ctx=steps * _CTX_STEP), fit)


def spare_ram_bytes(fit: Fit, hardware: Hardware) -> int:
    """What the choice leaves of the RAM budget for the engine's prompt cache: at most 8 GiB, possibly nothing."""
    taken = fit.memory.host_bytes
    if fit.placement.mode in ("cpu", "unified"):
        taken += fit.memory.total_bytes
    return max(0, min(MAX_CACHE_RAM_BYTES, hardware.ram_budget_bytes - taken))


def _is_older(gpu: Device, least: float | None) -> bool:
    return least is not None and gpu.compute_capability is not None and float(gpu.compute_capability) < least


def _fastest_first(gpu: Device) -> tuple[float, int]:
    return -(gpu.bandwidth_bytes_per_s or 0.0), -gpu.budget_bytes


def _whole(task: Task, mode: Mode) -> Placement:
    if not task.divides:
        return Placement(mode)
    n_layers = task.shape.n_layer + 1
    if mode == "cpu":
        return Placement("cpu", 0, 0)
    if mode == "split":
        return Placement("split", n_layers, 0)
    return Placement(mode, n_layers, 0)


def _placements(task: Task, mode: Mode, kv_cache_type: KvType) -> Iterator[Fit]:
    """The placements of one mode, best first; those of several GPUs already balanced."""
    whole = _whole(task, mode)
    if mode in ("cpu", "unified"):
        yield _placed(task, whole, task.gpus[:1] if mode == "unified" else (), kv_cache_type)
    elif mode == "gpu":
        for used in _gpu_sets(task.gpus):
            yield _placed(task, whole, used, kv_cache_type)
    else:
        search = _with_experts_off if mode == "experts-on-cpu" else _with_layers_off
        found = search(task, whole, kv_cache_type)
        if found is not None:
            yield found


def _gpu_sets(gpus: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """One GPU after the other, then the first two, three, ...: more cards than needed only cost buffers."""
    yield from ((index,) for index in gpus)
    yield from (gpus[:count] for count in range(2, len(gpus) + 1))


def _with_experts_off(task: Task, whole: Placement, kv_cache_type: KvType) -> Fit | None:
    """The fewest layers' experts in RAM that let the rest fit the GPUs."""

    def devices_hold(n_cpu_moe: int) -> bool:
        return _on_devices(_placed(task, replace(whole, n_cpu_moe=n_cpu_moe), task.gpus, kv_cache_type))

    most = task.shape.n_layer
    if not devices_hold(most):
        return None
    too_few = _last_true(0, most, lambda count: count == 0 or not devices_hold(count))
    return _placed(task, replace(whole, n_cpu_moe=too_few + 1), task.gpus, kv_cache_type)


def _with_layers_off(task: Task, whole: Placement, kv_cache_type: KvType) -> Fit | None:
    """The most layers that fit the GPUs, the others in RAM."""

    def placed(n_gpu_layers: int) -> Fit:
        return _placed(task, replace(whole, n_gpu_layers=n_gpu_layers), task.gpus, kv_cache_type)

    count = _last_true(0, task.shape.n_layer, lambda layers: layers == 0 or _on_devices(placed(layers)))
    return placed(count) if count else None


def _last_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest number from `low` to `high` for which `holds`, which is true at `low` and, once false, stays so."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _placed(task: Task, placement: Placement, used: tuple[int, ...], kv_cache_type: KvType) -> Fit:
    """The placement on those GPUs; over several the layers are moved until each holds its part, if any way does."""
    used = tuple(sorted(used))
    gpus = tuple(task.hardware.gpus[index] for index in used)
    if len(used) < 2:  # noqa: PLR2004  # one device: nothing to divide
        need = _need(task, placement, gpus, kv_cache_type)
        told = replace(placement, tensor_split=_one_of(len(task.hardware.gpus), used))
        return Fit(told, used, kv_cache_type, task.n_ctx, task.n_parallel, need)
    split, need = _balanced(task, placement, gpus, kv_cache_type)
    shares = dict(zip(used, split, strict=True))
    told = replace(placement, tensor_split=tuple(shares.get(i, 0.0) for i in range(len(task.hardware.gpus))))
    return Fit(told, used, kv_cache_type, task.n_ctx, task.n_parallel, need)


def _one_of(n_gpus: int, used: tuple[int, ...]) -> tuple[float, ...] | None:
    return tuple(float(index in used) for index in range(n_gpus)) if n_gpus > 1 and used else None


def _balanced(
    task: Task, placement: Placement, gpus: Sequence[Device], kv_cache_type: KvType
) -> tuple[tuple[float, ...], MemoryNeed]:
    """Layers by budget, then one at a time from the fullest device to the emptiest until all fit or none is left."""
    n_layers = task.shape.n_layer + 1
    if placement.n_gpu_layers is not None:
        n_layers = min(placement.n_gpu_layers, n_layers)
    counts = _shared_out(n_layers, [gpu.budget_bytes for gpu in gpus])
    for _ in range(n_layers):
        split = _proportions(counts)
        need = _need(task, replace(placement, tensor_split=split), gpus, kv_cache_type)
        slack = [(device.budget_bytes or 0) - device.total_bytes for device in need.devices]
        fullest, emptiest = slack.index(min(slack)), slack.index(max(slack))
        if min(slack) >= 0 or max(slack) <= 0 or not counts[fullest]:
            break
        counts[fullest] -= 1
        counts[emptiest] += 1
    return split, need


def _shared_out(n_layers: int, budgets: Sequence[int]) -> list[int]:
    """`n_layers` in whole numbers, in proportion to the budgets."""
    total = sum(budgets) or 1
    ends = [round(n_layers * sum(budgets[: index + 1]) / total) for index in range(len(budgets))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _proportions(counts: Sequence[int]) -> tuple[float, ...]:
    """Proportions by which llama.cpp deals out just these counts.

    It gives layer i to the first device whose cumulated share is above i / n (llama-model.cpp, load_tensors), so each
    border stands half a layer before the next one's place, where rounding cannot move a layer.
    """
    total = sum(counts)
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    borders = [1.0 if end == total else max(0.0, (end - 0.5) / total) for end in ends]
    return tuple(end - start for start, end in zip([0.0, *borders], borders, strict=False))


def _need(task: Task, placement: Placement, gpus: Sequence[Device], kv_cache_type: KvType) -> MemoryNeed:
    return memory_need(
        task.shape,
        task.weights,
        placement,
        n_ctx=task.n_ctx,
        n_parallel=task.n_parallel,
        kv_cache_type=kv_cache_type,
        gpus=gpus,
        ram_budget_bytes=task.hardware.ram_budget_bytes,
        source="formula" if task.weights.estimated else "header",
        engine=task.engine,
    )


def _again(task: Task, fit: Fit) -> Fit:
    """The same placement at the task's context and slots."""
    gpus = tuple(task.hardware.gpus[index] for index in fit.used)
    inner = fit.placement
    if inner.tensor_split is not None:
        shares = tuple(inner.tensor_split[index] for index in fit.used)
        inner = replace(inner, tensor_split=shares if len(shares) > 1 else None)
    need = _need(task, inner, gpus, fit.kv_cache_type)
    return replace(fit, n_ctx=task.n_ctx, n_parallel=task.n_parallel, memory=need)


def _on_devices(fit: Fit) -> bool:
    return all(one.budget_bytes is None or one.total_bytes <= one.budget_bytes for one in fit.memory.devices)


def _fits(fit: Fit, hardware: Hardware) -> bool:
    """Each device within its budget, and host RAM within its own. On unified memory both draw on the same bytes."""
    host_bytes = fit.memory.host_bytes
    if fit.placement.mode in ("cpu", "unified"):
        host_bytes += fit.memory.total_bytes
    return _on_devices(fit) and host_bytes <= hardware.ram_budget_bytes
