"""What becomes of the options: the winner as it will be run, and a reason for each that lost.

Pure.
"""

from collections.abc import Sequence
from dataclasses import replace

from qrun.errors import EngineMissing, Failure, FileDamaged, NotAModel, QrunError, UnsafeFile, UsageError
from qrun.fit import Fit, lengthened, spare_ram_bytes, with_more_slots
from qrun.goal import Option, candidate_key, ranked
from qrun.reasons import losers, why_chosen, worth_a_warning
from qrun.request import Request
from qrun.resolution import Choice, EngineState, Reason, Rejection, Resolution

__all__ = ["grown", "none_able", "ordered", "won"]

_MOST_ALTERNATIVES = 5
_OF_ENGINES: tuple[Reason, ...] = ("engine_unavailable", "architecture_unsupported", "hardware_unsupported")


def won(
    blank: Resolution,
    winner: Option,
    options: Sequence[Option],
    rejected: Sequence[Rejection],
    *,
    fit: Fit,
    why: tuple[str, ...] = (),
) -> Resolution:
    """The resolution in which `winner` is chosen, to run as `fit` says; the others of `options` are told why not."""
    request = blank.request
    others = [option for option in options if option.candidate is not winner.candidate]
    lost = losers(winner, others, options, request.goal)
    winner = replace(winner, fit=fit)
    chosen = _choice(winner, (*why_chosen(winner, options, rejected, request), *why))
    return replace(
        blank,
        n_ctx=chosen.n_ctx,
        chosen=chosen,
        alternatives=_alternatives(request, others),
        rejected=ordered([*rejected, *lost]),
        warnings=(*blank.warnings, *worth_a_warning(winner)),
    )


def grown(request: Request, option: Option) -> Fit:
    """The option's fit with what is left of memory spent: on context where `--ctx auto` asks, else on slots."""
    if request.n_ctx == "auto":
        return lengthened(option.task, option.fit)
    if request.n_parallel is None:
        return with_more_slots(option.task, option.fit)
    return option.fit


def none_able(request: Request, rejected: Sequence[Rejection], engines: Sequence[EngineState]) -> QrunError:
    """The error where nothing can be taken: what most nearly could be decides which."""
    if lacking := [one for one in rejected if one.reason in _OF_ENGINES]:
        return _engine_missing(min(lacking, key=_farness), engines)
    first = {one.reason: one for one in reversed(rejected)}
    for reason in ("unsafe", "mislabelled", "incomplete", "access_denied"):
        if reason in first:
            return _defect_error(first[reason])
    if "filtered" in first:
        return UsageError(f"the options leave no file of {request.model}: {first['filtered'].detail}.")
    return NotAModel(request.model, "it holds no weights.")


def _farness(rejection: Rejection) -> int:
    """How far a candidate is from being taken: an engine to install, a model to know, hardware, a runner to write."""
    if rejection.reason == "engine_unavailable":
        return 0 if rejection.engine else len(_OF_ENGINES)
    return _OF_ENGINES.index(rejection.reason)


def ordered(rejected: Sequence[Rejection]) -> tuple[Rejection, ...]:
    """The rejections in an order that hangs on nothing but themselves."""
    return tuple(sorted(rejected, key=lambda one: candidate_key(one.candidate)))


def _alternatives(request: Request, others: Sequence[Option]) -> tuple[Choice, ...]:
    best = ranked(others, request.goal, most=_MOST_ALTERNATIVES)
    return tuple(_choice(replace(option, fit=grown(request, option))) for option in best)


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
        known = rejection.candidate.shape is not None and rejection.candidate.weights is not None
        return EngineMissing(runner, why, "Choose another model." if known else "Name another quant repo of the model.")
    if state is None:
        return EngineMissing(runner, why, "Name another format with --format, or a GGUF repo of the model.")
    if rejection.reason == "hardware_unsupported":
        return EngineMissing(runner, why, f"It takes {rejection.would_fit}: name another format with --format.")
    if state.installed:
        remedy = f"Install a build for this GPU (qrun engines install {runner} --build), or give --allow-cpu-engine."
        return EngineMissing(runner, why, remedy)
    return EngineMissing(runner, why, state.remedy or f"Run: qrun engines install {runner}")
