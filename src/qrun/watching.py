"""What a model that serves takes and gives in truth, held against the promise and kept for the next decision.

Memory is read once, from the engine's own log when it is ready; speed from its own counters while it works on one
request at a time. Both go to `learned_store`; what cannot be read or kept costs no request.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from qrun.hardware import Hardware, engine_threads
from qrun.learned import Observation, key_of
from qrun.learned_store import LearnedStore
from qrun.resolution import Choice
from qrun.runner import Loaded, Runner, WorkDone
from qrun.speed import expected_speed

__all__ = ["Sampled", "Watch", "failed_load", "good_load", "promised_bytes"]

_EVERY_S = 15.0
_FEWEST_DECODED = 64  # tokens at one client, for a rate that is more than noise
_FEWEST_PROMPT = 256
_LEAST_CPU_SHARE = 0.8  # of the engine's threads' time: with less, others had the processor
_LAST_SAMPLE_S = 1.0
_NO_WORK = WorkDone(0.0, 0.0, 0.0, 0.0)

_log = logging.getLogger(__name__)


class Sampled(Protocol):
    """What is asked of the front."""

    async def sample(self) -> tuple[str, int]:
        """The engine's metrics, and the most requests at once since the last sample."""
        ...


class Watch:
    """One engine that serves `choice`. `run` is a task's work, ended by cancelling it."""

    def __init__(
        self,
        choice: Choice,
        loaded: Loaded | None,
        *,
        runner: Runner,
        hardware: Hardware,
        store: LearnedStore,
        engine_pid: Callable[[], int | None],
    ) -> None:
        self._engine_pid = engine_pid
        self._peak_rss_bytes = 0
        self._choice = choice
        self._loaded = loaded
        self._runner = runner
        self._hardware = hardware
        self._store = store
        self._before = _NO_WORK
        self._cpu_s_before = 0.0
        self._alone = _NO_WORK  # the work that was done for one client at a time
        self._kept = _NO_WORK

    async def run(self, front: Sampled, failed: Sequence[Choice] = ()) -> None:
        """Keep what the load taught, then what serving does, until cancelled; then once more."""
        self._peak_rss_bytes = _rss_bytes(self._engine_pid())
        self._cpu_s_before = _cpu_s(self._engine_pid())
        await self._keep([*(failed_load(one, self._hardware) for one in failed), *self._load()])
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                await self._look(front)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SAMPLE_S):
                    await self._look(front)
            await self._keep(list(self._load()))

    async def _look(self, front: Sampled) -> None:
        self._peak_rss_bytes = max(self._peak_rss_bytes, _rss_bytes(self._engine_pid()))
        text, most_at_once = await front.sample()
        now = self._runner.work_done(text)
        if now is None:
            return
        done, self._before = _minus(now, self._before), now
        if done.decoded_tokens < 0:  # another engine: it was started again
            return
        if most_at_once <= 1 and self._had_the_cpu(done):
            self._alone = _plus(self._alone, done)
        if self._alone.decoded_tokens >= max(_FEWEST_DECODED, self._kept.decoded_tokens + _FEWEST_DECODED):
            self._kept = self._alone
            await self._keep(list(self._load()))

    def _had_the_cpu(self, done: WorkDone) -> bool:
        """Whether the engine's threads ran while it worked; on a busy machine its rate says nothing of the machine."""
        before, self._cpu_s_before = self._cpu_s_before, _cpu_s(self._engine_pid())
        if self._choice.placement.whole_on_gpu:
            return True
        wanted_s = (done.decoding_s + done.prompt_s) * engine_threads(self._hardware.cpu)
        return self._cpu_s_before - before >= _LEAST_CPU_SHARE * wanted_s

    def _load(self) -> Iterator[Observation]:
        if self._loaded is not None:
            load = good_load(self._choice, self._loaded, self._hardware)
            load = replace(load, peak_rss_bytes=self._peak_rss_bytes or None)
            yield _with_rates(load, self._alone, self._choice, self._hardware)

    async def _keep(self, seen: Sequence[Observation]) -> None:
        if not seen:
            return
        try:
            await asyncio.to_thread(self._store.add, self._hardware, seen)
        except (OSError, TimeoutError) as error:
            _log.info("What was seen could not be kept: %s", error)


