"""The resolver's answer as values: what was chosen, what was passed over and why.

Pure. `resolution_json` turns it into the contract of `qrun resolve --json` (DESIGN section 2, docs/resolve-json.md).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from qrun.errors import QrunError, UsageError
from qrun.hardware import DeviceKind, Hardware
from qrun.memory import MemoryNeed
from qrun.model import Candidate
from qrun.placement import Mode, Placement
from qrun.quality import Quality
from qrun.request import KvType, Request
from qrun.speed import Speed

__all__ = ["REASONS", "Choice", "EngineState", "Handover", "Reason", "Rejection", "Resolution"]

Reason = Literal[
    "too_large",
    "worse_quality",
    "slower",
    "same_as_chosen",
    "engine_unavailable",
    "hardware_unsupported",
    "architecture_unsupported",
    "filtered",
    "incomplete",
    "mislabelled",
    "unsafe",
    "access_denied",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class EngineState:
    """What the resolver needs to know of a runner on this machine. `why_not`: why its engine cannot run here.

    `can_install`: an engine that is not installed may be, and competes. `remedy` is the command that mends `why_not`.
    `backends` is what its build here can use; `runs_on`, what any build of it could, so that on other hardware no
    installing helps.
    """

    runner: str
    formats: frozenset[str]
    installed: bool
    can_install: bool = True
    why_not: str | None = None
    architectures: frozenset[str] | None = None  # that it can load, in llama.cpp's names; None: unknown, all are tried
    tensor_types: frozenset[str] | None = None  # of a GGUF file that it can load; None: those of `ggml_types`
    backends: frozenset[str] | None = None  # kinds of devices it can use; None: unknown, all are believed
    remedy: str | None = None
    runs_on: frozenset[DeviceKind] | None = None  # kinds of devices it is ever built for; None: all
    min_compute_capability: float | None = None  # of a CUDA GPU; None: any
    modes: frozenset[Mode] | None = None  # placements it can do; None: all, layers on the CPU among them


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate with the settings it would run with, and what they cost and give."""

    candidate: Candidate
    engine: str
    engine_installed: bool
    n_ctx: int
    n_parallel: int
    kv_cache_type: KvType
    placement: Placement
    memory: MemoryNeed
    speed: Speed | None
    quality: Quality
    cache_ram_bytes: int  # host RAM left for the engine's prompt cache
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handover:
    """What answers goal `finetune`: no engine of ours, but a base to load in NF4, and the line that loads it."""

    candidate: Candidate
    load: str
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that was not chosen: one closed `reason` for programs, its `detail` for people.

    `would_fit`: what would let it in, where that is known. Memory, quality and speed are those of its best placement
    here; of what fits nowhere, `needed_bytes` is the least need of the whole model.
    """

    candidate: Candidate
    engine: str | None
    reason: Reason
    detail: str
    would_fit: str | None = None
    needed_bytes: int | None = None
    quality: Quality | None = None
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The whole decision. One of `chosen`, `handover` and `error` is set; every loser stands once in `rejected`."""

    request: Request
    n_ctx: int | None  # the context decided for, None where no model was found
    base_model: str | None
    hardware: Hardware
    chosen: Choice | None
    alternatives: tuple[Choice, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    warnings: tuple[str, ...] = ()
    error: QrunError | None = None
    handover: Handover | None = None  # goal `finetune` only

    def require(self) -> Choice:
        """The choice that is to be run. Raises the error there is instead; UsageError for goal `finetune`."""
        if self.error is not None:
            raise self.error
        if self.chosen is None:
            raise UsageError("--goal finetune names what to load; it cannot be served. Use qrun resolve.")
        return self.chosen
