"""The decision: which file of a model runs on which engine, where, and with how much context.

Pure: candidates, machine, engines and request are arguments, and the answer names every loser with one reason. The
order: sift what can be taken at all, place it in memory, choose by the goal, then spend what is left on slots or
context, which changes nothing of the choice (DESIGN sections 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import replace

from qrun.errors import ContextTooLong, FormatNotFound, QrunError, QuantNotFound, UsageError
from qrun.finetune import finetune_resolution
from qrun.goal import best_option, candidate_key
from qrun.hardware import Hardware
from qrun.learned import NOTHING_LEARNED, Learned
from qrun.model import Candidate
from qrun.outcome import grown, none_able, ordered, won
from qrun.pin import Pin
from qrun.pinned import keep
from qrun.placing import Placed, below_floors, passes, place_all, what_is_too_large
from qrun.quant import same_quant
from qrun.request import DEFAULT_N_CTX, Request
from qrun.resolution import EngineState, Rejection, Resolution
from qrun.shortage import floor_missed, nothing_fits
from qrun.sift import sift
from qrun.source import FoundModel

__all__ = ["resolve"]


def resolve(
    request: Request,
    found: FoundModel,
    hardware: Hardware,
    engines: Sequence[EngineState],
    *,
    pin: Pin | None = None,
    learned: Learned = NOTHING_LEARNED,
) -> Resolution:
    """Choose among `found.candidates`. Raises nothing: a refusal is the resolution's `error`.

    With `pin` the choice of an earlier day is kept as far as today's memory allows (`pinned`). `learned` corrects what
    is predicted by what was seen on this machine; it says so in the choice's `why`.
    """
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
        return replace(blank, rejected=ordered(rejected), error=none_able(request, rejected, engines))
    placed = place_all(request, able, learned.on(hardware), n_ctx, learned)
    rejected += what_is_too_large(request, placed)
    if pin is not None:
        return _explained(keep(blank, placed, rejected, engines, pin, learned=learned), learned)
    return _explained(_among(blank, placed, rejected), learned)


def _explained(resolution: Resolution, learned: Learned) -> Resolution:
    """`resolution` with the corrections that its choice was made with."""
    chosen = resolution.chosen
    if chosen is None or not (lines := learned.why(chosen)):
        return resolution
    return replace(resolution, chosen=replace(chosen, why=(*chosen.why, *lines)))


def _among(blank: Resolution, placed: Placed, rejected: list[Rejection]) -> Resolution:
    """The resolution once it is known what fits."""
    request = blank.request
    if not placed.options:
        tasks = [(able.candidate, task) for able, task in placed.tasks]
        return replace(blank, rejected=ordered(rejected), error=nothing_fits(request, request.model, tasks))
    passing = [option for option in placed.options if passes(request, option)]
    rejected += below_floors(request, placed.options, passing)
    if not passing:
        error = floor_missed(request, request.model, placed.options)
        return replace(blank, rejected=ordered(rejected), error=error)
    winner = best_option(passing, request.goal)
    return won(blank, winner, passing, rejected, fit=grown(request, winner))


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
