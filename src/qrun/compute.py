"""The working memory of llama.cpp's compute graph: what one batch needs beside weights and KV cache.

Pure. ggml lays the graph's tensors out so that they share memory; the largest step decides. Each step is counted here
in F32 numbers a row (a token of the batch), by rules that were found by measurement and not derived: they meet the dry
runs of 15 models at 512 to 32,768 tokens, on the CPU, on one device and on several (docs/measurements/memory.md).
"""

from dataclasses import dataclass

from qrun.model import ModelShape
from qrun.placement import Placement

__all__ = ["Compute", "compute_bytes", "padded"]

_CELL_PADDING = 256  # llama-context.cpp pads each slot's context to it, llama-kv-cache-iswa.cpp each window
_F32_BYTES = 4
_MASK_ITEM_BYTES = 2  # the attention mask is f16
_PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES: several devices work on several batches at a time


@dataclass(frozen=True, slots=True)
class Compute:
    """Buffers on each device, and the one in host RAM."""

    device_bytes: tuple[int, ...]
    host_bytes: int


def padded(cells: int) -> int:
    """`cells` rounded up as llama.cpp pads its cache."""
    return -(-cells // _CELL_PADDING) * _CELL_PADDING


def compute_bytes(
    shape: ModelShape, placement: Placement, *, n_ctx: int, n_parallel: int, n_ubatch: int, n_devices: int
) -> Compute:
    """The compute buffers for batches of `n_ubatch` tokens; more slots do not make them larger."""
    rows = min(n_ubatch, n_ctx * n_parallel)
    graph = _Graph(rows, _mask_bytes(shape, n_ctx, rows))
    n_embd, widest = shape.n_embd, _widest_step(shape)
    on_cpu = graph.step(widest + 3 * n_embd)
    if placement.mode == "cpu":
        return Compute((), on_cpu)
    if placement.mode == "split":
        # Of models with experts the devices hold more here than alone; dense ones less, as no embeddings pass through.
        on_device = graph.step(widest + (4 if shape.n_expert else 1) * n_embd)
        return Compute((on_device,) * n_devices, on_cpu)
    if placement.mode == "experts-on-cpu":
        on_device = _beside_host_experts(shape, placement.n_cpu_moe or 0, graph)
        return Compute((on_device,) * n_devices, _host_experts(shape, graph))
    if n_devices > 1:
        first, others = (graph.step(widest + extra * n_embd, n_masks=_PIPELINE_COPIES) for extra in (6, 10))
        host = graph.step(5 * n_embd, n_masks=_PIPELINE_COPIES)
        return Compute((first, *[others] * (n_devices - 1)), host)
    return Compute((graph.step(widest + 2 * n_embd),), graph.step(2 * n_embd))


@dataclass(frozen=True, slots=True)
class _Graph:
    """What every step shares: the rows of a batch, and the bytes of its attention masks."""

    rows: int
    mask_bytes: int

    def step(self, numbers_a_row: int, n_masks: int = 1) -> int:
        """Bytes of a step that holds so many numbers for each row, beside the masks."""
        return _F32_BYTES * self.rows * numbers_a_row + n_masks * self.mask_bytes


def _mask_bytes(shape: ModelShape, n_ctx: int, rows: int) -> int:
    """One mask over the whole context, and one over the windows where the model has any."""
    cells = padded(n_ctx) if any(layer.window is None and layer.n_head_kv for layer in shape.layers) else 0
    window = max((layer.window for layer in shape.layers if layer.window is not None), default=0)
    if window:
        cells += padded(min(n_ctx, window + rows))
    return _MASK_ITEM_BYTES * rows * cells


def _q_width(shape: ModelShape) -> int:
    """Numbers in all heads' output; a fused QKV tensor leaves no room for them to fill."""
    if shape.fused_qkv:
        return 0
    return shape.n_head * max(layer.head_dim_v or layer.head_dim_k for layer in shape.layers)


def _widest_step(shape: ModelShape) -> int:
    """Numbers a row of the widest feed-forward step, beside those of the embeddings' width."""
    dense = 3 * shape.n_ff + _q_width(shape)
    if not shape.n_expert:
        return dense
    used, n_ff_exp = shape.n_expert_used, shape.n_ff_exp
    experts = max(2 * used * shape.n_embd + used * n_ff_exp, 3 * used * n_ff_exp + _q_width(shape))
    return max(dense if shape.n_ff else 0, experts)


def _has_windows(shape: ModelShape) -> bool:
    return any(layer.window is not None for layer in shape.layers)


def _beside_host_experts(shape: ModelShape, n_cpu_moe: int, graph: _Graph) -> int:
    """A device whose layers' experts lie on the CPU: all, which leaves attention, or some."""
    if n_cpu_moe >= shape.n_layer:
        return graph.step(max(5 * _q_width(shape) + 2 * shape.n_embd, 3 * shape.n_ff))
    return graph.step(_widest_step(shape) + (6 if _has_windows(shape) else 2) * shape.n_embd)


def _host_experts(shape: ModelShape, graph: _Graph) -> int:
    """Host RAM where experts are computed there. Windows' masks are needed too late to make room for the experts."""
    used, n_embd, n_ff_exp = shape.n_expert_used, shape.n_embd, shape.n_ff_exp
    numbers = max(2 * used * n_embd + used * n_ff_exp + n_embd, 3 * used * n_ff_exp + 2 * n_embd)
    return graph.step(numbers, n_masks=1 if _has_windows(shape) else 0)
