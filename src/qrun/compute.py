"""The working memory of llama.cpp's compute graph: what one batch needs beside weights and KV cache.

Pure. ggml lays the graph's tensors out so that they share memory; the largest step decides. Each step is counted here
in F32 numbers a row (a token of the batch), by rules that were found by measurement and not derived: they meet the dry
runs of 46 models of 30 architectures at 512 to 131,072 tokens, on the CPU, on one device and on several
(docs/measurements/memory.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qrun.model import ModelShape
from qrun.placement import Placement

__all__ = ["HOST", "PIPELINE_COPIES", "Compute", "Layout", "compute_bytes", "padded"]

HOST = -1  # the owner of what lies in host RAM: the last place of every list of sums

_CELL_PADDING = 256  # llama-context.cpp pads each slot's context to it, llama-kv-cache-iswa.cpp each window
_F32_BYTES = 4
_MASK_ITEM_BYTES = 2  # the attention mask is f16
PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES: several devices work on several batches at a time

# Of all tokens of a batch but a few nobody asks for logits. Most graphs drop their rows within the last layer, behind
# its attention; these behind the last layer (llama.cpp src/models: build_inp_out_ids and where its rows are taken).
_ROWS_DROPPED_LATE = frozenset(
    {"gemma3n", "gemma4", "gpt-oss", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next"}
)
# Norms behind attention and feed-forward instead of before: no normed copy of a layer's input is held.
_NORMS_BEHIND = frozenset({"exaone4", "olmo2"})

# Layers that hand on several streams of embeddings where others hand on one (AltUp's inputs).
_STREAMS = {"gemma3n": 4}


@dataclass(frozen=True, slots=True)
class Compute:
    """Buffers on each device, and the one in host RAM."""

    device_bytes: tuple[int, ...]
    host_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Which device has which layer. `owners`: a device's index or HOST for each layer and, last, for the output head.

    `has_experts`: for each layer, whether its feed-forward is one of experts.
    """

    owners: tuple[int, ...]
    has_experts: tuple[bool, ...]
    n_devices: int

    @property
    def pipelined(self) -> bool:
        """Whether several devices work on several batches at a time: not where layers lie in host RAM too."""
        return self.n_devices > 1 and HOST not in self.owners

    def layers_on(self, device: int) -> tuple[int, ...]:
        """The layers of one device, or of the host."""
        return tuple(layer for layer, owner in enumerate(self.owners[:-1]) if owner == device)


