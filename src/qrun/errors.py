"""Everything qrun can refuse, as one tree of errors.

QrunError
├── UsageError            2  an option or argument that cannot be meant
│   └── ContextTooLong    2  --ctx above the model's own context
├── ModelNotFound         3  no model, file or folder of that name
├── AmbiguousModel        3  several models of that name
├── QuantNotFound         3  the model is there, that quant is not
├── FormatNotFound        3  the model is there, not in that format
├── NotAModel             3  a folder or file that holds no model
├── NothingFits           4  no candidate fits this machine
│   ├── FloorMissed       4  what fits is slower or worse than --min-tps or --max-kld allows
│   └── PinnedTooLarge    4  what was decided before does not fit the memory that is free now
├── HubUnreachable        5  the Hub does not answer, or may not be asked
│   └── RangesIgnored     5  it sends whole files where a part was asked for
├── AccessDenied          6  a gated or private repo, and no token that opens it
│   └── TokenRefused      6  a token that the Hub does not know
├── EngineMissing         7  no engine that can run the choice
├── EngineFailed          7  the engine would not start, or died
├── EngineCannot          7  the engine in place lacks what was asked for
├── FileDamaged           8  a file that is truncated or no GGUF
│   ├── ChecksumWrong     8  bytes that are not those the Hub named
│   └── UnsafeFile        8  weights that can run code when they are loaded
├── DiskFull              9  not enough room for a download
├── PortInUse             1  somebody listens there already
└── Failure               1  any other failure that has a sentence

Those of the Hub and the disk (5, 6, 9, ChecksumWrong) stand in `hub_errors`.

An error carries fields; `__str__` is one line that says what happened and what to do next. The exit code hangs on the
class (DESIGN section 2). `__main__`-level code catches `QrunError` once, at the CLI's door.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qrun.units import gib

__all__ = [
    "AmbiguousModel",
    "ContextTooLong",
    "EngineCannot",
    "EngineFailed",
    "EngineMissing",
    "Failure",
    "FileDamaged",
    "FloorMissed",
    "FormatNotFound",
    "ModelNotFound",
    "NotAModel",
    "NothingFits",
    "PinnedTooLarge",
    "PortInUse",
    "QrunError",
    "QuantNotFound",
    "UnsafeFile",
    "UsageError",
]


class QrunError(Exception):
    """Base of all refusals. `exit_code` and `name` are the contract with programs; `nearest` offers other names."""

    exit_code: ClassVar[int] = 1
    name: ClassVar[str] = "failure"
    nearest: Sequence[str] = ()

    def __str__(self) -> str:
        """One line for a person."""
        return " ".join(str(part) for part in self.args)


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most])


# Exceptions are dataclasses, but neither frozen nor compared: they must stay hashable and take their traceback.
@dataclass(eq=False)
class Failure(QrunError):
    """Any other failure: `what` happened, and the `remedy`."""

    what: str
    remedy: str = ""

    def __str__(self) -> str:
        """What happened, then what to do."""
        return f"{self.what} {self.remedy}".strip()


@dataclass(eq=False)
class UsageError(QrunError):
    """An option or argument that cannot be meant."""

    what: str
    exit_code: ClassVar[int] = 2
    name: ClassVar[str] = "usage"

    def __str__(self) -> str:
        """What cannot be meant, and what can."""
        return self.what


@dataclass(eq=False)
class ContextTooLong(UsageError):
    """A context longer than the model was trained for."""

    what: str = ""
    model: str = ""
    n_ctx: int = 0
    n_ctx_train: int = 0

    def __str__(self) -> str:
        """Both numbers and the way out."""
        return (
            f"{self.model} has a context of {self.n_ctx_train} tokens; --ctx {self.n_ctx} is longer. "
            f"Use --ctx {self.n_ctx_train} or less."
        )


@dataclass(eq=False)
class ModelNotFound(QrunError):
    """No model of that name where we looked. `hint`: what to do next, where that is not simply another name."""

    model: str
    looked_in: str
    nearest: Sequence[str] = ()
    hint: str = ""
    exit_code: ClassVar[int] = 3
    name: ClassVar[str] = "model_not_found"

    def __str__(self) -> str:
        """Where we looked, and the nearest names."""
        near = f"Did you mean {_listed(self.nearest)}?" if self.nearest else "Check the name, or --models-dir."
        return f"no model named {self.model!r} in {self.looked_in}. {self.hint or near}"


@dataclass(eq=False)
class AmbiguousModel(QrunError):
    """Several models answer to the name."""

    model: str
    nearest: Sequence[str]
    exit_code: ClassVar[int] = 3
    name: ClassVar[str] = "ambiguous"

    def __str__(self) -> str:
        """The choices."""
        return f"{self.model!r} could be {_listed(self.nearest)}. Name one of them."


@dataclass(eq=False)
class QuantNotFound(QrunError):
    """The model is there, the quant asked for is not."""

    model: str
    quant: str
    nearest: Sequence[str]
    exit_code: ClassVar[int] = 3
    name: ClassVar[str] = "quant_not_found"

    def __str__(self) -> str:
        """The quants that are there."""
        return f"{self.model} has no quant {self.quant!r}. There are: {_listed(self.nearest, most=20)}."


@dataclass(eq=False)
class FormatNotFound(QrunError):
    """The model is there, but not in the format asked for."""

    model: str
    format: str
    nearest: Sequence[str]
    exit_code: ClassVar[int] = 3
    name: ClassVar[str] = "format_not_found"

    def __str__(self) -> str:
        """The formats that are there."""
        return f"{self.model} is not here in format {self.format!r}. There are: {_listed(self.nearest, most=20)}."


@dataclass(eq=False)
class NotAModel(QrunError):
    """A file or folder that holds no model qrun can read."""

    path: str
    why: str
    exit_code: ClassVar[int] = 3
    name: ClassVar[str] = "not_a_model"

    def __str__(self) -> str:
        """What is missing there."""
        return f"{self.path} is no model: {self.why}"


@dataclass(eq=False)
class NothingFits(QrunError):
    """No candidate fits. `needed_bytes` is the smallest need, `budget_bytes` what this machine has for it."""

    model: str
    needed_bytes: int | None
    budget_bytes: int | None
    would: str
    nearest: Sequence[str] = ()
    exit_code: ClassVar[int] = 4
    name: ClassVar[str] = "nothing_fits"

    def __str__(self) -> str:
        """The need, the budget and what would fit."""
        if self.needed_bytes is None or self.budget_bytes is None:
            return f"nothing of {self.model} fits this machine. {self.would}"
        return (
            f"nothing of {self.model} fits: the smallest needs {gib(self.needed_bytes)} "
            f"of {gib(self.budget_bytes)} usable memory. {self.would}"
        )


@dataclass(eq=False)
class FloorMissed(NothingFits):
    """What fits passes no floor the user set. `floor` is the option as written, `would` names the nearest miss."""

    needed_bytes: int | None = None
    budget_bytes: int | None = None
    would: str = ""
    floor: str = ""

    def __str__(self) -> str:
        """The floor and the nearest miss."""
        return f"nothing of {self.model} that fits passes {self.floor}. {self.would}"


@dataclass(eq=False)
class PinnedTooLarge(NothingFits):
    """The choice of an earlier day does not fit the memory that is free now, nor does anything else that is stored.

    `holders` name what holds the memory, the largest first.
    """

    needed_bytes: int | None = None
    budget_bytes: int | None = None
    would: str = ""
    quant: str = ""
    holders: Sequence[str] = ()

    def __str__(self) -> str:
        """Need and room today, who has the memory, and the two ways on."""
        figures = ""
        if self.needed_bytes is not None and self.budget_bytes is not None:
            figures = f" (it needs {gib(self.needed_bytes)} of {gib(self.budget_bytes)} usable)"
        held = f" Memory is held by {_listed(self.holders)}." if self.holders else ""
        return (
            f"{self.quant} of {self.model}, decided before, does not fit the memory that is free now{figures}, "
            f"and nothing else of it that fits is stored.{held} Free some, or decide anew with --refresh."
        )


@dataclass(eq=False)
class EngineMissing(QrunError):
    """No engine is installed that runs this format."""

    runner: str
    why: str
    remedy: str
    exit_code: ClassVar[int] = 7
    name: ClassVar[str] = "engine_unavailable"

    def __str__(self) -> str:
        """Why, and the command that installs it."""
        return f"{self.runner}: {self.why}. {self.remedy}"


@dataclass(eq=False)
class EngineFailed(QrunError):
    """The engine would not start or died; `reason` is from its log, which stands in `log_path`."""

    runner: str
    reason: str
    log_path: str | None = None
    lacks_memory: bool = False  # what it was to load is too large: less of it might load
    wanted_bytes: int | None = None  # the allocation that was refused, where its log names it
    exit_code: ClassVar[int] = 7
    name: ClassVar[str] = "engine_failed"

    def __str__(self) -> str:
        """The engine's own reason, and where its log is."""
        log = f" Its log: {self.log_path}" if self.log_path else ""
        return f"{self.runner} failed: {self.reason}.{log}"


@dataclass(eq=False)
class EngineCannot(QrunError):
    """The engine in place lacks what was asked for; `what` names it as the user wrote it."""

    runner: str
    flavour: str
    what: Sequence[str]
    remedy: str
    exit_code: ClassVar[int] = 7
    name: ClassVar[str] = "engine_cannot"

    def __str__(self) -> str:
        """What it cannot do, and which engine can."""
        return f"{self.runner}'s {self.flavour} engine cannot do {_listed(self.what, most=20)}. {self.remedy}"


@dataclass(eq=False)
class FileDamaged(QrunError):
    """A model file that is truncated, corrupt or no GGUF at all."""

    path: str
    why: str
    remedy: str = "Fetch it again."
    exit_code: ClassVar[int] = 8
    name: ClassVar[str] = "file_damaged"

    def __str__(self) -> str:
        """What is wrong with which file."""
        return f"{self.path} is damaged: {self.why}. {self.remedy}"


@dataclass(eq=False)
class UnsafeFile(FileDamaged):
    """Weights in a format that can run code when they are loaded."""

    remedy: str = "Use a GGUF or safetensors copy of the model."
    name: ClassVar[str] = "unsafe_file"

    def __str__(self) -> str:
        """Why it is refused, and what is safe."""
        return f"{self.path} is refused: {self.why}. {self.remedy}"


@dataclass(eq=False)
class PortInUse(QrunError):
    """Somebody listens on the address already."""

    host: str
    port: int
    exit_code: ClassVar[int] = 1
    name: ClassVar[str] = "port_in_use"

    def __str__(self) -> str:
        """The port, and the way round."""
        return f"port {self.port} on {self.host} is in use. Choose another with --port, or --port 0 for any free one."
