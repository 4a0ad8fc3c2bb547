"""Why the chosen was chosen and why each other that fits was not, in words for people.

Pure. The reasons themselves are a closed set (`resolution.Reason`); here stand the figures that decided.
"""

from collections.abc import Iterator, Sequence

from qrun.advice import departures
from qrun.goal import WARN_KLD, Option, best_option, loses_by, time_unit
from qrun.request import Goal, Request
from qrun.resolution import Reason, Rejection
from qrun.units import gib, size

__all__ = ["losers", "why_chosen", "worth_a_warning"]

_REASONS: dict[str, Reason] = {"quality": "worse_quality", "speed": "slower", "tie": "same_as_chosen"}
_LITTLE = 0.015  # of a device's budget
_Q4_K_M_BPW = 4.9  # the usual 4-bit file (quality.toml)


def losers(winner: Option, others: Sequence[Option], options: Sequence[Option], goal: Goal) -> list[Rejection]:
    """One rejection for each candidate of `others`, by its fastest placement."""
    rejected: dict[int, Rejection] = {}
    unit_s = time_unit(options)
    goals = _goals_that_choose(options)
    for option in others:
        if id(option.candidate) in rejected:
            continue
        lost_by = loses_by(option, winner, goal, unit_s=unit_s)
        rejected[id(option.candidate)] = Rejection(
            option.candidate,
            option.engine.runner,
            _REASONS[lost_by],
            _detail(option, winner, lost_by),
            goals.get(id(option.candidate)) or _by_name(option),
            option.fit.memory.total_bytes,
            option.quality,
            option.speed,
        )
    return list(rejected.values())


def _goals_that_choose(options: Sequence[Option]) -> dict[int, str]:
    """Candidates that another goal would choose among the same options, with the option that asks for it."""
    others: tuple[Goal, ...] = ("balanced", "speed", "quality")
    return {id(best_option(options, other).candidate): f"--goal {other}" for other in others}


def _by_name(option: Option) -> str:
    candidate = option.candidate
    return f"{candidate.repo_id}:{candidate.quant} as MODEL" if candidate.repo_id else f"--quant {candidate.quant}"


def why_chosen(
    winner: Option, options: Sequence[Option], rejected: Sequence[Rejection], request: Request
) -> tuple[str, ...]:
    """The lines that explain the choice, the rule first. `rejected`: what is none of `options`."""
    return (*_why(winner, options, request), *departures(winner, options, rejected, request.goal))


def worth_a_warning(winner: Option) -> tuple[str, ...]:
    """What a user should hear of a choice that loses much: the better use of the same memory."""
    if winner.quality.kld <= WARN_KLD:
        return ()
    n_params = winner.task.weights.total_bytes * 8 / _Q4_K_M_BPW
    better = f"{n_params / 1e9:.0f}B" if n_params >= 1e9 else f"{n_params / 1e6:.0f}M"  # noqa: PLR2004  # a billion
    loss = f"{winner.candidate.quant} loses much (KLD {winner.quality.kld:.2f})"
    return (f"{loss}: a model of about {better} parameters at Q4_K_M is the better use of this memory.",)


def _detail(option: Option, winner: Option, lost_by: str) -> str:
    if lost_by == "tie":
        return f"as good and as fast as {winner.candidate.quant} to within .002 KLD and 5 % of time"
    kld = f"KLD {option.quality.kld:.4f} against {winner.quality.kld:.4f}"
    ratio = winner.time_s / option.time_s
    return kld if lost_by == "quality" else f"{kld}, but decodes at {ratio:.2f} of the chosen's rate"


def _why(winner: Option, options: Sequence[Option], request: Request) -> Iterator[str]:
    fitting = len({id(option.candidate) for option in options})
    yield f"{_RULES[request.goal]} ({fitting} candidate{'s' if fitting > 1 else ''} to choose from)"
    yield f"KLD {winner.quality.kld:.4f} ({winner.quality.source})"
    speed = winner.speed
    yield f"about {speed.decode_tps:.0f} tokens/s, {speed.low:.0f} to {speed.high:.0f} ({speed.source})"
    yield _placement_line(winner)
    if spare := _little_to_spare(winner):
        yield spare
    if winner.fit.kv_cache_type == "q8_0" and request.kv_type == "auto":
        yield "KV cache in q8_0, because with f16 it does not fit"
    if not winner.engine.installed:
        yield f"{winner.engine.runner} is not installed yet, and leads the installed engines by more than 15 %"


def _little_to_spare(winner: Option) -> str | None:
    """A line where the choice fits by so little that other programs may take it away meanwhile."""
    held = [one for one in winner.fit.memory.devices if one.budget_bytes]
    tight = [one for one in held if (one.budget_bytes or 0) - one.total_bytes < _LITTLE * (one.budget_bytes or 0)]
    if not tight:
        return None
    spare = min((one.budget_bytes or 0) - one.total_bytes for one in tight)
    return f"only {size(spare)} of that is to spare: a program that takes more meanwhile leaves too little"


_RULES: dict[Goal, str] = {
    "quality": "goal quality: the smallest file within .002 KLD of the best that fits",
    "speed": "goal speed: the fastest with a KLD of at most .09",
    "balanced": "goal balanced: the least sum of KLD/.05 and time relative to the fastest with a KLD of at most .09",
    "finetune": "goal finetune: NF4",
}


def _placement_line(winner: Option) -> str:
    fit = winner.fit
    need = size(fit.memory.total_bytes)
    layers = winner.task.shape.n_layer + 1
    match fit.placement.mode:
        case "cpu":
            return f"on the CPU: needs {need} of {gib(winner.task.hardware.ram_budget_bytes)} RAM"
        case "gpu" | "unified":
            budget = sum(winner.task.hardware.gpus[index].budget_bytes for index in fit.used)
            return f"whole on {'the GPU' if len(fit.used) == 1 else 'the GPUs'}: needs {need} of {gib(budget)}"
        case "split":
            return f"{fit.placement.n_gpu_layers} of {layers} layers on the GPU, the rest on the CPU: needs {need}"
        case "experts-on-cpu":
            experts = size(sum(winner.task.weights.expert_bytes[: fit.placement.n_cpu_moe or 0]))
            return f"all layers on the GPU, {experts} of experts on the CPU: needs {need}"
