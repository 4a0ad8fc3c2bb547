"""True GGUF headers for files of which the listing knows name and size: the base's dimensions, the label's types.

The mix of types follows llama.cpp's llama-quant.cpp, without its special cases; a model whose tensors would not come
within a tenth of its published size keeps its zeros. Vocabularies are as large as the real ones.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from math import prod

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Type

from hub_data_files import Files, text_config
from hub_emulator_blobs import Blob
from sparse_gguf import Dims, Tensor, keys_of, tensors_of

__all__ = ["header_of", "with_headers"]

_WITHIN = 0.1  # of the published size
_ALIGNMENT = 32
_ROOM_BYTES = 512 * 1024  # for everything but the vocabulary: 94 layers of 13 tensors take 80 KB
_TOKEN_BYTES, _MERGE_BYTES = 8, 17  # each has 8 more for its length
_SHARD = re.compile(r"^(.*?)(?:-(\d{5})-of-(\d{5}))?\.gguf$", re.IGNORECASE)
_LABEL = re.compile(r"(?:^|[-._])((?:IQ\d_[A-Z]+|Q\d_K(?:_[A-Z]+)?|Q\d_[01]|BF16|F16|MXFP4))$", re.IGNORECASE)

# Which types a label stands for: its common type, and those of single parts where they differ. `more` is what the
# "more bits" layers get (use_more_bits in llama-quant.cpp: the first and last eighth, and every third between).
_PARTS: Mapping[str, Mapping[str, Type]] = {
    "Q2_K": {"v": Type.Q4_K, "down": Type.Q3_K, "o": Type.Q3_K},
    "Q3_K_M": {"v": Type.Q4_K, "o": Type.Q4_K, "down_more": Type.Q4_K},
    "Q3_K_L": {"v": Type.Q5_K, "o": Type.Q5_K, "down": Type.Q5_K},
    "Q4_K_M": {"v_more": Type.Q6_K, "down_more": Type.Q6_K},
    "Q5_K_M": {"v_more": Type.Q6_K, "down_more": Type.Q6_K},
    "IQ3_M": {"v": Type.Q4_K, "o": Type.Q4_K},
}
# gpt-oss is published with experts in MXFP4 and the rest wide.
_COMMON = {"IQ3_M": Type.IQ3_S, "IQ3_XS": Type.IQ3_S, "IQ2_M": Type.IQ2_S, "MXFP4": Type.Q8_0}
_SAME_AS = {"Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K"}
_UNSLOTH = {"Q3_K_XL": "Q3_K_M", "Q4_K_XL": "Q4_K_M", "Q5_K_XL": "Q5_K_M", "Q6_K_XL": "Q6_K", "Q2_K_XL": "Q2_K"}
# Rows that 256 does not divide fall back to a type of 32 (llama-quant.cpp, tensor_type_fallback).
_FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}


def with_headers(repo_id: str, files: Files, base: str, config: Mapping) -> Files:
    """The same files, with blobs that begin with a true header where the label and the size allow one."""
    made: dict[str, object] = {}
    for label, shards in _models(files).items():
        sizes = [files[path] for path in shards]
        parts = _parts(base, label[1], config, tuple(sizes)) if all(isinstance(size, int) for size in sizes) else None
        made |= {path: _blob(repo_id, path, part) for path, part in zip(shards, parts or (), strict=False)}
    return {path: made.get(path, held) for path, held in files.items()}


@dataclass(frozen=True)
class _Part:
    """One file of a model: number `no` of `count`, and its tensors."""

    base: str
    label: str
    dims: Dims
    no: int
    count: int
    tensors: tuple[Tensor, ...]
    n_tensors: int  # of all files

    @property
    def header_bytes(self) -> int:
        """How long the header is made: the vocabulary stands in the first file alone."""
        of_vocabulary = (_TOKEN_BYTES + _MERGE_BYTES + 16) * self.dims.n_vocab
        return _aligned(_ROOM_BYTES + (of_vocabulary if self.no == 0 else 0))

    @property
    def size_bytes(self) -> int:
        return self.header_bytes + sum(_aligned(_n_bytes(tensor)) for tensor in self.tensors)


def header_of(part: _Part) -> bytes:
    """The header of a file, as GGUF version 3 has it, padded by a key of its own to `part.header_bytes`."""
    infos, offset = [], 0
    for name, widths, kind in part.tensors:
        infos.append(_string(name) + struct.pack(f"<I{len(widths)}QIQ", len(widths), *widths, kind, offset))
        offset += _aligned(_n_bytes((name, widths, kind)))
    keys = [_string(key) + _value(value) for key, value in _keys(part).items()]
    if part.no == 0:
        keys.append(_string("tokenizer.ggml.tokens") + _strings(part.dims.n_vocab, _TOKEN_BYTES))
        keys.append(_string("tokenizer.ggml.merges") + _strings(part.dims.n_vocab, _MERGE_BYTES))
    padding = _string("emulator.padding") + struct.pack("<IIQ", 9, 0, 0)
    used = 24 + sum(map(len, keys)) + len(padding) + sum(map(len, infos))
    n_padding = part.header_bytes - used
    keys.append(_string("emulator.padding") + struct.pack("<IIQ", 9, 0, n_padding) + bytes(n_padding))
    return struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)


def _models(files: Files) -> dict[tuple[str, str], list[str]]:
    """The files of each model, its shards in order, by the name without the shard and its label."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(files):
        shard = _SHARD.match(path)
        label = _LABEL.search(shard.group(1)) if shard and "mmproj" not in path.lower() else None
        if shard and label:
            unsloth = "UD-" in path
            name = label.group(1).upper()
            found.setdefault((shard.group(1), _UNSLOTH.get(name, name) if unsloth else name), []).append(path)
    return found


