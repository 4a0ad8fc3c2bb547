"""The decision: which file of a model runs on which engine, where, and with how much context.

Pure: candidates, machine, engines and request are arguments, and the answer names every loser with one reason. The
order: sift what can be taken at all, place it in memory, choose by the goal, then spend what is left on slots or
context, which changes nothing of the choice (DESIGN sections 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from qrun.errors import (
    ContextTooLong,
    EngineMissing,
    Failure,
    FileDamaged,
    FormatNotFound,
    NotAModel,
    QrunError,
    QuantNotFound,
    UnsafeFile,
    UsageError,
)
from qrun.finetune import finetune_resolution
from qrun.fit import Fit, Task, fit_in_mode, kv_types_for, lengthened, modes_for, spare_ram_bytes, with_more_slots
from qrun.goal import FASTER_PLACEMENT_KLD, Option, best_option, candidate_key, ranked
from qrun.hardware import Hardware
from qrun.model import Candidate
from qrun.placement import Mode
from qrun.quality import KV_TYPE_KLD, Quality, expected_quality
from qrun.quant import same_quant
from qrun.reasons import losers, why_chosen, worth_a_warning
from qrun.request import DEFAULT_N_CTX, KvType, Request
from qrun.resolution import Choice, EngineState, Rejection, Resolution
from qrun.shortage import floor_missed, nothing_fits, too_large
from qrun.sift import Able, sift
from qrun.source import FoundModel
from qrun.speed import expected_speed

__all__ = ["resolve"]

_MODES: tuple[Mode, ...] = ("gpu", "unified", "experts-on-cpu", "split", "cpu")  # the fastest first
_MOST_ALTERNATIVES = 5


def resolve(request: Request, found: FoundModel, hardware: Hardware, engines: Sequence[EngineState]) -> Resolution:
    """Choose among `found.candidates`. Raises nothing: a refusal is the resolution's `error`."""
    candidates = sorted(found.candidates, key=candidate_key)
    blank = Resolution(request, None, found.base_model, hardware, None, warnings=found.warnings)
    if error := _cannot_mean(request, candidates, engines):
        return replace(blank, error=error)
    n_ctx, error = _context(request, candidates)
    blank = replace(blank, n_ctx=n_ctx)
    if error:
        return replace(blank, error=error)
    if request.goal == "finetune":
        return finetune_resolution(blank, candidates)
    able, rejected = sift(request, candidates, hardware, engines, n_ctx=n_ctx)
    if not able:
        return replace(blank, rejected=_ordered(rejected), error=_none_able(request, rejected, engines))
    return _among(blank, _placed_all(request, able, hardware, n_ctx), rejected)


class _Placed(NamedTuple):
    """What placing gave: the options that fit, and every task, whether it fits or not."""

    options: list[Option]
    tasks: list[tuple[Able, Task]]


def _among(blank: Resolution, placed: _Placed, rejected: list[Rejection]) -> Resolution:
    """The resolution once it is known what fits."""
    request = blank.request
    rejected = rejected + _too_large(request, placed)
    if not placed.options:
        tasks = [(able.candidate, task) for able, task in placed.tasks]
        return replace(blank, rejected=_ordered(rejected), error=nothing_fits(request, request.model, tasks))
    passing = [option for option in placed.options if _passes(request, option)]
    if not passing:
        error = floor_missed(request, request.model, placed.options)
        return replace(blank, rejected=_ordered(rejected + _below(request, placed.options, passing)), error=error)
    winner = best_option(passing, request.goal)
    others = [option for option in passing if option.candidate is not winner.candidate]
    rejected += _below(request, placed.options, passing) + losers(winner, others, passing, request.goal)
    winner = replace(winner, fit=_grown(request, winner))
    chosen = _choice(winner, why_chosen(winner, passing, request))
    return replace(
        blank,
        n_ctx=chosen.n_ctx,
        chosen=chosen,
        alternatives=_alternatives(request, others),
        rejected=_ordered(rejected),
        warnings=(*blank.warnings, *worth_a_warning(winner)),
    )


def _cannot_mean(request: Request, candidates: Sequence[Candidate], engines: Sequence[EngineState]) -> QrunError | None:
    """What is asked for and is not there: an engine, a quant, a format."""
    runners = sorted(engine.runner for engine in engines)
    asked = {*request.engines, *((request.engine,) if request.engine else ())}
    if unknown := sorted(asked - set(runners)):
        return UsageError(f"there is no engine {unknown[0]!r}. There are: {', '.join(runners)}.")
    if request.format is not None and not any(one.format == request.format for one in candidates):
        return FormatNotFound(request.model, request.format, sorted({one.format for one in candidates}))
    if request.quant is not None and not any(same_quant(request.quant, one.quant) for one in candidates):
        return QuantNotFound(request.model, request.quant, sorted({one.quant for one in candidates}))
    return None


def _context(request: Request, candidates: Sequence[Candidate]) -> tuple[int, ContextTooLong | None]:
    """The context to choose by: what was asked for, else the default or the model's own where that is less."""
    known = [one.shape.n_ctx_train for one in candidates if one.shape and one.shape.n_ctx_train]
    longest = max(known) if known else None
    if request.n_ctx is None or request.n_ctx == "auto":
        return min(DEFAULT_N_CTX, longest or DEFAULT_N_CTX), None
    if longest is not None and request.n_ctx > longest:
        return request.n_ctx, ContextTooLong(model=request.model, n_ctx=request.n_ctx, n_ctx_train=longest)
    return request.n_ctx, None


def _placed_all(request: Request, able: Sequence[Able], hardware: Hardware, n_ctx: int) -> _Placed:
    """Place every candidate, the fastest memory first.

    With `--placement auto` a slower one is tried only where nothing of acceptable quality fits the faster ones, and
    only for what fits none of them; with `any` all placements become options.
    """
    tasks = [(one, Task(one.shape, one.weights, hardware, one.gpus, n_ctx, request.n_parallel or 1)) for one in able]
    options: list[Option] = []
    for mode in _MODES:
        settled = {id(option.task) for option in options} if request.placement != "any" else set()
        pending = [(one, task) for one, task in tasks if id(task) not in settled]
        options += [option for one, task in pending if (option := _option(request, one, task, mode))]
        if request.placement == "auto" and any(one.quality.kld <= FASTER_PLACEMENT_KLD for one in options):
            break
    return _Placed(options, tasks)


def _option(request: Request, able: Able, task: Task, mode: Mode) -> Option | None:
    if mode not in modes_for(task.shape, task.hardware, task.gpus, request.placement):
        return None
    fit = fit_in_mode(task, mode, kv_types_for(task.shape, request.kv_type))
    if fit is None:
        return None
    speed = expected_speed(task.shape, task.weights, fit.placement, task.hardware)
    return Option(able.candidate, able.engine, task, fit, _with_kv(able.candidate, fit.kv_cache_type), speed)


def _with_kv(candidate: Candidate, kv_cache_type: KvType) -> Quality:
    quality = expected_quality(candidate)
    if kv_cache_type == "f16":
        return quality
    return Quality(quality.kld + KV_TYPE_KLD[kv_cache_type], f"{quality.source}; KV cache {kv_cache_type}")


def _too_large(request: Request, placed: _Placed) -> list[Rejection]:
    """One rejection for each candidate that is no option."""
    fitting = {id(option.candidate) for option in placed.options}
    rejected: dict[int, Rejection] = {}
    for able, task in placed.tasks:
        if id(able.candidate) not in fitting and id(able.candidate) not in rejected:
            slower = bool(placed.options) and request.placement == "auto" and bool(able.gpus)
            rejected[id(able.candidate)] = too_large(
                request, able.candidate, task, able.engine.runner, fits_slower=slower
            )
    return list(rejected.values())


def _passes(request: Request, option: Option) -> bool:
    fast = request.min_tps is None or option.speed.decode_tps >= request.min_tps
    return fast and (request.max_kld is None or option.quality.kld <= request.max_kld)


