"""What to try when a model does not load for lack of memory: ever less of it, and never another model (DESIGN 3.9).

Pure. The order: what was only grown into spare memory (slots, context), the projector's place, the batch, the KV cache,
parts on the CPU, then the next smaller quant, of the same format first. What the user asked for by name stays. Each
step keeps what those before it gave up; another quant keeps it too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qrun.fit import kv_types_for
from qrun.placement import Placement
from qrun.request import DEFAULT_N_CTX, Request
from qrun.resolution import Choice, Resolution
from qrun.units import size

__all__ = ["Attempt", "Step", "steps_down"]

_SMALL_BATCH = 128  # tokens; llama.cpp's compute buffers are as wide as the batch, 512 unless told otherwise
_LAYER_PARTS = (0.75, 0.5, 0.25, 0.0)  # of the layers that were to lie on the GPU
_EXPERT_PARTS = (0.5, 1.0)  # of the layers whose experts go to the CPU


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to load the model. `n_batch` None: the runner's own."""

    choice: Choice
    n_batch: int | None = None
    mmproj_on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The next attempt, and what it changes, in words for after `trying again with`."""

    attempt: Attempt
    words: str
    other_files: bool = False  # another quant than the one before


def steps_down(resolution: Resolution, *, has_projector: bool = False) -> Iterator[Step]:
    """Every attempt after the first, in order. Raises the resolution's error where nothing was chosen."""
    request, at = resolution.request, Attempt(resolution.require())
    for step in _on_the_same_files(request, at, has_projector=has_projector):
        at = step.attempt
        yield step
    for smaller in _smaller(resolution):
        at = replace(at, choice=_as_modest(smaller, at.choice))
        yield Step(at, _named(smaller), other_files=True)
        for step in _moved(request, at):
            at = step.attempt
            yield step


def _on_the_same_files(request: Request, at: Attempt, *, has_projector: bool) -> Iterator[Step]:
    for step in _ungrown(request, at):
        at = step.attempt
        yield step
    if has_projector and at.choice.placement.on_gpu:
        at = replace(at, mmproj_on_cpu=True)
        yield Step(at, "the projector on the CPU")
    at = replace(at, n_batch=_SMALL_BATCH)
    yield Step(at, f"a batch of {_SMALL_BATCH} tokens")
    shape = at.choice.candidate.shape
    in_f16 = at.choice.kv_cache_type == "f16" and request.kv_type == "auto"
    if in_f16 and shape is not None and "q8_0" in kv_types_for(shape, "auto"):
        at = replace(at, choice=replace(at.choice, kv_cache_type="q8_0"))
        yield Step(at, "the KV cache in q8_0")
    yield from _moved(request, at)


def _ungrown(request: Request, at: Attempt) -> Iterator[Step]:
    """Back to what was asked for: one slot, and of `--ctx auto` half as much until the default is reached."""
    if request.n_parallel is None and at.choice.n_parallel > 1:
        at = replace(at, choice=replace(at.choice, n_parallel=1))
        yield Step(at, "one request at a time")
    while request.n_ctx == "auto" and at.choice.n_ctx > DEFAULT_N_CTX:
        at = replace(at, choice=replace(at.choice, n_ctx=max(DEFAULT_N_CTX, at.choice.n_ctx // 2)))
        yield Step(at, f"{at.choice.n_ctx} tokens of context")


def _moved(request: Request, at: Attempt) -> Iterator[Step]:
    """Experts, or layers, on the CPU. Nothing where all lies there, where memory is shared, or where the GPU was asked
    for.
    """
    placement, shape = at.choice.placement, at.choice.candidate.shape
    if shape is None or request.placement == "gpu" or placement.n_gpu_layers is None:
        return
    if placement.mode == "gpu" and shape.n_expert:
        for part in _EXPERT_PARTS:
            count = round(part * shape.n_layer)
            moved = replace(placement, mode="experts-on-cpu", n_cpu_moe=count)
            yield _placed(at, moved, f"the experts of {count} of {shape.n_layer} layers on the CPU")
    elif placement.mode in ("gpu", "split"):
        for part in _LAYER_PARTS:
            count = int(part * placement.n_gpu_layers)
            moved = replace(placement, mode="split", n_gpu_layers=count) if count else Placement("cpu", 0, 0)
            yield _placed(at, moved, f"{count} of {shape.n_layer + 1} layers on the GPU")


def _placed(at: Attempt, placement: Placement, words: str) -> Step:
    return Step(replace(at, choice=replace(at.choice, placement=placement)), words)


def _smaller(resolution: Resolution) -> list[Choice]:
    """The alternatives with smaller files than the choice: its own format first, the largest first."""
    chosen = resolution.require().candidate
    less = [one for one in resolution.alternatives if one.candidate.size_bytes < chosen.size_bytes]
    return sorted(less, key=lambda one: (one.candidate.format != chosen.format, -one.candidate.size_bytes))


def _as_modest(smaller: Choice, before: Choice) -> Choice:
    """`smaller` with no more slots, context and precision of the cache than what failed before."""
    kv_cache_type = smaller.kv_cache_type if before.kv_cache_type == "f16" else before.kv_cache_type
    return replace(
        smaller,
        n_ctx=min(smaller.n_ctx, before.n_ctx),
        n_parallel=min(smaller.n_parallel, before.n_parallel),
        kv_cache_type=kv_cache_type,
    )


def _named(choice: Choice) -> str:
    candidate = choice.candidate
    where = f" of {candidate.repo_id}" if candidate.repo_id else ""
    return f"{candidate.quant}{where} ({size(candidate.size_bytes)})"