def good_load(choice: Choice, loaded: Loaded, hardware: Hardware) -> Observation:
    """What a load taught of memory, where the model lies."""
    on_gpu = choice.placement.on_gpu
    return replace(failed_load(choice, hardware), taken_bytes=loaded.taken_bytes(on_gpu=on_gpu))


def failed_load(choice: Choice, hardware: Hardware) -> Observation:
    """That a load failed for memory although it was to fit."""
    placement, devices = choice.placement, choice.memory.devices
    return Observation(
        key=key_of(choice.candidate, choice.engine),
        engine=choice.engine,
        mode=placement.mode,
        n_gpu_layers=placement.n_gpu_layers,
        n_cpu_moe=placement.n_cpu_moe,
        place="gpu" if placement.on_gpu else "ram",
        promised_bytes=promised_bytes(choice),
        taken_bytes=None,
        budget_bytes=(
            sum(device.budget_bytes or 0 for device in devices) if placement.on_gpu else hardware.ram_budget_bytes
        ),
        seen_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def promised_bytes(choice: Choice) -> int:
    """What the choice was to take of the accelerators, or of host RAM (without the prompt cache, which comes later)."""
    if choice.placement.on_gpu:
        return sum(device.total_bytes for device in choice.memory.devices)
    return choice.memory.total_bytes + choice.memory.host_bytes - choice.cache_ram_bytes


def _with_rates(load: Observation, done: WorkDone, choice: Choice, hardware: Hardware) -> Observation:
    shape, weights = choice.candidate.shape, choice.candidate.weights
    if done.decoded_tokens < _FEWEST_DECODED or not done.decoding_s or shape is None or weights is None:
        return load
    format_ = choice.candidate.format
    model = expected_speed(shape, weights, choice.placement, hardware, engine=choice.engine, format=format_)
    prefill = done.prompt_tokens / done.prompt_s if done.prompt_tokens >= _FEWEST_PROMPT and done.prompt_s else None
    return replace(
        load,
        decode_tps=done.decoded_tokens / done.decoding_s,
        prefill_tps=prefill,
        model_tps=model.decode_tps,
    )


def _rss_bytes(pid: int | None) -> int:
    """Of the engine and all that it started; 0 where nothing lives."""
    import psutil

    if pid is None:
        return 0
    try:
        engine = psutil.Process(pid)
        return sum(int(process.memory_info().rss) for process in (engine, *engine.children(recursive=True)))
    except psutil.Error:
        return 0


def _cpu_s(pid: int | None) -> float:
    """Processor seconds of the engine and all that it started; 0 where nothing lives."""
    import psutil

    if pid is None:
        return 0.0
    try:
        engine = psutil.Process(pid)
        times = [process.cpu_times() for process in (engine, *engine.children(recursive=True))]
    except psutil.Error:
        return 0.0
    return float(sum(one.user + one.system for one in times))


def _minus(one: WorkDone, other: WorkDone) -> WorkDone:
    return WorkDone(
        one.decoded_tokens - other.decoded_tokens,
        one.decoding_s - other.decoding_s,
        one.prompt_tokens - other.prompt_tokens,
        one.prompt_s - other.prompt_s,
    )


def _plus(one: WorkDone, other: WorkDone) -> WorkDone:
    return WorkDone(
        one.decoded_tokens + other.decoded_tokens,
        one.decoding_s + other.decoding_s,
        one.prompt_tokens + other.prompt_tokens,
        one.prompt_s + other.prompt_s,
    )
