"""Every candidate placed in memory: the options that the choice is made among, and what does not fit.

Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from qrun.fit import Task, fit_in_mode, kv_types_for
from qrun.goal import FASTER_PLACEMENT_KLD, Option
from qrun.hardware import Hardware
from qrun.learned import NOTHING_LEARNED, Learned
from qrun.model import Candidate
from qrun.placement import Mode
from qrun.quality import KV_TYPE_KLD, Quality, expected_quality
from qrun.request import KvType, Request
from qrun.resolution import Reason, Rejection
from qrun.shortage import speed_if_whole, too_large
from qrun.sift import Able
from qrun.speed import expected_speed

__all__ = ["Placed", "below_floors", "passes", "place_all", "quality_with_kv", "what_is_too_large"]

_MODES: tuple[Mode, ...] = ("gpu", "unified", "experts-on-cpu", "split", "cpu")  # the fastest first


class Placed(NamedTuple):
    """What placing gave: the options that fit, and every task, whether it fits or not."""

    options: list[Option]
    tasks: list[tuple[Able, Task]]


def place_all(
    request: Request, able: Sequence[Able], hardware: Hardware, n_ctx: int, learned: Learned = NOTHING_LEARNED
) -> Placed:
    """Place every candidate, the fastest memory first, at speeds as `learned` corrects them.

    With `--placement auto` a slower one is tried only where nothing of acceptable quality fits the faster ones, and
    only for what fits none of them; with `any` all placements become options.
    """
    tasks = [(one, _task(request, one, hardware, n_ctx)) for one in able]
    options: list[Option] = []
    for mode in _MODES:
        settled = {id(option.task) for option in options} if request.placement != "any" else set()
        pending = [(one, task) for one, task in tasks if id(task) not in settled]
        options += [option for one, task in pending if (option := _option(request, one, task, mode, learned))]
        if request.placement == "auto" and any(_suffices(request, one) for one in options):
            break
    return Placed(options, tasks)


def quality_with_kv(candidate: Candidate, kv_cache_type: KvType) -> Quality:
    """The candidate's loss with the KV cache's own counted in."""
    quality = expected_quality(candidate)
    if kv_cache_type == "f16":
        return quality
    return Quality(quality.kld + KV_TYPE_KLD[kv_cache_type], f"{quality.source}; KV cache {kv_cache_type}")


def what_is_too_large(request: Request, placed: Placed) -> list[Rejection]:
    """One rejection for each candidate that is no option."""
    fitting = {id(option.candidate) for option in placed.options}
    rejected: dict[int, Rejection] = {}
    for able, task in placed.tasks:
        if id(able.candidate) not in fitting and id(able.candidate) not in rejected:
            slower = bool(placed.options) and request.placement == "auto" and bool(able.gpus)
            rejection = too_large(request, able.candidate, task, able.engine.runner, fits_slower=slower)
            speed = speed_if_whole(request, able.candidate, task, able.engine.runner)
            quality = expected_quality(able.candidate)
            rejected[id(able.candidate)] = replace(rejection, quality=quality, speed=speed)
    return list(rejected.values())


def passes(request: Request, option: Option) -> bool:
    """Whether the option is above the floors that the request sets."""
    fast = request.min_tps is None or option.speed.decode_tps >= request.min_tps
    return fast and (request.max_kld is None or option.quality.kld <= request.max_kld)


def below_floors(request: Request, options: Sequence[Option], passing: Sequence[Option]) -> list[Rejection]:
    """One rejection for each candidate of which no option passes the floors."""
    passed = {id(option.candidate) for option in passing}
    rejected: dict[int, Rejection] = {}
    for option in options:
        if id(option.candidate) in passed:
            continue
        candidate = option.candidate
        if request.max_kld is not None and option.quality.kld > request.max_kld:
            detail = f"KLD {option.quality.kld:.4f} is above --max-kld {request.max_kld:g}"
            would = f"--max-kld {math.ceil(option.quality.kld * 1e4) / 1e4:g}"
            rejected[id(candidate)] = _below(option, "worse_quality", detail, would)
        else:
            detail = f"about {option.speed.decode_tps:.1f} tokens/s, --min-tps is {request.min_tps:g}"
            would = f"--min-tps {math.floor(option.speed.decode_tps * 10) / 10:g}"
            rejected[id(candidate)] = _below(option, "slower", detail, would)
    return list(rejected.values())


def _below(option: Option, reason: Reason, detail: str, would: str) -> Rejection:
    needed = option.fit.memory.total_bytes
    runner = option.engine.runner
    return Rejection(option.candidate, runner, reason, detail, would, needed, option.quality, option.speed)


def _suffices(request: Request, option: Option) -> bool:
    """Whether, with this in fast memory, nothing slower is looked at."""
    return option.quality.kld <= FASTER_PLACEMENT_KLD and passes(request, option)


def _task(request: Request, able: Able, hardware: Hardware, n_ctx: int) -> Task:
    n_parallel = request.n_parallel or 1
    engine = able.engine
    return Task(able.shape, able.weights, hardware, able.gpus, n_ctx, n_parallel, engine.modes, engine.runner)


def _option(request: Request, able: Able, task: Task, mode: Mode, learned: Learned) -> Option | None:
    if mode not in task.open_modes(request.placement):
        return None
    fit = fit_in_mode(task, mode, kv_types_for(task.shape, request.kv_type))
    if fit is None:
        return None
    runner, format_ = able.engine.runner, able.candidate.format
    speed = expected_speed(task.shape, task.weights, fit.placement, task.hardware, engine=runner, format=format_)
    speed = learned.speed(speed, able.candidate, runner, fit.placement)
    return Option(able.candidate, able.engine, task, fit, quality_with_kv(able.candidate, fit.kv_cache_type), speed)