def _parts(base: str, label: str, config: Mapping, sizes: tuple[int, ...]) -> tuple[_Part, ...] | None:
    common = _common_type(label)
    if common is None:
        return None
    dims = _dims(config, common)
    tensors = tuple((name, widths, _type(name, widths, kind, label, dims)) for name, widths, kind in tensors_of(dims))
    groups = _cut(tensors, sizes)
    count = len(sizes)
    parts = tuple(_Part(base, label, dims, no, count, group, len(tensors)) for no, group in enumerate(groups))
    made = sum(part.size_bytes for part in parts)
    return parts if abs(made - sum(sizes)) <= _WITHIN * sum(sizes) else None


def _cut(tensors: tuple[Tensor, ...], sizes: tuple[int, ...]) -> list[tuple[Tensor, ...]]:
    """The tensors of each file, in order, in the proportion of the files' sizes."""
    total, share = sum(map(_n_bytes, tensors)), sum(sizes)
    ends = [total * sum(sizes[: n + 1]) / share for n in range(len(sizes))]
    groups: list[list[Tensor]] = [[] for _ in sizes]
    n_before, no = 0, 0
    for tensor in tensors:
        while no < len(sizes) - 1 and n_before >= ends[no]:
            no += 1
        groups[no].append(tensor)
        n_before += _n_bytes(tensor)
    return [tuple(group) for group in groups]


def _blob(repo_id: str, path: str, part: _Part) -> Blob:
    claimed = sha256(f"{repo_id}\0{path}\0{part.size_bytes}".encode()).hexdigest()
    return Blob(part.size_bytes, lfs=True, claimed_sha256=claimed, make_head=partial(header_of, part))


def _common_type(label: str) -> Type | None:
    name = _SAME_AS.get(label, label)
    if name in _COMMON:
        return _COMMON[name]
    return Type.__members__.get(name) or Type.__members__.get(re.sub(r"_[SML]$", "", name))


def _type(name: str, widths: tuple[int, ...], kind: Type, label: str, dims: Dims) -> Type:
    if kind is Type.F32 or len(widths) == 1 or kind is Type.MXFP4:
        return kind
    chosen = _wanted_type(name, label, dims)
    divides = widths[0] % GGML_QUANT_SIZES[chosen][0] == 0
    return chosen if divides else _FALLBACK.get(chosen, Type.IQ4_NL)


