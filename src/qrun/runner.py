"""What a runner is: it finds its engine and says how to launch it. qrun knows runners only through this.

A runner decides, it starts nothing: `find` looks, `launch` returns a command line as a value, and `supervisor` owns the
process. Runners are found through the entry-point group `qrun.runners` and import nothing heavy themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from qrun.placement import Placement
from qrun.request import KvType

__all__ = [
    "DryRunner",
    "Engine",
    "EngineSearch",
    "FailureReason",
    "Found",
    "Inventory",
    "Launch",
    "Loaded",
    "PlaceMemory",
    "Runner",
    "ServePlan",
    "TcpAddress",
    "UnixAddress",
    "WorkDone",
]


@dataclass(frozen=True, slots=True)
class EngineSearch:
    """Where a runner may look, in the order it decides: nothing here was read from the environment by the runner."""

    environment: Path | None  # qrun's own environment of this engine, with its stamp; None: not installed
    override: str | None = None  # e.g. QRUN_LLAMA_SERVER
    path: str = ""  # the PATH to search


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that can be launched. `flavour` tells builds of one engine apart, `origin` where it was found."""

    runner: str
    flavour: Literal["ready", "ready-gpu", "native", "system"]
    version: str | None
    executable: Path  # the server binary, or the interpreter that runs the engine
    origin: str
    backends: frozenset[str] = frozenset({"cpu"})


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search: an engine, or why there is none and the command that mends it."""

    engine: Engine | None
    why_not: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket in a folder only this user can enter."""

    socket: Path


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A loopback port, where there are no unix sockets; guarded by the launch's `api_key`."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ServePlan:
    """Everything an engine must be told, decided before it is launched. `extra_args` follow `--` of the user's line."""

    model_path: Path
    alias: str
    n_ctx: int  # per request; the engine is given n_ctx * n_parallel
    n_parallel: int
    kv_cache_type: KvType
    placement: Placement
    threads: int
    cache_ram_bytes: int
    private_dir: Path  # mode 0700: for sockets, gone when the engine stops
    mmproj_path: Path | None = None
    mmproj_on_cpu: bool = False
    n_batch: int | None = None  # tokens of a prompt computed at once; None: what is fastest
    extra_args: tuple[str, ...] = ()
    cuda_uuids: tuple[str, ...] = ()  # the CUDA devices to see, in the order of `placement.tensor_split`; (): all
    gpus_picked: bool = False  # by the user: the engine must use no other


@dataclass(frozen=True, slots=True)
class Launch:
    """A child process as a value. `env` is added to the child's environment; the key travels there, never in argv."""

    argv: tuple[str, ...]
    address: UnixAddress | TcpAddress
    api_key: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"


@dataclass(frozen=True, slots=True)
class Inventory:
    """How to ask an engine what it loads: a command that prints JSON objects, one a line.

    `architectures` are names as llama.cpp has them, `tensor_types` numbers of a GGUF file's. The answer holds for
    `library_path` as it is.
    """

    argv: tuple[str, ...]
    library_path: Path


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Why an engine gave up: `words` follow `RUNNER failed:`. `lacks_memory`: less of it might load.

    `wanted_bytes` is the allocation that was refused, where the log names it.
    """

    words: str
    lacks_memory: bool = False
    wanted_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceMemory:
    """What an engine says that it takes in one place: an accelerator by the engine's name, or host RAM (None)."""

    device: str | None
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine says of the model that it has loaded: its memory by place, and the layers on accelerators."""

    places: tuple[PlaceMemory, ...]
    n_gpu_layers: int | None = None

    def taken_bytes(self, *, on_gpu: bool) -> int:
        """All memory on accelerators, or in host RAM."""
        return sum(
            one.weights_bytes + one.kv_cache_bytes + one.compute_bytes
            for one in self.places
            if (one.device is not None) is on_gpu
        )


@dataclass(frozen=True, slots=True)
class WorkDone:
    """An engine's counters since its start: tokens, and the seconds it worked on them."""

    decoded_tokens: float
    decoding_s: float
    prompt_tokens: float
    prompt_s: float


class Runner(Protocol):
    """An engine's driver. Stateless; made without arguments by the registry."""

    name: str
    formats: frozenset[str]

    def find(self, search: EngineSearch) -> Found:
        """The engine that would be launched, or why there is none. Starts at most a server of somebody else's, to
        ask it for its version, flags and devices.
        """
        ...

    def cannot(self, engine: Engine, plan: ServePlan) -> tuple[str, ...]:
        """What of `plan` this engine lacks, as the user wrote it; empty where it can do all."""
        ...

    def inventory(self, engine: Engine) -> Inventory | None:
        """How to learn what `engine` loads; None where it cannot be asked."""
        ...

    def launch(self, engine: Engine, plan: ServePlan) -> Launch:
        """The command that serves `plan`. Pure but for free ports and random keys."""
        ...

    def loaded(self, log_text: str) -> Loaded | None:
        """What the engine's log says of the model once it serves; None where it does not say."""
        ...

    def work_done(self, metrics_text: str) -> WorkDone | None:
        """The counters in the engine's own metrics; None where they are not there."""
        ...

    def explain_failure(self, log_text: str) -> FailureReason | None:
        """The engine's own reason, found in its log; None where the log has none."""
        ...


@runtime_checkable
class DryRunner(Protocol):
    """A runner whose engine can lay a model out and tell the memory, without loading it."""

    def dry_run(self, engine: Engine, plan: ServePlan) -> Launch:
        """The command that lays `plan` out and tells of it in its log. It may go on to load: its reader ends it."""
        ...

    def memory_told(self, log_text: str) -> tuple[PlaceMemory, ...]:
        """What the log of `dry_run` tells, accelerators in order, then host RAM; empty until all of it is there."""
        ...

    def refuses_model(self, log_text: str) -> str | None:
        """Why this engine can never load the model, as a clause; None where the log does not say so."""
        ...
