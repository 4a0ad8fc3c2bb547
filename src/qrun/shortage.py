"""Words and figures for what does not fit: the need, the budget, and what would let it in.

Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from qrun.errors import FloorMissed, NothingFits
from qrun.families import Member, smaller_of_family
from qrun.fit import Task, fit_in_mode, kv_types_for, smallest_need
from qrun.goal import Option
from qrun.hardware import Device, Hardware
from qrun.memory import MemoryNeed
from qrun.model import Candidate
from qrun.placement import Mode, Placement
from qrun.request import KV_TYPES, KvType, Request
from qrun.resolution import Rejection
from qrun.speed import Speed, expected_speed
from qrun.units import GIB, gib, size

__all__ = ["floor_missed", "nothing_fits", "speed_if_whole", "too_large", "whole_need"]

_WEIGHTS_PART = 0.85  # of the memory for a smaller model's weights: the rest is for KV cache and compute
_CTX_STEP = 256
_SHORTEST_CTX = 512  # a shorter context is no help to anybody


def too_large(request: Request, candidate: Candidate, task: Task, runner: str, *, fits_slower: bool) -> Rejection:
    """Why a candidate does not fit, or fits only where it would be slow while another fits the faster memory."""
    mode, need, budget = whole_need(request, task)
    if need.total_bytes > budget:
        where = " whole on the GPU" if fits_slower else ""
        detail = f"needs {size(need.total_bytes)} of {size(budget)}{where}"
    elif mode == "gpu" and len(task.gpus) > 1:
        detail = f"its layers do not divide over the GPUs' {gib(budget)}"
    else:
        detail = f"leaves {size(need.host_bytes)} in host RAM, of {gib(task.hardware.ram_budget_bytes)}"
    would = _would_hold(task.hardware, task.gpus, mode, need)
    return Rejection(candidate, runner, "too_large", detail, would, need.total_bytes)


def nothing_fits(request: Request, model: str, tasks: Sequence[tuple[Candidate, Task]]) -> NothingFits:
    """The error for a model of which nothing fits: the least need, and each single change that would help."""
    candidate, task = min(tasks, key=lambda pair: whole_need(request, pair[1])[1].total_bytes)
    mode, need, budget = whole_need(request, task)
    ways = [*_ways_out(request, candidate, task), f"on {_would_hold(task.hardware, task.gpus, mode, need)}"]
    fitting = f"It would fit {', or '.join(ways)}."
    smaller = smaller_of_family(candidate.base_model, int(_WEIGHTS_PART * budget))
    if smaller is not None:
        fitting += f" The next smaller model of the family whose weights would fit is {_described(smaller)}."
    nearest = (smaller.repo_id,) if smaller else ()
    if need.total_bytes <= budget:
        return NothingFits(model, None, None, fitting, nearest)
    return NothingFits(model, need.total_bytes, budget, fitting, nearest)


def _described(member: Member) -> str:
    return f"{member.repo_id}, in Q4_K_M about {gib(member.q4_k_m_bytes)} of weights"


def floor_missed(request: Request, model: str, options: Sequence[Option]) -> FloorMissed:
    """The error for floors that nothing passes, with the candidate that comes nearest to all of them."""

    def missed_by(option: Option) -> float:
        slow = request.min_tps / option.speed.decode_tps if request.min_tps else 1.0
        worse = option.quality.kld / request.max_kld if request.max_kld else 1.0
        return max(slow, worse)

    near = min(options, key=missed_by)
    floors = [f"--min-tps {request.min_tps:g}"] if request.min_tps is not None else []
    floors += [f"--max-kld {request.max_kld:g}"] if request.max_kld is not None else []
    figures = f"about {near.speed.decode_tps:.1f} tokens/s and KLD {near.quality.kld:.4f}"
    would = f"Nearest is {near.candidate.quant} with {figures}."
    return FloorMissed(model, would=would, floor=" and ".join(floors))


def whole_need(request: Request, task: Task) -> tuple[Mode, MemoryNeed, int]:
    """The least need of the whole model in the fastest memory there is, with that memory's budget."""
    modes = task.open_modes(request.placement)
    mode: Mode = modes[0] if modes else "gpu"
    need = smallest_need(task, mode, kv_types_for(task.shape, request.kv_type))
    if mode == "cpu":
        return mode, need, task.hardware.ram_budget_bytes
    return mode, need, sum(task.hardware.gpus[index].budget_bytes for index in task.gpus)


