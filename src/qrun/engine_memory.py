"""The engine's own word on memory, put in the place of ours: what it does to a decision.

Pure. `dry_run` asks the engine; here its answer becomes the choice's MemoryNeed, or a reason to choose again without
the candidate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from qrun.hardware import Hardware
from qrun.memory import DeviceNeed, MemoryNeed
from qrun.model import Candidate, Defect
from qrun.resolution import Choice, Resolution
from qrun.runner import PlaceMemory
from qrun.source import FoundModel
from qrun.units import gib

__all__ = ["EngineWord", "choice_confirmed", "confirmed", "found_without", "need_told"]

_MOST_QUESTIONS = 3  # each costs the engine's start, 0.3 s, and a header


@dataclass(frozen=True, slots=True)
class EngineWord:
    """What the engine said of a choice: the memory it takes, or why it can never load it. Neither: it was not asked,
    or gave no answer, which is no reason to doubt the choice (`silence` says why).
    """

    need: MemoryNeed | None = None
    refusal: str | None = None
    silence: str | None = None


def need_told(places: Sequence[PlaceMemory], choice: Choice, hardware: Hardware) -> MemoryNeed:
    """The engine's breakdown as a MemoryNeed of the choice's placement, held against the same budgets as ours."""
    host = next((place for place in places if place.device is None), PlaceMemory(None, 0, 0, 0))
    host_bytes = _total(host)
    if choice.placement.mode == "cpu":
        parts = _parts([host])
        device = DeviceNeed("CPU", *parts, hardware.ram_budget_bytes)
        return MemoryNeed(*parts, 0, (device,), "engine")
    told = [place for place in places if place.device is not None and _total(place)]
    counted = told if choice.placement.whole_on_gpu else [*told, host]
    return MemoryNeed(*_parts(counted), host_bytes, _devices(told, choice), "engine")


def choice_confirmed(resolution: Resolution, word: EngineWord) -> Resolution | None:
    """The resolution with the engine's figures; unchanged where it said nothing. None: choose again, without it.

    That is where the engine refuses the model, or needs more than a budget has.
    """
    if word.refusal is not None:
        return None
    if word.need is None or resolution.chosen is None:
        return resolution
    if _beyond(word.need, resolution.chosen, resolution.hardware) is not None:
        return None
    return replace(resolution, chosen=replace(resolution.chosen, memory=word.need))


def confirmed(
    resolution: Resolution,
    found: FoundModel,
    *,
    ask: Callable[[Choice], EngineWord],
    again: Callable[[FoundModel], Resolution],
) -> tuple[FoundModel, Resolution]:
    """The decision with the engine's word on it, made `again` without what it refuses; with the candidates as they are
    then. After three questions the last choice stands with our own figures.
    """
    for _ in range(_MOST_QUESTIONS):
        if resolution.chosen is None:
            break
        word = ask(resolution.chosen)
        if (agreed := choice_confirmed(resolution, word)) is not None:
            return found, agreed
        found = found_without(found, resolution, word)
        resolution = again(found)
    return found, resolution


def found_without(found: FoundModel, resolution: Resolution, word: EngineWord) -> FoundModel:
    """The candidates for the next try: the one that the engine would not take stands there with its defect."""
    chosen = resolution.require()
    if word.refusal is not None:
        defect = Defect("architecture_unsupported", f"{chosen.engine} cannot load it: {word.refusal}")
    else:
        detail = _beyond(word.need, chosen, resolution.hardware) if word.need else None
        defect = Defect("too_large", detail or f"{chosen.engine} needs more memory than was expected")
    refused = chosen.candidate
    return replace(found, candidates=tuple(_with(defect, one, refused) for one in found.candidates))


def _with(defect: Defect, candidate: Candidate, refused: Candidate) -> Candidate:
    same = (candidate.repo_id, candidate.revision) == (refused.repo_id, refused.revision)
    return replace(candidate, defect=defect) if same and candidate.files == refused.files else candidate


def _beyond(need: MemoryNeed, choice: Choice, hardware: Hardware) -> str | None:
    """The place whose budget the need is beyond, in words; None where it fits."""
    for device in need.devices:
        if device.budget_bytes is not None and device.total_bytes > device.budget_bytes:
            return f"the engine needs {gib(device.total_bytes)} of {gib(device.budget_bytes)} on {device.name}"
    host_bytes = need.host_bytes + (need.total_bytes if choice.placement.mode in ("cpu", "unified") else 0)
    if host_bytes > hardware.ram_budget_bytes:
        return f"the engine needs {gib(host_bytes)} of {gib(hardware.ram_budget_bytes)} of host memory"
    return None


def _devices(told: Sequence[PlaceMemory], choice: Choice) -> tuple[DeviceNeed, ...]:
    """By position, as the choice's own; what the engine has beyond them keeps its name and is held against nothing."""
    ours = choice.memory.devices
    return tuple(
        DeviceNeed(
            ours[index].name if index < len(ours) else str(place.device),
            place.weights_bytes,
            place.kv_cache_bytes,
            place.compute_bytes,
            ours[index].budget_bytes if index < len(ours) else None,
        )
        for index, place in enumerate(told)
    )


def _parts(places: Sequence[PlaceMemory]) -> tuple[int, int, int]:
    return (
        sum(place.weights_bytes for place in places),
        sum(place.kv_cache_bytes for place in places),
        sum(place.compute_bytes for place in places),
    )


def _total(place: PlaceMemory) -> int:
    return place.weights_bytes + place.kv_cache_bytes + place.compute_bytes
