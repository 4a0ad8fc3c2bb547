"""A model's shape, read from GGUF metadata as llama.cpp reads it.

Pure. The keys are those of llama.cpp's loader (`{architecture}.block_count` and so on); what an architecture does
differently stands in the tables here. An architecture that is not known is read by the common keys. `weights` adds the
bytes of the tensors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qrun.gguf_header import ArrayInfo, GgufHeader, TensorInfo
from qrun.model import LayerShape, ModelShape, Weights
from qrun.weights import layer_of, weights_of

__all__ = ["ShapeUnknown", "shape_of"]

_MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
_MAX_NUMBER = 2**31 - 1
_STATE_ITEM_BYTES = 4  # recurrent states are F32


class ShapeUnknown(ValueError):
    """A header that lacks the dimensions of a language model, or states impossible ones. One clause, no full stop."""


@dataclass(frozen=True, slots=True)
class _Window:
    """How an architecture slides: every `period`-th layer sees everything, the others `window` tokens.

    `dense_first` starts each period with the layer that sees everything. `window` None: only where the file has one.
    """

    period: int
    window: int | None = None
    dense_first: bool = False


# llama.cpp src/models/*.cpp: set_swa_pattern and load_swa_pattern of each architecture. Where the file brings a
# pattern of its own, that holds. Others ignore their file's window (phi3, qwen2, llama: whole context in the cache).
_WINDOWS: Mapping[str, _Window] = {
    "afmoe": _Window(4),
    "cohere2": _Window(4),
    "cohere2moe": _Window(4, dense_first=True),
    "exaone-moe": _Window(4, window=128),
    "exaone4": _Window(4, window=4096),
    "gemma2": _Window(2, window=4096),
    "gemma3": _Window(6),
    "gemma3n": _Window(5),
    "gpt-oss": _Window(2),
    "laguna": _Window(4, dense_first=True),
    "llama4": _Window(4, window=8192),
    "mellum": _Window(4),
    "muse-glimmer": _Window(4),
    "olmo2": _Window(4),
    "plamo3": _Window(8),
    "smallthinker": _Window(4, dense_first=True),
}
_WINDOW_IN_THE_CODE = {"llama4": 8192, "smallthinker": 4096}  # whatever the file says, unless it says 0
_EXAONE4_LAYERS_WITH_WINDOWS = 64

_ALL_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_RECURRENT_BUT_EVERY_NTH = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})
_BOTH_IN_EVERY_LAYER = frozenset({"falcon-h1"})
_NO_CACHE = frozenset(
    {
        "bert",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
    }
)
_GEMMA3N_LAYERS_WITH_CACHE = 20


def shape_of(headers: Sequence[GgufHeader]) -> tuple[ModelShape, Weights]:
    """The shape and weights of a model from the headers of all its shards, the first one first.

    Raises ShapeUnknown where they are no language model, or not all shards of one.
    """
    if not headers:
        raise ShapeUnknown("it has no file")
    keys = _Keys(headers[0].metadata)
    n_shards = keys.general("split.count", 1)
    if n_shards > 1 and n_shards != len(headers):
        raise ShapeUnknown(f"it has {len(headers)} of {n_shards} shards")
    n_all, n_layer = _layer_counts(keys)
    # Layers that predict further tokens are in the file, but llama.cpp loads them only for speculation.
    tensors = [tensor for header in headers for tensor in header.tensors if layer_of(tensor.name) < n_layer]
    return _model_shape(keys, tensors, n_all, n_layer), weights_of(tensors, n_layer)


class _Keys:
    """Metadata under the architecture's name. Numbers come checked: whole, not negative, of a sensible size."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise ShapeUnknown("it names no architecture")
        self.architecture = architecture

    def get(self, key: str) -> object:
        """The value as it stands, None where it is missing."""
        return self._metadata.get(f"{self.architecture}.{key}")

    def general(self, key: str, default: int) -> int:
        """A number that is not under the architecture's name."""
        return _number(key, self._metadata.get(key, default))

    def number(self, key: str, default: int | None = None) -> int:
        """One number. Raises ShapeUnknown where it is missing and there is no default."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise ShapeUnknown(f"it has no {self.architecture}.{key}")
        return _number(key, value)

    def per_layer(self, key: str, n_layer: int, default: int | None = None) -> tuple[int, ...]:
        """One number a layer; a single one holds for all."""
        value = self.get(key)
        if not isinstance(value, tuple):
            return (self.number(key, default),) * n_layer
        if len(value) < n_layer:
            raise ShapeUnknown(f"{self.architecture}.{key} has {len(value)} items for {n_layer} layers")
        return tuple(_number(key, item) for item in value[:n_layer])

    def n_tokens(self) -> int | None:
        """The size of the vocabulary, None where the file has none."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArrayInfo):
            return tokens.count
        return len(tokens) if isinstance(tokens, tuple) else None