def padded(cells: int) -> int:
    """`cells` rounded up as llama.cpp pads its cache."""
    return -(-cells // _CELL_PADDING) * _CELL_PADDING


def compute_bytes(
    shape: ModelShape, placement: Placement, layout: Layout, *, n_ctx: int, n_parallel: int, n_ubatch: int
) -> Compute:
    """The compute buffers for batches of `n_ubatch` tokens; more slots enlarge recurrent states alone."""
    batch = _Batch(shape, layout, n_ctx, n_parallel, min(n_ubatch, n_ctx * n_parallel))
    if placement.mode == "cpu":
        return Compute((), batch.step(HOST, 3))
    n_embd = shape.n_embd
    if placement.mode == "split":
        # Of models with experts the devices hold more here than alone; dense ones less, as no embeddings pass through.
        on_device = tuple(batch.on_device(device, 4 if shape.n_expert else 1) for device in range(layout.n_devices))
        return Compute(on_device, batch.step(HOST, 3))
    if placement.mode == "experts-on-cpu":
        n_cpu_moe = placement.n_cpu_moe or 0
        on_device = tuple(batch.beside_host_experts(device, n_cpu_moe) for device in range(layout.n_devices))
        return Compute(on_device, batch.host_experts())
    if layout.n_devices > 1:
        on_device = tuple(batch.on_device(device, 10 if device else 6) for device in range(layout.n_devices))
        return Compute(on_device, batch.bytes_of(5 * n_embd, batch.mask_bytes * PIPELINE_COPIES))
    return Compute((batch.on_device(0, 2),), batch.bytes_of(2 * n_embd, batch.mask_bytes))


class _Batch:
    """One batch of `rows` tokens on its way through the model."""

    def __init__(self, shape: ModelShape, layout: Layout, n_ctx: int, n_parallel: int, rows: int) -> None:
        self._shape = shape
        self._layout = layout
        self._n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._rows = rows
        self.mask_bytes = self._masks(range(shape.n_layer))

    def bytes_of(self, numbers_a_row: int, mask_bytes: int) -> int:
        """Bytes of a step that holds so many numbers for each row, beside its masks."""
        return _F32_BYTES * self._rows * numbers_a_row + mask_bytes

    def step(self, place: int, n_inputs: int) -> int:
        """The largest step of the layers in a place, beside `n_inputs` tensors as wide as the embeddings."""
        return self.bytes_of(self._widest(self._layout.layers_on(place), n_inputs), self.mask_bytes)

    def on_device(self, device: int, n_inputs: int) -> int:
        """A device's buffer. Several devices hold the masks and inputs of several batches."""
        layers, shape = self._layout.layers_on(device), self._shape
        copies = PIPELINE_COPIES if self._layout.pipelined else 1
        streams = _STREAMS.get(shape.architecture, 1)
        late = shape.architecture in _ROWS_DROPPED_LATE
        if not layers:
            # The head alone works on a few rows; where they are dropped late, all come over.
            has_head = self._layout.owners[-1] == device
            return self.bytes_of((copies + 1) * streams * shape.n_embd, 0) if has_head and late else 0
        if layers == (shape.n_layer - 1,) and not late:
            return self._last_layer(n_inputs, copies)
        numbers = self._widest(layers, n_inputs * (streams if copies > 1 else 1))
        numbers += self._layer_inputs(device, layers) if copies > 1 else 0
        alone = len(layers) == 1 and shape.recurrent_width  # a hybrid's last layer may be without attention
        masks = self._masks(layers) if alone else self.mask_bytes
        return self.bytes_of(numbers, masks * copies)

    def beside_host_experts(self, device: int, n_cpu_moe: int) -> int:
        """A device whose layers' experts lie on the CPU: all, which leaves attention, or some."""
        layers, shape = self._layout.layers_on(device), self._shape
        if not layers or layers[-1] >= n_cpu_moe:
            return self.bytes_of(self._widest(layers, 6 if _has_windows(shape) else 2), self.mask_bytes)
        attention = 3 * _latent_q(shape) or 5 * _q_width(shape) + 2 * shape.n_embd
        dense = self._ff_tensors() * shape.n_ff
        return self.bytes_of(max(attention, dense, self._recurrent(layers) + 2 * shape.n_embd), self.mask_bytes)

    def host_experts(self) -> int:
        """Host RAM where experts are computed there. Windows' masks come too late to make room for the experts."""
        shape = self._shape
        used, n_embd, n_ff_exp = shape.n_expert_used, shape.n_embd, shape.n_ff_exp
        numbers = max(2 * used * n_embd + used * n_ff_exp + n_embd, 3 * used * n_ff_exp + 2 * n_embd)
        return self.bytes_of(numbers, self.mask_bytes if _has_windows(shape) else 0)

    def _last_layer(self, n_inputs: int, copies: int) -> int:
        """A device that has only the last layer: behind its attention there are but a few rows left."""
        shape, last = self._shape, (self._shape.n_layer - 1,)
        heads, recurrent, masks = 2 * _head_widths(shape), self._recurrent(last), self._masks(last) * copies
        if copies == 1:
            return self.bytes_of(max(heads + 2 * shape.n_embd, recurrent), masks)
        inputs = n_inputs - 1 - (copies if shape.architecture in _NORMS_BEHIND else 0)
        return self.bytes_of(max(heads, recurrent) + inputs * shape.n_embd, masks)

    def _layer_inputs(self, device: int, layers: Sequence[int]) -> int:
        """What each layer is given besides: the first device makes it for all, the others take over their part."""
        width = self._shape.layer_input_width
        if device == 0:
            return (PIPELINE_COPIES + 1) * width * self._shape.n_layer
        return PIPELINE_COPIES * width * len(layers)

    def _widest(self, layers: Sequence[int], n_inputs: int) -> int:
        """Numbers a row of the widest step of those layers."""
        shape, inputs = self._shape, n_inputs * self._shape.n_embd
        q = 0 if _latent_q(shape) else _q_width(shape)
        steps = [3 * _latent_q(shape)]
        if recurrent := self._recurrent(layers):
            steps.append(recurrent + max(n_inputs, 3) * shape.n_embd)
        if shape.n_ff:
            steps.append(self._ff_tensors() * shape.n_ff + q + inputs)
        if any(self._layout.has_experts[layer] for layer in layers):
            used, n_ff_exp = shape.n_expert_used, shape.n_ff_exp
            by_token = (2 if shape.ffn_gated else 1) * used * shape.n_embd + used * n_ff_exp
            steps.append(max(by_token, self._ff_tensors() * used * n_ff_exp + q) + inputs)
        return max(steps)

    def _ff_tensors(self) -> int:
        """Tensors of a feed-forward's width that live at a time: gate, up and their product, or one."""
        return 3 if self._shape.ffn_gated else 1

    def _recurrent(self, layers: Sequence[int]) -> int:
        """Numbers a row of a recurrent layer's step, its new states of all slots among them."""
        state_bytes = max((self._shape.layers[layer].state_bytes for layer in layers), default=0)
        if not self._shape.recurrent_width or not state_bytes:
            return 0
        return self._shape.recurrent_width + self._n_parallel * state_bytes // (_F32_BYTES * self._rows)

    def _masks(self, layers: Sequence[int]) -> int:
        """One mask over the whole context, and one over the windows, where the layers have such."""
        of_layers = [self._shape.layers[layer] for layer in layers]
        cells = padded(self._n_ctx) if any(one.window is None and one.n_head_kv for one in of_layers) else 0
        window = max((one.window for one in of_layers if one.window is not None), default=0)
        if window:
            cells += padded(min(self._n_ctx, window + self._rows))
        return _MASK_ITEM_BYTES * self._rows * cells


def _head_widths(shape: ModelShape) -> int:
    """Numbers in all heads' output."""
    return shape.n_head * max(layer.head_dim_v or layer.head_dim_k for layer in shape.layers)


def _q_width(shape: ModelShape) -> int:
    """The same; a fused QKV tensor leaves no room for them to fill."""
    return 0 if shape.fused_qkv else _head_widths(shape)


def _latent_q(shape: ModelShape) -> int:
    """Queries of all heads against one compressed key (MLA); 0 for usual attention.

    They, the heads' output in the key's space and its reordered copy are the widest step of large models.
    """
    width = max((layer.head_dim_k for layer in shape.layers if layer.head_dim_k and not layer.head_dim_v), default=0)
    return shape.n_head * width


def _has_windows(shape: ModelShape) -> bool:
    return any(layer.window is not None for layer in shape.layers)