def _wanted_type(name: str, label: str, dims: Dims) -> Type:
    same, common = _SAME_AS.get(label, label), dims.type
    if name == "output.weight" or (name == "token_embd.weight" and dims.tied):
        if label != same:
            return Type.Q8_0  # the _L and _XL of Bartowski: tables in 8 bits
        return common if common in (Type.Q8_0, Type.F16, Type.BF16) else Type.Q6_K
    if name == "token_embd.weight":
        return Type.Q8_0 if label != same else common
    parts = _PARTS.get(same, {})
    part = {"attn_v": "v", "attn_output": "o", "ffn_down": "down", "ffn_down_exps": "down"}.get(name.split(".")[-2], "")
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    if f"{part}_more" in parts and _has_more_bits(layer, dims.n_layer):
        return parts[f"{part}_more"]
    return parts.get(part, common)


def _has_more_bits(layer: int, n_layer: int) -> bool:
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def _dims(config: Mapping, common: Type) -> Dims:
    """A published config in the terms of sparse_gguf."""
    text = text_config(config)
    kind = text["model_type"]
    n_expert = text.get("num_experts") or text.get("num_local_experts")
    width = text.get("moe_intermediate_size") or text["intermediate_size"]
    arch = {
        "mistral": "llama",
        "mixtral": "llama",
        "qwen3_moe": "qwen3moe",
        "gemma3_text": "gemma3",
        "gpt_oss": "gpt-oss",
    }
    return Dims(
        arch.get(kind, kind),
        text["num_hidden_layers"],
        text["hidden_size"],
        text["intermediate_size"],
        text["num_attention_heads"],
        text["num_key_value_heads"],
        text["vocab_size"],
        common,
        text.get("head_dim") or 0,
        text["tie_word_embeddings"],
        expert_type=Type.MXFP4 if kind == "gpt_oss" else None,
        moe=(n_expert, text["num_experts_per_tok"], width) if n_expert else None,
        window=text.get("sliding_window"),
        qkv_bias=kind in ("qwen2", "gpt_oss"),
        qk_norm=kind in ("qwen3", "qwen3_moe", "gemma3_text"),
        post_norms=kind in ("gemma2", "gemma3_text"),
        fused=kind == "phi3",
        more={"context_length": text["max_position_embeddings"], "rope.freq_base": float(text.get("rope_theta", 1e6))},
    )


def _keys(part: _Part) -> dict[str, object]:
    split = {"split.no": part.no, "split.count": part.count, "split.tensors.count": part.n_tensors}
    if part.no:
        return split
    file_type = LlamaFileType.__members__.get(f"MOSTLY_{_SAME_AS.get(part.label, part.label)}")
    general = {
        "general.architecture": part.dims.arch,
        "general.type": "model",
        "general.name": part.base.partition("/")[2],
        "general.quantization_version": 2,
    }
    general |= {} if file_type is None else {"general.file_type": int(file_type)}
    keys = {f"{part.dims.arch}.{key}": value for key, value in keys_of(part.dims).items()}
    return general | keys | {"tokenizer.ggml.model": "gpt2"} | (split if part.count > 1 else {})


def _value(value: object) -> bytes:
    """A value with its GGUF type: 4 u32, 6 f32, 7 bool, 8 string."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + _string(str(value))


@lru_cache(maxsize=8)
def _strings(count: int, width: int) -> bytes:
    """A list of `count` strings of the same width, so that its length is known beforehand."""
    items = (struct.pack(f"<Q{width}s", width, b"%0*x" % (width, n)) for n in range(count))
    return struct.pack("<IIQ", 9, 8, count) + b"".join(items)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _n_bytes(tensor: Tensor) -> int:
    _, widths, kind = tensor
    block_size, type_size = GGML_QUANT_SIZES[kind]
    return prod(widths) // block_size * type_size


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