def _below(request: Request, options: Sequence[Option], passing: Sequence[Option]) -> list[Rejection]:
    """One rejection for each candidate of which no option passes the floors."""
    passed = {id(option.candidate) for option in passing}
    rejected: dict[int, Rejection] = {}
    for option in options:
        if id(option.candidate) in passed:
            continue
        candidate, runner = option.candidate, option.engine.runner
        if request.max_kld is not None and option.quality.kld > request.max_kld:
            detail = f"KLD {option.quality.kld:.4f} is above --max-kld {request.max_kld:g}"
            rejected[id(candidate)] = Rejection(candidate, runner, "worse_quality", detail)
        else:
            detail = f"about {option.speed.decode_tps:.1f} tokens/s, --min-tps is {request.min_tps:g}"
            rejected[id(candidate)] = Rejection(candidate, runner, "slower", detail)
    return list(rejected.values())


def _alternatives(request: Request, others: Sequence[Option]) -> tuple[Choice, ...]:
    best = ranked(others, request.goal, most=_MOST_ALTERNATIVES)
    return tuple(_choice(replace(option, fit=_grown(request, option))) for option in best)


def _choice(option: Option, why: tuple[str, ...] = ()) -> Choice:
    """The option as it would be run, with what is left of RAM for the prompt cache."""
    fit = option.fit
    cache_ram_bytes = spare_ram_bytes(fit, option.task.hardware)
    return Choice(
        candidate=option.candidate,
        engine=option.engine.runner,
        engine_installed=option.engine.installed,
        n_ctx=fit.n_ctx,
        n_parallel=fit.n_parallel,
        kv_cache_type=fit.kv_cache_type,
        placement=fit.placement,
        memory=replace(fit.memory, host_bytes=fit.memory.host_bytes + cache_ram_bytes),
        speed=option.speed,
        quality=option.quality,
        cache_ram_bytes=cache_ram_bytes,
        why=why,
    )


def _grown(request: Request, option: Option) -> Fit:
    """The option's fit with what is left of memory spent: on context where `--ctx auto` asks, else on slots."""
    if request.n_ctx == "auto":
        return lengthened(option.task, option.fit)
    if request.n_parallel is None:
        return with_more_slots(option.task, option.fit)
    return option.fit


def _none_able(request: Request, rejected: Sequence[Rejection], engines: Sequence[EngineState]) -> QrunError:
    """The error where nothing can be taken: what most nearly could be decides which."""
    first = {one.reason: one for one in reversed(rejected)}
    for reason in ("engine_unavailable", "hardware_unsupported", "architecture_unsupported"):
        if reason in first:
            return _engine_missing(first[reason], engines)
    for reason in ("unsafe", "mislabelled", "incomplete", "access_denied"):
        if reason in first:
            return _defect_error(first[reason])
    if "filtered" in first:
        return UsageError(f"the options leave no file of {request.model}: {first['filtered'].detail}.")
    return NotAModel(request.model, "it holds no weights.")


def _defect_error(rejection: Rejection) -> QrunError:
    path, why = rejection.candidate.files[0].path, rejection.detail.removesuffix(".")
    if rejection.reason == "unsafe":
        return UnsafeFile(path, why)
    if rejection.reason == "access_denied":
        return Failure(f"{path} may not be read: {why}.")
    return FileDamaged(path, why)


def _engine_missing(rejection: Rejection, engines: Sequence[EngineState]) -> EngineMissing:
    runner = rejection.engine or f"format {rejection.candidate.format}"
    state = next((engine for engine in engines if engine.runner == rejection.engine), None)
    why = rejection.detail.removeprefix(f"{runner}: ").removesuffix(".")
    if rejection.reason == "architecture_unsupported":
        return EngineMissing(runner, why, "Choose another model.")
    if state is None:
        return EngineMissing(runner, why, "Choose another format with --format.")
    if state.installed:
        remedy = f"Install a build for this GPU (qrun engines install {runner} --build), or give --allow-cpu-engine."
        return EngineMissing(runner, why, remedy)
    return EngineMissing(runner, why, state.remedy or f"Run: qrun engines install {runner}")


def _ordered(rejected: Sequence[Rejection]) -> tuple[Rejection, ...]:
    return tuple(sorted(rejected, key=lambda one: candidate_key(one.candidate)))
