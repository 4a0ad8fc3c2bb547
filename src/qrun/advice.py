"""Where a choice departs from what guides tell users by hand: the figures that decided against their advice.

Pure. The advice is data (`data/advice.toml`); what it names is held against the chosen by KLD and by rate.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from qrun.goal import Option, ranked
from qrun.quality import plain_label
from qrun.request import Goal
from qrun.resolution import Rejection
from qrun.units import GIB

__all__ = ["advised_formats", "advised_quants", "departures"]

_MODES_OF_WHOLE = ("gpu", "unified", "cpu")  # a part of the layers on the CPU is the case for GGUF in every guide


def departures(winner: Option, options: Sequence[Option], rejected: Sequence[Rejection], goal: Goal) -> Iterator[str]:
    """One line for each piece of advice that the choice departs from although something of it was there."""
    for formats in advised_formats(winner, goal):
        if winner.candidate.format in formats:
            continue
        yield from _against(
            winner,
            [option for option in options if option.candidate.format in formats],
            [one for one in rejected if one.candidate.format in formats],
            goal,
            " or ".join(one.upper() for one in formats),
        )
    quants = advised_quants(goal)
    if winner.candidate.format == "gguf" and quants and plain_label(winner.candidate.quant) not in quants:
        among = [
            one for one in options if one.candidate.format == "gguf" and plain_label(one.candidate.quant) in quants
        ]
        yield from _against(winner, among, [], goal, " or ".join(quants))


def advised_formats(winner: Option, goal: Goal) -> Iterator[tuple[str, ...]]:
    """The formats that guides name for the hardware which the choice uses: each piece of advice that applies."""
    if winner.fit.placement.mode not in _MODES_OF_WHOLE:
        yield ("gguf",)
        return
    gpus = [winner.task.hardware.gpus[index] for index in winner.fit.used]
    kinds = {gpu.kind for gpu in gpus} or {"cpu"}
    largest_gib = max((gpu.memory_bytes for gpu in gpus), default=0) / GIB
    for rule in _data()["format"]:
        of_size = rule.get("least_memory_gib", 0) <= largest_gib <= rule.get("most_memory_gib", math.inf)
        if kinds & set(rule["kinds"]) and of_size and goal in rule.get("goals", (goal,)):
            yield tuple(rule["formats"])


def advised_quants(goal: Goal) -> tuple[str, ...]:
    """The GGUF quants that guides name for that wish."""
    return next((tuple(rule["quants"]) for rule in _data()["quant"] if rule["goal"] == goal), ())


def _against(
    winner: Option, among: Sequence[Option], rejected: Sequence[Rejection], goal: Goal, named: str
) -> Iterator[str]:
    """The best of what is advised against the chosen; where none of it is an option, why the first is none."""
    if among:
        best = ranked(among, goal, most=1)[0]
        theirs, ours = (
            f"KLD {one.quality.kld:.4f} and about {one.speed.decode_tps:.1f} tokens/s" for one in (best, winner)
        )
        yield f"guides name {named} here; the best of them, {_name(best)}, has {theirs}, the chosen {ours}"
    elif rejected:
        first = min(rejected, key=lambda one: (one.candidate.repo_id or "", one.candidate.quant))
        yield f"guides name {named} here; {first.candidate.quant} is no option: {first.detail}"


def _name(option: Option) -> str:
    candidate = option.candidate
    return f"{candidate.quant} of {candidate.repo_id}" if candidate.repo_id else candidate.quant


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "advice.toml").read_text(encoding="utf-8"))