def speed_if_whole(request: Request, candidate: Candidate, task: Task, runner: str) -> Speed | None:
    """The rate in the fastest memory there is, if that held the whole model; None where there is no such memory."""
    modes = task.open_modes(request.placement)
    if not modes:
        return None
    whole = Placement(modes[0])
    return expected_speed(task.shape, task.weights, whole, task.hardware, engine=runner, format=candidate.format)


def _ways_out(request: Request, candidate: Candidate, task: Task) -> Iterator[str]:
    """Changes of the request that would do, each by itself."""

    def fits(changed: Request, at: Task) -> bool:
        kv_types = kv_types_for(at.shape, changed.kv_type)
        return any(fit_in_mode(at, mode, kv_types) for mode in at.open_modes(changed.placement))

    if n_ctx := _longest_context(task, lambda at: fits(request, at)):
        yield f"with --ctx {n_ctx} ({candidate.quant})"
    if task.n_parallel > 1 and fits(request, replace(task, n_parallel=1)):
        yield f"with --parallel 1 ({candidate.quant})"
    if kv_type := _narrower_kv(request, task, fits):
        yield f"with --kv-type {kv_type} ({candidate.quant})"
    if request.placement == "gpu" and fits(replace(request, placement="auto"), task):
        yield f"with --placement auto ({candidate.quant}, {_where_else(task)})"


def _narrower_kv(request: Request, task: Task, fits: Callable[[Request, Task], bool]) -> KvType | None:
    """The widest type of KV cache below those that were tried with which it fits, where the heads allow one."""
    tried: tuple[KvType, ...] = kv_types_for(task.shape, request.kv_type)
    if "q8_0" not in kv_types_for(task.shape, "auto"):
        return None
    narrower = KV_TYPES[KV_TYPES.index(tried[-1]) + 1 :]
    return next((one for one in narrower if fits(replace(request, kv_type=one), task)), None)


def _where_else(task: Task) -> str:
    """Where a part of the model would go that is not whole on the GPU."""
    return "parts of it on the CPU" if "split" in task.open_modes("auto") else "on the CPU"


def _longest_context(task: Task, fits: Callable[[Task], bool]) -> int | None:
    """The longest shorter context that fits, in steps of 256; None where not even 512 tokens do."""
    low, high = _SHORTEST_CTX // _CTX_STEP, (task.n_ctx - 1) // _CTX_STEP
    if high < low or not fits(replace(task, n_ctx=low * _CTX_STEP)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(replace(task, n_ctx=middle * _CTX_STEP)) else (low, middle - 1)
    return low * _CTX_STEP


def _would_hold(hardware: Hardware, gpus: Sequence[int], mode: Mode, need: MemoryNeed) -> str:
    """A machine in words on which the need would be met, the reserve of its kind included."""
    if mode == "cpu":
        reserve = _ram_free(hardware) - hardware.ram_budget_bytes
        return f"a machine with {_at_least(need.total_bytes + max(0, reserve))} of RAM free"
    if not gpus:
        return f"a GPU that holds {_at_least(need.total_bytes)}"
    reserve = max(_free(hardware.gpus[index]) - hardware.gpus[index].budget_bytes for index in gpus)
    if mode == "unified":
        return f"a machine whose GPU may use {_at_least(need.total_bytes + reserve)} of its memory"
    return f"a card with {_at_least(need.total_bytes + reserve)} free"


def _at_least(size_bytes: int) -> str:
    """The size rounded up: what is named here must do."""
    return gib(-(-size_bytes * 10 // GIB) * GIB // 10)


def _ram_free(hardware: Hardware) -> int:
    free = hardware.ram_bytes if hardware.ram_free_bytes is None else hardware.ram_free_bytes
    return free if hardware.ram_limit_bytes is None else min(free, hardware.ram_limit_bytes)


def _free(gpu: Device) -> int:
    if gpu.kind == "metal":
        return gpu.budget_bytes + GIB  # the working set, which the budget keeps a GiB below (DESIGN 3.4)
    return gpu.memory_bytes if gpu.free_bytes is None else gpu.free_bytes
