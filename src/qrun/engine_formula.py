"""The memory of engines other than llama.cpp, by formula: weights, the KV cache in the engine's own layout, buffers.

Pure. Nothing of this has been measured against the engines themselves, for want of GPUs: `memory` marks every figure
"formula". Where a rule is from is said beside it. Read from the sources of mlx-lm 0.32.2, exllamav2 0.3.2 and exllamav3
1.6.5; vLLM's from its documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from qrun.model import LayerShape, ModelShape, Weights
from qrun.request import KvType
from qrun.units import GIB

__all__ = ["EngineParts", "engine_parts"]

_BLOCK = 32  # numbers; the sizes of cache types are given for as many
_HALF_BYTES = 2
_LOGITS_BYTES = 4


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What a model takes in all: bytes on the devices together, what each device needs besides, and host RAM."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int  # on each device
    host_bytes: int


@dataclass(frozen=True, slots=True)
class _Rules:
    """How an engine lays its memory out. `chunk` None: a prompt is computed as one."""

    page: int  # tokens by which a cache grows
    chunk: int | None  # tokens of a prompt that are computed at a time
    block_bytes: Mapping[KvType, int]
    keeps_windows: bool = False  # layers with a window keep no more than that
    embeds_on_host: bool = False
    unpacks_weights: bool = False  # prompts are computed with the largest matrix unpacked to 16 bits
    copies_cache: bool = False  # a cache that grows is copied, a layer at a time
    fixed_bytes: int = 0  # for each device


# A scale of 16 bits for 32 numbers (exllamav2 cache.py: shape_s; exllamav3 cache/quant.py: qshape_s), or scale and bias
# for 64 (mlx_lm models/cache.py: QuantizedKVCache): the same bytes as ggml's q8_0 and q4_0.
_SCALED: Mapping[KvType, int] = {"f16": 64, "q8_0": 34, "q4_0": 18}
_EXL = _Rules(page=256, chunk=2048, block_bytes=_SCALED, embeds_on_host=True, unpacks_weights=True)
_RULES: Mapping[str, _Rules] = {
    # generate.py: BatchGenerator's prefill_step_size; cache.py: step, RotatingKVCache, growth by concatenation.
    "mlx": _Rules(page=256, chunk=2048, block_bytes=_SCALED, keeps_windows=True, copies_cache=True),
    # config.py: max_input_len; model.py: embed_cpu; linear.py: temp_dq. One cache for all layers alike.
    "exllamav2": _EXL,
    # generator.py: max_chunk_size; constants.py: PAGE_SIZE; the embedding module prefers the CPU.
    "exllamav3": _EXL,
    # Blocks of 16 tokens; fp8 without scales. 0.6 GiB: CUDA graphs, torch.compile and the rest, as kvplan 0.1.1 (PyPI)
    # puts them for an 8B model on one L4. vLLM takes the rest of its share of the card for more cache in any case.
    "vllm": _Rules(
        page=16,
        chunk=2048,
        block_bytes={"f16": 64, "q8_0": 32, "q4_0": 32},
        keeps_windows=True,
        fixed_bytes=6 * GIB // 10,
    ),
    # DynamicCache in 16 bits whatever is asked for; generate() computes a prompt as one.
    "transformers": _Rules(page=1, chunk=None, block_bytes={"f16": 64, "q8_0": 64, "q4_0": 64}, copies_cache=True),
}


def engine_parts(
    engine: str, shape: ModelShape, weights: Weights, *, n_ctx: int, n_parallel: int, kv_cache_type: KvType
) -> EngineParts:
    """The parts for `n_parallel` sequences of `n_ctx` tokens. An engine that is not known counts as transformers."""
    rules = _RULES.get(engine, _RULES["transformers"])
    rows = min(rules.chunk or n_ctx, n_ctx * n_parallel)
    layers = [n_parallel * _layer_bytes(rules, layer, n_ctx, rows, kv_cache_type) for layer in shape.layers]
    # The head of tied embeddings is a copy on the device where the input's table is kept in host RAM.
    on_host = weights.token_embd_bytes if rules.embeds_on_host else 0
    on_device = weights.total_bytes - (0 if weights.tied else on_host)
    compute = _activations(shape, rows, n_parallel) + rules.fixed_bytes
    if rules.unpacks_weights:
        compute += _HALF_BYTES * shape.n_embd * max(shape.n_ff, shape.n_ff_exp, shape.n_embd)
    if rules.copies_cache:
        compute += max(layers, default=0)
    return EngineParts(on_device, sum(layers), compute, on_host)


def _layer_bytes(rules: _Rules, layer: LayerShape, n_ctx: int, rows: int, kv_cache_type: KvType) -> int:
    """One layer's cache of one sequence. A window is kept with the chunk that moves over it."""
    kept = n_ctx
    if layer.window is not None and rules.keeps_windows:
        kept = min(n_ctx, layer.window + rows)
    tokens = -(-kept // rules.page) * rules.page
    items = layer.n_head_kv * (layer.head_dim_k + layer.head_dim_v)
    return tokens * items * rules.block_bytes[kv_cache_type] // _BLOCK + layer.state_bytes


def _activations(shape: ModelShape, rows: int, n_parallel: int) -> int:
    """One chunk's numbers in 16 bits at the widest step, and a row of logits a sequence in 32.

    The step: gate, up and their product, or the experts' in use, beside the stream, its normed copy and the result.
    """
    widest = max(3 * shape.n_ff, 3 * shape.n_expert_used * shape.n_ff_exp, _attention_width(shape))
    return _HALF_BYTES * rows * (widest + 3 * shape.n_embd) + _LOGITS_BYTES * n_parallel * shape.n_vocab


def _attention_width(shape: ModelShape) -> int:
    """Queries and the heads' output, keys and values."""
    widths = [
        2 * shape.n_head * (layer.head_dim_v or layer.head_dim_k)
        + layer.n_head_kv * (layer.head_dim_k + layer.head_dim_v)
        for layer in shape.layers
    ]
    return max(widths, default=0)
