"""GGUF files of real models' dimensions without their weights: a true header, then a hole as large as the weights.

llama.cpp's dry run reads no more than the header, so that memory figures of models of any size can be had, and were
recorded, without a download. Dimensions are those that the models' own repos publish (config.json).
"""

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter
from gguf import GGMLQuantizationType as Type

__all__ = ["MODELS", "Dims", "Tensor", "keys_of", "tensors_of", "write_sparse", "write_tensors"]

Tensor = tuple[str, tuple[int, ...], Type]


@dataclass(frozen=True)
class Dims:
    """A decoder's dimensions; `moe` is experts, experts used, width of an expert. `more` are further keys."""

    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    type: Type
    head_dim: int = 0
    tied: bool = False
    embd_type: Type | None = None
    output_type: Type = Type.Q6_K
    expert_type: Type | None = None
    moe: tuple[int, int, int] | None = None
    window: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    fused: bool = False  # one tensor for q, k and v, and one for gate and up (Phi)
    more: dict[str, object] = field(default_factory=dict)

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.head_dim or self.n_embd // self.n_head


MODELS = {
    "llama-3-8b": Dims("llama", 32, 4096, 14336, 32, 8, 128256, Type.Q4_K),
    "llama-3.2-1b": Dims("llama", 16, 2048, 8192, 32, 8, 128256, Type.Q8_0, tied=True),
    "llama-3.3-70b": Dims("llama", 80, 8192, 28672, 64, 8, 128256, Type.Q4_K),
    "mistral-nemo": Dims("llama", 40, 5120, 14336, 32, 8, 131072, Type.Q4_K, head_dim=128),
    "qwen2.5-14b": Dims("qwen2", 48, 5120, 13824, 40, 8, 152064, Type.Q4_K, qkv_bias=True),
    "qwen3-8b": Dims("qwen3", 36, 4096, 12288, 32, 8, 151936, Type.Q4_K, head_dim=128, qk_norm=True),
    "gemma-2-9b": Dims(
        "gemma2", 42, 3584, 14336, 16, 8, 256000, Type.Q4_0, 256, True, Type.Q6_K, window=4096, post_norms=True
    ),
    "gemma-3-27b": Dims(
        *("gemma3", 62, 5376, 21504, 32, 16, 262144, Type.Q4_0, 128, True, Type.Q6_K),
        window=1024,
        qk_norm=True,
        post_norms=True,
    ),
    "qwen3-30b-a3b": Dims(
        "qwen3moe", 48, 2048, 6144, 32, 4, 151936, Type.Q4_K, head_dim=128, qk_norm=True, moe=(128, 8, 768)
    ),
    "gemma-3-1b": Dims(
        *("gemma3", 26, 1152, 6912, 4, 1, 262144, Type.Q8_0, 256, True), window=512, qk_norm=True, post_norms=True
    ),
    "qwen2.5-0.5b": Dims("qwen2", 24, 896, 4864, 14, 2, 151936, Type.Q8_0, tied=True, qkv_bias=True),
    "qwen3-0.6b": Dims("qwen3", 28, 1024, 3072, 16, 8, 151936, Type.Q8_0, 128, True, qk_norm=True),
    "phi-4": Dims(
        *("phi3", 40, 5120, 17920, 40, 10, 100352, Type.Q4_K),
        fused=True,
        more={"rope.scaling.original_context_length": 16384},
    ),
    "mixtral-8x7b": Dims("llama", 32, 4096, 14336, 32, 8, 32000, Type.Q4_K, moe=(8, 2, 14336)),
    "gpt-oss-20b": Dims(
        *("gpt-oss", 24, 2880, 2880, 64, 8, 201088, Type.Q8_0, 64),
        output_type=Type.Q8_0,
        expert_type=Type.MXFP4,
        moe=(32, 4, 2880),
        window=128,
        qkv_bias=True,
    ),
}


def write_sparse(path: Path, dims: Dims) -> Path:
    """Write the header of a model of `dims`, and a hole for its weights."""
    return write_tensors(path, dims.arch, keys_of(dims), tensors_of(dims))


def keys_of(dims: Dims) -> dict[str, object]:
    """The metadata of a model of `dims`, without the architecture's name in front."""
    keys: dict[str, object] = {
        "context_length": 131072,
        "embedding_length": dims.n_embd,
        "block_count": dims.n_layer,
        "feed_forward_length": dims.n_ff,
        "attention.head_count": dims.n_head,
        "attention.head_count_kv": dims.n_head_kv,
        "attention.key_length": dims.head_width,
        "attention.value_length": dims.head_width,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": dims.head_width,
        "rope.freq_base": 500000.0,
        "vocab_size": dims.n_vocab,
    }
    if dims.window:
        keys["attention.sliding_window"] = dims.window
    if dims.moe:
        keys |= dict(zip(("expert_count", "expert_used_count", "expert_feed_forward_length"), dims.moe, strict=True))
    return keys | dims.more


def tensors_of(dims: Dims) -> list[Tensor]:
    """Every tensor of a model of `dims`: its name, its widths (the row first) and its type."""
    n_embd, table = dims.n_embd, (dims.n_embd, dims.n_vocab)
    tensors: list[Tensor] = [("token_embd.weight", table, dims.embd_type or dims.type)]
    for layer in range(dims.n_layer):
        of_layer = [*_attention(dims), *_norms(dims), *(_experts(dims) if dims.moe else _feed_forward(dims))]
        tensors += [(f"blk.{layer}.{name}", shape, type_) for name, shape, type_ in of_layer]
    tensors.append(("output_norm.weight", (n_embd,), Type.F32))
    if not dims.tied:
        tensors.append(("output.weight", table, dims.output_type))
    return tensors


def write_tensors(path: Path, arch: str, keys: dict[str, object], tensors: list[Tensor]) -> Path:
    """Write a header of these keys (under the architecture's name) and tensors, and a hole for their bytes."""
    writer = GGUFWriter(path, arch)
    writer.add_tokenizer_model("no_vocab")
    for key, value in keys.items():
        _add(writer, f"{arch}.{key}", value)
    data_bytes = 0
    for name, shape, type_ in tensors:
        block_size, type_size = GGML_QUANT_SIZES[type_]
        n_bytes = prod(shape) // block_size * type_size
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), n_bytes, raw_dtype=type_)
        data_bytes += _aligned(n_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(_aligned(path.stat().st_size) + data_bytes)
    return path


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // gguf.GGUF_DEFAULT_ALIGNMENT) * gguf.GGUF_DEFAULT_ALIGNMENT


def _add(writer: GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _attention(dims: Dims) -> list[Tensor]:
    q, kv = dims.n_head * dims.head_width, dims.n_head_kv * dims.head_width
    widths = {"qkv": q + 2 * kv} if dims.fused else {"q": q, "k": kv, "v": kv}
    tensors: list[Tensor] = [
        *((f"attn_{name}.weight", (dims.n_embd, width), dims.type) for name, width in widths.items()),
        ("attn_output.weight", (q, dims.n_embd), dims.type),
    ]
    if dims.qkv_bias:
        tensors += [(f"attn_{name}.bias", (width,), Type.F32) for name, width in widths.items()]
    if dims.qk_norm:
        tensors += [(f"attn_{name}_norm.weight", (dims.head_width,), Type.F32) for name in "qk"]
    if dims.arch == "gpt-oss":
        tensors += [("attn_sinks.weight", (dims.n_head,), Type.F32), ("attn_output.bias", (dims.n_embd,), Type.F32)]
    return tensors


def _norms(dims: Dims) -> list[Tensor]:
    names = ["attn_norm", "post_attention_norm" if dims.arch == "gpt-oss" else "ffn_norm"]
    if dims.post_norms:
        names += ["post_attention_norm", "post_ffw_norm"]
    return [(f"{name}.weight", (dims.n_embd,), Type.F32) for name in names]


def _feed_forward(dims: Dims) -> list[Tensor]:
    wide = (dims.n_embd, dims.n_ff)
    down: Tensor = ("ffn_down.weight", wide[::-1], dims.type)
    if dims.fused:
        return [("ffn_up.weight", (dims.n_embd, 2 * dims.n_ff), dims.type), down]
    return [("ffn_gate.weight", wide, dims.type), ("ffn_up.weight", wide, dims.type), down]


def _experts(dims: Dims) -> list[Tensor]:
    assert dims.moe is not None
    n_expert, _, width = dims.moe
    type_ = dims.expert_type or dims.type
    tensors: list[Tensor] = [
        ("ffn_gate_inp.weight", (dims.n_embd, n_expert), Type.F32),
        ("ffn_gate_exps.weight", (dims.n_embd, width, n_expert), type_),
        ("ffn_up_exps.weight", (dims.n_embd, width, n_expert), type_),
        ("ffn_down_exps.weight", (width, dims.n_embd, n_expert), type_),
    ]
    if dims.arch == "gpt-oss":
        tensors += [
            ("ffn_gate_inp.bias", (n_expert,), Type.F32),
            ("ffn_gate_exps.bias", (width, n_expert), Type.F32),
            ("ffn_up_exps.bias", (width, n_expert), Type.F32),
            ("ffn_down_exps.bias", (dims.n_embd, n_expert), Type.F32),
        ]
    return tensors
