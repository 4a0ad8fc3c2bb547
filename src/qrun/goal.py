"""The choice among options that fit: one rule for each goal (DESIGN 3.8), then trust among near-equals.

Pure. An option is a candidate with its placement, quality and speed. The order of options never matters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from qrun.fit import Fit, Task
from qrun.model import Candidate
from qrun.publishers import publisher_rank
from qrun.quality import Quality
from qrun.request import Goal
from qrun.resolution import EngineState
from qrun.speed import Speed

__all__ = [
    "ACCEPTABLE_KLD",
    "FASTER_PLACEMENT_KLD",
    "NEAR_KLD",
    "WARN_KLD",
    "Option",
    "best_option",
    "candidate_key",
    "loses_by",
    "ranked",
    "time_unit",
]

NEAR_KLD = 0.002
_NEAR_TIME = 1.05
ACCEPTABLE_KLD = 0.09  # `speed` never goes above it, and `balanced` takes its measure of time below it
FASTER_PLACEMENT_KLD = 0.15  # a slower placement is used only where nothing up to this fits the faster one (DESIGN 3.5)
WARN_KLD = 0.3
_BALANCED_KLD = 0.05  # the loss that weighs as much as the time of the fastest
_INSTALL_LEAD = 0.85  # an engine that is not installed must beat the installed ones by more than 15 %


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate that fits. `quality` counts the KV cache's type in."""

    candidate: Candidate
    engine: EngineState
    task: Task
    fit: Fit
    quality: Quality
    speed: Speed

    @property
    def time_s(self) -> float:
        """Seconds a token."""
        return 1 / self.speed.decode_tps


def best_option(options: Sequence[Option], goal: Goal) -> Option:
    """The winner by `goal`; one whose engine is not installed only where it leads the installed ones clearly."""
    best = _best(options, options, goal)
    installed = [option for option in options if option.engine.installed]
    if best.engine.installed or not installed:
        return best
    settled = _best(installed, options, goal)
    score = _score(options, goal)
    return best if score(best) < _INSTALL_LEAD * score(settled) else settled


def ranked(options: Sequence[Option], goal: Goal, *, most: int) -> list[Option]:
    """The first `most` candidates in the order in which the goal takes them, each as if those before were not there."""
    rest, order = list(options), list[Option]()
    while rest and len(order) < most:
        best = best_option(rest, goal)
        order.append(best)
        rest = [option for option in rest if option.candidate is not best.candidate]
    return order


def loses_by(loser: Option, winner: Option, goal: Goal, *, unit_s: float) -> Literal["quality", "speed", "tie"]:
    """What decided against `loser`: its quality, its speed, or nothing but the order of near-equals.

    `unit_s` is `time_unit` of all options.
    """
    if _near(loser, winner):
        return "tie"
    lost_kld = loser.quality.kld - winner.quality.kld
    lost_time = loser.time_s - winner.time_s
    if goal == "quality" or (goal == "speed" and loser.quality.kld > ACCEPTABLE_KLD):
        return "quality" if lost_kld > 0 else "speed"
    if goal == "speed":
        return "speed" if lost_time > 0 else "quality"
    return "quality" if lost_kld / _BALANCED_KLD > lost_time / unit_s else "speed"


def time_unit(options: Sequence[Option]) -> float:
    """The time of the fastest of acceptable quality; where there is none, of the fastest."""
    good = [option.time_s for option in options if option.quality.kld <= ACCEPTABLE_KLD]
    return min(good or [option.time_s for option in options])


def candidate_key(candidate: Candidate) -> tuple[str, str, str]:
    """An order of candidates that hangs on nothing but themselves."""
    path = candidate.files[0].path if candidate.files else ""
    return candidate.repo_id or "", path, candidate.quant


def _best(options: Sequence[Option], among: Sequence[Option], goal: Goal) -> Option:
    single = _single_best(options, among, goal)
    near = [option for option in options if option is single or _near(option, single)]
    return min(_eligible(near, goal), key=_trust_key)


def _single_best(options: Sequence[Option], among: Sequence[Option], goal: Goal) -> Option:
    if goal == "quality":
        least = min(option.quality.kld for option in options)
        good = [option for option in options if option.quality.kld <= least + NEAR_KLD]
        return min(good, key=lambda option: (option.candidate.size_bytes, *_order(option)))
    if goal == "speed":
        good = [option for option in options if option.quality.kld <= ACCEPTABLE_KLD]
        if good:
            return min(good, key=lambda option: (option.time_s, *_order(option)))
        return min(options, key=lambda option: (option.quality.kld, option.time_s, *_order(option)))
    score = _score(among, goal)
    return min(options, key=lambda option: (score(option), *_order(option)))


def _eligible(near: Sequence[Option], goal: Goal) -> Sequence[Option]:
    """Near-equals that do not break the goal's own bound."""
    if goal != "speed" or not any(option.quality.kld <= ACCEPTABLE_KLD for option in near):
        return near
    return [option for option in near if option.quality.kld <= ACCEPTABLE_KLD]


def _score(options: Sequence[Option], goal: Goal) -> Callable[[Option], float]:
    """The figure that a goal makes least."""
    if goal == "quality":
        return lambda option: option.quality.kld
    if goal == "speed":
        return lambda option: option.time_s if option.quality.kld <= ACCEPTABLE_KLD else math.inf
    unit_s = time_unit(options)
    return lambda option: option.quality.kld / _BALANCED_KLD + option.time_s / unit_s


def _near(one: Option, other: Option) -> bool:
    """Within .002 KLD and 5 % time of each other."""
    slower, faster = max(one.time_s, other.time_s), min(one.time_s, other.time_s)
    return abs(one.quality.kld - other.quality.kld) <= NEAR_KLD and slower <= _NEAR_TIME * faster


def _trust_key(option: Option) -> tuple[object, ...]:
    """The order of near-equals: stored ones, measured ones, publisher, importance matrix, chat template, bytes, name.

    That two are equally good is worth less where one of the figures is an estimate.
    """
    candidate = option.candidate
    return (
        not candidate.stored,
        option.quality.is_estimate,
        publisher_rank(candidate.publisher, candidate.base_model),
        not candidate.has_imatrix,
        not candidate.has_chat_template,
        candidate.size_bytes,
        *_order(option),
    )


def _order(option: Option) -> tuple[str | float, ...]:
    return (*candidate_key(option.candidate), option.time_s, option.quality.kld, option.engine.runner)