def _number(key: str, value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise ShapeUnknown(f"its {key} is {value!r}")
    return int(value)


def _layer_counts(keys: _Keys) -> tuple[int, int]:
    """Blocks in the file, and those of them that generate (draft heads excluded)."""
    n_all = keys.number("block_count")
    n_layer = n_all - keys.number("nextn_predict_layers", 0)
    if not 0 < n_layer <= n_all <= _MAX_LAYERS:
        raise ShapeUnknown(f"it has {n_all} layers")
    return n_all, n_layer


def _model_shape(keys: _Keys, tensors: Sequence[TensorInfo], n_all: int, n_layer: int) -> ModelShape:
    n_embd = keys.number("embedding_length")
    recurrent = keys.architecture in _ALL_RECURRENT
    heads = keys.per_layer("attention.head_count", n_layer, 0 if recurrent else None)
    n_head = max(heads)
    if n_embd == 0 or (n_head == 0 and not recurrent):
        raise ShapeUnknown(f"it has {n_head} attention heads and embeddings {n_embd} wide")
    n_ctx_train = keys.number("context_length", 0)
    return ModelShape(
        architecture=keys.architecture,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_ff=_row(tensors, "ffn_down.weight"),
        n_vocab=_n_vocab(keys, tensors),
        n_ctx_train=n_ctx_train or None,
        layers=_layers(keys, n_all, n_layer, n_embd, heads),
        n_expert=keys.number("expert_count", 0),
        n_expert_used=max(keys.per_layer("expert_used_count", n_layer, 0)),
        n_ff_exp=_row(tensors, "ffn_down_exps.weight"),
        fused_qkv=any(tensor.name.endswith(".attn_qkv.weight") for tensor in tensors),
        ffn_gated=_gated(tensors),
        recurrent_width=_recurrent_width(tensors),
        layer_input_width=keys.number("embedding_length_per_layer_input", 0),
    )


def _gated(tensors: Sequence[TensorInfo]) -> bool:
    """Whether a feed-forward has a gate, be it in one tensor with up. Not known of one without tensors: most have."""
    up = next((one for one in tensors if one.name.endswith((".ffn_up.weight", ".ffn_up_exps.weight"))), None)
    if up is None:
        return True
    n_ff = max(_row(tensors, "ffn_down.weight"), _row(tensors, "ffn_down_exps.weight"))
    gates = (".ffn_gate.weight", ".ffn_gate_exps.weight", ".ffn_gate_up_exps.weight")
    return up.dims[1] > n_ff or any(one.name.endswith(gates) for one in tensors)


def _recurrent_width(tensors: Sequence[TensorInfo]) -> int:
    """Numbers a token in a recurrent layer's widest step (llama.cpp src/models: mamba-base.cpp, delta-net-base.cpp).

    Mamba: the projection, what was convolved, the scan's output and its product; of the delta net (Qwen3-Next), by
    measurement, five times what is convolved; of LFM2 what goes in and comes out. 0: none, or not known (RWKV).
    """
    convolved = _column(tensors, "ssm_conv1d.weight")
    projected = _column(tensors, "ssm_in.weight")
    if projected:
        return projected + convolved + 2 * _row(tensors, "ssm_out.weight")
    return 5 * convolved + _column(tensors, "shortconv.in_proj.weight") + 2 * _row(tensors, "shortconv.out_proj.weight")


def _column(tensors: Iterable[TensorInfo], suffix: str) -> int:
    """The longest column of the layers' tensors of that name."""
    return max((one.dims[1] for one in tensors if one.name.endswith(f".{suffix}") and len(one.dims) > 1), default=0)


def _row(tensors: Iterable[TensorInfo], suffix: str) -> int:
    """The longest row of the layers' tensors of that name: what a layer really has, whatever the metadata says."""
    return max((tensor.dims[0] for tensor in tensors if tensor.name.endswith(f".{suffix}")), default=0)


def _n_vocab(keys: _Keys, tensors: Iterable[TensorInfo]) -> int:
    for tensor in tensors:
        if tensor.name == "token_embd.weight" and len(tensor.dims) > 1:
            return tensor.dims[1]
    return keys.n_tokens() or keys.number("vocab_size", 0)


def _layers(keys: _Keys, n_all: int, n_layer: int, n_embd: int, heads: tuple[int, ...]) -> tuple[LayerShape, ...]:
    if keys.architecture in _NO_CACHE:
        return (LayerShape(),) * n_layer
    kv_heads = keys.per_layer("attention.head_count_kv", n_layer, max(heads))
    windows = _windows(keys, n_layer)
    states = _states(keys, n_layer, n_embd, heads, kv_heads)
    n_cached = _layers_with_cache(keys, n_all)
    dims = _head_dims(keys, n_embd, heads)
    both = keys.architecture in _BOTH_IN_EVERY_LAYER
    return tuple(
        LayerShape(window=windows[i])
        if i >= n_cached
        else LayerShape(state_bytes=states[i])
        if states[i] and not both
        else LayerShape(kv_heads[i], *dims[windows[i] is not None], window=windows[i], state_bytes=states[i])
        for i in range(n_layer)
    )


def _head_dims(keys: _Keys, n_embd: int, heads: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Widths of a key and a value of one head, in layers that see everything and in those with a window."""
    usual = n_embd // next((n for n in heads if n), 1)
    k, v = keys.number("attention.key_length", usual), keys.number("attention.value_length", usual)
    k_swa, v_swa = keys.number("attention.key_length_swa", k), keys.number("attention.value_length_swa", v)
    # MLA: the cache holds one compressed key a token, and values are taken out of it.
    if keys.number("attention.key_length_mla", 0) and keys.number("attention.value_length_mla", 0):
        v = v_swa = 0
    return (k, v), (k_swa, v_swa)


def _layers_with_cache(keys: _Keys, n_all: int) -> int:
    """The first layers have a cache of their own, the others read theirs."""
    if keys.architecture == "gemma3n":
        return _GEMMA3N_LAYERS_WITH_CACHE
    return n_all - min(n_all, keys.number("attention.shared_kv_layers", 0))


def _windows(keys: _Keys, n_layer: int) -> tuple[int | None, ...]:
    """Each layer's sliding window, None where it sees everything."""
    window = _window_tokens(keys)
    if not window:
        return (None,) * n_layer
    pattern = keys.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        slides = keys.per_layer("attention.sliding_window_pattern", n_layer)
        return tuple(window if sliding else None for sliding in slides)
    known = _WINDOWS.get(keys.architecture)
    if known is None:
        return (None,) * n_layer
    period = keys.number("attention.sliding_window_pattern", known.period)
    return tuple(None if _sees_all(i, period, dense_first=known.dense_first) else window for i in range(n_layer))


def _window_tokens(keys: _Keys) -> int:
    """The width of the architecture's windows; 0: it has none."""
    known = _WINDOWS.get(keys.architecture)
    if keys.architecture == "exaone4" and keys.number("block_count") != _EXAONE4_LAYERS_WITH_WINDOWS:
        return 0
    window = keys.number("attention.sliding_window", (known.window or 0) if known else 0)
    if window and keys.architecture in _WINDOW_IN_THE_CODE:
        return _WINDOW_IN_THE_CODE[keys.architecture]
    return window


def _sees_all(layer: int, period: int, *, dense_first: bool) -> bool:
    if period == 0:
        return False
    return layer % period == (0 if dense_first else period - 1)


def _states(
    keys: _Keys, n_layer: int, n_embd: int, heads: tuple[int, ...], kv_heads: tuple[int, ...]
) -> tuple[int, ...]:
    """Bytes of each layer's recurrent state for one sequence, 0 for layers of attention."""
    state_bytes = _STATE_ITEM_BYTES * _state_items(keys, n_embd, heads[0])
    if not state_bytes:
        return (0,) * n_layer
    return tuple(state_bytes * recurs for recurs in _recurrent_layers(keys, n_layer, kv_heads))


def _recurrent_layers(keys: _Keys, n_layer: int, kv_heads: tuple[int, ...]) -> Iterable[bool]:
    if keys.architecture in _ALL_RECURRENT | _BOTH_IN_EVERY_LAYER:
        return (True for _ in range(n_layer))
    if keys.get("attention.recurrent_layers") is not None:
        return (bool(recurs) for recurs in keys.per_layer("attention.recurrent_layers", n_layer))
    if keys.architecture in _RECURRENT_BUT_EVERY_NTH:
        interval = keys.number("full_attention_interval", 4) or 1
        return ((i + 1) % interval != 0 for i in range(n_layer))
    # Nemotron-H has layers of a feed-forward network alone.
    ff = keys.per_layer("feed_forward_length", n_layer, 0) if keys.architecture.startswith("nemotron_h") else ()
    return (kv_heads[i] == 0 and not (ff and ff[i]) for i in range(n_layer))


def _state_items(keys: _Keys, n_embd: int, n_head: int) -> int:
    """Numbers in one layer's state: llama.cpp's n_embd_r + n_embd_s (llama-hparams.cpp)."""
    if head_size := keys.number("wkv.head_size", 0):
        return keys.number("token_shift_count", 2) * n_embd + n_embd * head_size
    if cache := keys.number("shortconv.l_cache", 0):
        return n_embd * (cache - 1)
    conv = keys.number("ssm.conv_kernel", 0)
    if head_dim := keys.number("kda.head_dim", 0):
        inner = n_head * head_dim
        return 3 * (conv - 1 if conv else 3) * inner + head_dim * inner
    inner, state = keys.number("ssm.inner_size", 0), keys.number("ssm.state_size", 0)
    rows = max(0, conv - 1)
    return rows * (inner + 2 * keys.number("ssm.group_count", 0) * state) + state * inner
