"""Where a model's parts lie: all on GPUs, layers split, experts on the CPU, or all on the CPU.

Pure values. Which placement a candidate gets is decided in `fit`, what it costs in `memory`.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Mode", "Placement"]

Mode = Literal["gpu", "unified", "split", "experts-on-cpu", "cpu"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A placement. `n_gpu_layers` counts the output layer too: block_count + 1 is everything.

    `tensor_split` is None for one device, else proportions that sum to 1 in the order of the GPUs. The numbers are None
    for engines that keep no layers on the CPU.
    """

    mode: Mode
    n_gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    tensor_split: tuple[float, ...] | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether any part lies on an accelerator."""
        return self.mode != "cpu"

    @property
    def whole_on_gpu(self) -> bool:
        """Whether every part lies on accelerators."""
        return self.mode in {"gpu", "unified"}
