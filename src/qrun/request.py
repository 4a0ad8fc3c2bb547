"""What was asked for: a model and the options that decide the choice, as one value.

Pure. The CLI makes it, the resolver reads it; what does not change the choice (`--port`, `--yes`) is not in it.
"""

from dataclasses import dataclass
from typing import Literal

from qrun.model import Format

__all__ = ["DEFAULT_N_CTX", "GOALS", "KV_TYPES", "PLACEMENTS", "Goal", "KvType", "PlacementWish", "Request"]

Goal = Literal["balanced", "speed", "quality", "finetune"]
GOALS: tuple[Goal, ...] = ("balanced", "speed", "quality", "finetune")
KvType = Literal["f16", "q8_0", "q4_0"]
KV_TYPES: tuple[KvType, ...] = ("f16", "q8_0", "q4_0")
PlacementWish = Literal["auto", "gpu", "any"]
PLACEMENTS: tuple[PlacementWish, ...] = ("auto", "gpu", "any")

DEFAULT_N_CTX = 8192  # DESIGN section 2: per request, or less where the model has less


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `n_ctx` is tokens per request: None is the default, "auto" the longest that fits."""

    model: str
    goal: Goal = "balanced"
    n_ctx: int | Literal["auto"] | None = None
    n_parallel: int | None = None
    placement: PlacementWish = "auto"
    quant: str | None = None
    format: Format | None = None
    engine: str | None = None
    engines: tuple[str, ...] = ()
    kv_type: KvType | Literal["auto"] = "auto"
    vision: bool | None = None
    gpus: tuple[int, ...] | None = None  # None: all; (): none
    min_tps: float | None = None
    max_kld: float | None = None
    allow_cpu_engine: bool = False
