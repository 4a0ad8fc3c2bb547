"""What a model needs in memory at a given context.

Pure: opens no file, asks no device. Sizes are bytes, unknown is None, every formula names its source.
"""

from dataclasses import dataclass

__all__ = ["DeviceNeed", "MemoryNeed"]


@dataclass(frozen=True, slots=True)
class DeviceNeed:
    """The need on one device, with the budget it is held against (None: unknown)."""

    name: str
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    budget_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and compute together."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The need of one choice (DESIGN section 2): accelerators in use, or host RAM in mode `cpu`.

    In the modes `split` and `experts-on-cpu` the sums count both sides. `host_bytes` stays in RAM beside them.
    """

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    host_bytes: int
    devices: tuple[DeviceNeed, ...]
    source: str  # "engine" | "header" | "formula"

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and compute together."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes
