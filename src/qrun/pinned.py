"""The choice of an earlier day, held against the memory that is free today (DESIGN 3.10).

Pure. It is kept as it was where it fits; else with fewer slots; else another candidate that is stored takes its place;
else nothing is run. A new download is never chosen here: only the user asks for one.
"""

from collections.abc import Sequence
from dataclasses import replace

from qrun.errors import PinnedTooLarge
from qrun.fit import Task, fit_in_mode
from qrun.goal import Option, best_option
from qrun.learned import NOTHING_LEARNED, Learned
from qrun.outcome import grown, none_able, ordered, won
from qrun.pin import Pin
from qrun.placing import Placed, below_floors, passes, quality_with_kv
from qrun.request import Request
from qrun.resolution import EngineState, Rejection, Resolution
from qrun.shortage import whole_need
from qrun.sift import Able
from qrun.speed import expected_speed

__all__ = ["keep"]

_NOT_STORED = "it is not stored, and nothing is fetched unasked"


def keep(
    blank: Resolution,
    placed: Placed,
    rejected: Sequence[Rejection],
    engines: Sequence[EngineState],
    pin: Pin,
    *,
    learned: Learned = NOTHING_LEARNED,
) -> Resolution:
    """The resolution that keeps to `pin`, or to what is stored. `rejected` has every candidate that does not fit."""
    request = blank.request
    passing = [option for option in placed.options if passes(request, option)]
    rejected = [*rejected, *below_floors(request, placed.options, passing)]
    for able, task in placed.tasks:
        if pin.names(able.candidate) and (kept := _as_before(request, able, task, pin, learned)):
            return _kept(blank, kept, passing, rejected, pin)
    stored = [option for option in passing if option.candidate.stored]
    if not stored:
        error = _too_large_now(request, placed, pin) or none_able(request, _of_pin(rejected, pin), engines)
        return replace(blank, rejected=ordered([*rejected, *_unasked(passing)]), error=error)
    return _instead(blank, stored, passing, rejected, pin)


def _as_before(request: Request, able: Able, task: Task, pin: Pin, learned: Learned) -> Option | None:
    """The choice on today's free memory, with as many of its slots as fit; None where not one does."""
    if able.engine.runner != pin.engine:
        return None
    fewest = request.n_parallel or 1
    at = task if request.n_ctx == "auto" else replace(task, n_ctx=pin.n_ctx)
    for n_parallel in range(max(pin.n_parallel, fewest), fewest - 1, -1):
        at = replace(at, n_parallel=n_parallel)
        if fit := fit_in_mode(at, pin.mode, (pin.kv_cache_type,)):
            runner, format_ = able.engine.runner, able.candidate.format
            speed = expected_speed(at.shape, at.weights, fit.placement, at.hardware, engine=runner, format=format_)
            speed = learned.speed(speed, able.candidate, runner, fit.placement)
            quality = quality_with_kv(able.candidate, pin.kv_cache_type)
            return Option(able.candidate, able.engine, at, fit, quality, speed)
    return None


def _kept(
    blank: Resolution, kept: Option, passing: Sequence[Option], rejected: Sequence[Rejection], pin: Pin
) -> Resolution:
    others = [option for option in passing if option.candidate is not kept.candidate]
    rejected = [one for one in rejected if one.candidate is not kept.candidate]  # too large for its slots of today
    if kept.fit.n_parallel < pin.n_parallel:
        short = f"Memory is short today: {kept.fit.n_parallel} of the {pin.n_parallel} slots that were decided on."
        blank = replace(blank, warnings=(*blank.warnings, short))
    fit = grown(blank.request, kept) if blank.request.n_ctx == "auto" else kept.fit
    why = (f"decided on {pin.decided_at[:10]} and kept: --refresh decides anew",)
    return won(blank, kept, [kept, *others], rejected, fit=fit, why=why)


def _instead(
    blank: Resolution, stored: Sequence[Option], passing: Sequence[Option], rejected: Sequence[Rejection], pin: Pin
) -> Resolution:
    """The best of what is stored in place of the pinned choice."""
    winner = best_option(stored, blank.request.goal)
    swapped = (
        f"{pin.path} of {pin.repo_id}, decided on {pin.decided_at[:10]}, cannot be run today; "
        f"{winner.candidate.quant} of {winner.candidate.repo_id}, which is stored too, takes its place."
    )
    blank = replace(blank, warnings=(*blank.warnings, swapped))
    return won(blank, winner, stored, [*rejected, *_unasked(passing)], fit=grown(blank.request, winner))


def _unasked(passing: Sequence[Option]) -> list[Rejection]:
    """One rejection for each candidate that fits and is not stored."""
    absent = {id(one.candidate): one for one in passing if not one.candidate.stored}.values()
    return [
        Rejection(
            one.candidate,
            one.engine.runner,
            "filtered",
            _NOT_STORED,
            "--refresh",
            one.fit.memory.total_bytes,
            one.quality,
            one.speed,
        )
        for one in absent
    ]


def _too_large_now(request: Request, placed: Placed, pin: Pin) -> PinnedTooLarge | None:
    """The error where the choice could be taken and does not fit."""
    for able, task in placed.tasks:
        if pin.names(able.candidate) and able.engine.runner == pin.engine:
            _, need, budget_bytes = whole_need(request, task)
            return PinnedTooLarge(request.model, need.total_bytes, budget_bytes, quant=able.candidate.quant)
    return None


def _of_pin(rejected: Sequence[Rejection], pin: Pin) -> list[Rejection]:
    return [one for one in rejected if pin.names(one.candidate)]
