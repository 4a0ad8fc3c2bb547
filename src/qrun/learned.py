"""What loading and serving on this machine has taught, and how it corrects the next prediction (DESIGN 3.9).

Pure; `learned_store` keeps it. Two corrections. Speed: what was measured with the same files and placement replaces the
prediction; others of the same engine and mode are scaled by how far measurements there were from theirs. Memory: what
loads took beyond their promise, or what a load that failed for memory shows was never there, is taken off the budget.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from qrun.hardware import Hardware
from qrun.model import Candidate
from qrun.placement import Mode, Placement
from qrun.resolution import Choice
from qrun.speed import Speed
from qrun.units import MIB, size

__all__ = ["NOTHING_LEARNED", "Learned", "Observation", "key_of"]

Place = Literal["gpu", "ram"]

_SPREAD = 0.1  # of a measured rate, for the range: runs of one engine on a quiet machine differ by less
_MOST_SCALE = 4.0  # a rate further off than this says that something else was wrong
_MOST_HELD_BACK = 0.25  # of a budget: one bad day must not put a model out of reach for ever
_LEAST_HELD_BACK_BYTES = 16 * MIB  # less is how the engine's log rounds its buffers
_WORTH_TELLING = 0.02


@dataclass(frozen=True, slots=True)
class Observation:
    """One way of running one model, as it went the last time.

    `key` names files and engine (`key_of`). `promised_bytes` and `taken_bytes` are of `place`, where the model lies;
    `taken_bytes` None: the load failed for memory though `budget_bytes` was thought free. Rates are at one client.
    """

    key: str
    engine: str
    mode: Mode
    n_gpu_layers: int | None
    n_cpu_moe: int | None
    place: Place
    promised_bytes: int
    taken_bytes: int | None
    budget_bytes: int
    seen_at: str  # ISO 8601 in UTC
    decode_tps: float | None = None
    prefill_tps: float | None = None
    model_tps: float | None = None  # what was predicted without this module
    peak_rss_bytes: int | None = None

    def is_of(self, key: str, placement: Placement) -> bool:
        """Whether it was these files, placed like this."""
        at = (placement.mode, placement.n_gpu_layers, placement.n_cpu_moe)
        return self.key == key and at == (self.mode, self.n_gpu_layers, self.n_cpu_moe)


@dataclass(frozen=True, slots=True)
class Learned:
    """All observations of one machine, the newest last."""

    observations: tuple[Observation, ...] = ()

    def speed(self, predicted: Speed, candidate: Candidate, engine: str, placement: Placement) -> Speed:
        """`predicted` as corrected: "measured" where these files ran like this, else scaled."""
        key = key_of(candidate, engine)
        for one in reversed(self.observations):
            if one.decode_tps is not None and one.is_of(key, placement):
                low, high = one.decode_tps * (1 - _SPREAD), one.decode_tps * (1 + _SPREAD)
                return Speed(one.decode_tps, low, high, one.prefill_tps or predicted.prefill_tps, "measured")
        scale = self.scale(engine, placement.mode)
        return replace(
            predicted,
            decode_tps=predicted.decode_tps * scale,
            low=predicted.low * scale,
            high=predicted.high * scale,
        )

    def scale(self, engine: str, mode: Mode) -> float:
        """Measured over predicted decode rate of that engine in that mode; 1 where nothing was measured."""
        ratios = [
            one.decode_tps / one.model_tps
            for one in self.observations
            if one.decode_tps and one.model_tps and (one.engine, one.mode) == (engine, mode)
        ]
        return min(_MOST_SCALE, max(1 / _MOST_SCALE, median(ratios))) if ratios else 1.0

    def held_back(self, place: Place) -> int:
        """Bytes of that memory to count as taken: loads' usual excess over their promise, and what failures show."""
        loads = [one for one in self.observations if one.place == place]
        excess = [one.taken_bytes - one.promised_bytes for one in loads if one.taken_bytes is not None]
        usual = int(median(excess)) if excess else 0
        usual = usual if usual >= _LEAST_HELD_BACK_BYTES else 0
        return max(0, usual, *(_never_there(one) for one in _failures(loads)))

    def _why_held_back(self, place: Place) -> str | None:
        held, loads = self.held_back(place), [one for one in self.observations if one.place == place]
        if not held:
            return None
        what, failures = "RAM" if place == "ram" else "GPU memory", list(_failures(loads))
        if failures:
            day = failures[-1].seen_at[:10]
            return f"less of the {what} is counted on: a load that was to fit ran out of memory on {day}"
        return f"{size(held)} of {what} held back: loads here took more than was promised"

    def on(self, hardware: Hardware) -> Hardware:
        """The machine with that much less of it free."""
        gpu_bytes, ram_bytes = self.held_back("gpu"), self.held_back("ram")
        if not gpu_bytes and not ram_bytes:
            return hardware
        gpus = tuple(
            replace(
                gpu, free_bytes=max(0, _free(gpu.free_bytes, gpu.memory_bytes) - _at_most(gpu_bytes, gpu.budget_bytes))
            )
            for gpu in hardware.gpus
        )
        free = _free(hardware.ram_free_bytes, hardware.ram_bytes)
        if hardware.ram_limit_bytes is not None:
            free = min(free, hardware.ram_limit_bytes)
        return replace(
            hardware, gpus=gpus, ram_free_bytes=max(0, free - _at_most(ram_bytes, hardware.ram_budget_bytes))
        )

    def why(self, choice: Choice) -> tuple[str, ...]:
        """The corrections that a choice was made with, in words."""
        lines: list[str] = []
        scale = self.scale(choice.engine, choice.placement.mode)
        if choice.speed is not None and choice.speed.source == "measured":
            lines.append(f"{choice.speed.decode_tps:.1f} tokens/s were measured while it served here")
        elif abs(scale - 1) > _WORTH_TELLING:
            lines.append(f"speed times {scale:.2f}: what {choice.engine} reached here against its prediction")
        lines += [line for place in ("gpu", "ram") if (line := self._why_held_back(place))]
        return tuple(lines)


NOTHING_LEARNED = Learned()


def key_of(candidate: Candidate, engine: str) -> str:
    """What names a candidate's files, by content where that is known, and the engine that runs them."""
    first = candidate.files[0]
    name = first.sha256 or f"{candidate.repo_id}@{candidate.revision}/{first.path}:{candidate.size_bytes}"
    return f"{engine} {name}"


def _failures(loads: Sequence[Observation]) -> Iterable[Observation]:
    """Failures that no later load of as much has shown to be past."""
    for number, one in enumerate(loads):
        if one.taken_bytes is None and not any(
            later.taken_bytes is not None and later.promised_bytes >= one.promised_bytes
            for later in loads[number + 1 :]
        ):
            yield one


def _never_there(failure: Observation) -> int:
    """The least that was not there, of what was thought free."""
    return max(0, failure.budget_bytes - failure.promised_bytes + 1)


def _free(free_bytes: int | None, memory_bytes: int) -> int:
    return memory_bytes if free_bytes is None else free_bytes


def _at_most(held_bytes: int, budget_bytes: int) -> int:
    return min(held_bytes, int(budget_bytes * _MOST_HELD_BACK))
