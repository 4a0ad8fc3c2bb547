"""How fast a choice would decode and prefill: tokens per second, with a range.

Pure. Decode reads the active weights once per token: bytes / (bandwidth * efficiency) + overhead per layer.
"""

from dataclasses import dataclass

__all__ = ["Speed"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Expected tokens/s at one client; `low` and `high` bound the decode rate. `prefill_tps` None: unknown."""

    decode_tps: float
    low: float
    high: float
    prefill_tps: float | None
    source: str
