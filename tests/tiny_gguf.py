"""Whole GGUF files of a few kilobytes: a llama of two layers with random weights, written by the `gguf` package."""

from pathlib import Path

import gguf
import numpy as np
from gguf import quants

N_EMBD, N_FF, N_VOCAB, N_LAYER = 32, 64, 96, 2

_MATRICES = {
    "attn_q": (N_EMBD, N_EMBD),
    "attn_k": (N_EMBD, N_EMBD),
    "attn_v": (N_EMBD, N_EMBD),
    "attn_output": (N_EMBD, N_EMBD),
    "ffn_gate": (N_FF, N_EMBD),
    "ffn_up": (N_FF, N_EMBD),
    "ffn_down": (N_EMBD, N_FF),
}


def write_tiny_gguf(
    path: Path,
    *,
    tensor_type: str = "Q8_0",
    file_type: int | None = 7,
    architecture: str = "llama",
    n_vocab: int = N_VOCAB,
    **keys: object,
) -> Path:
    """A model at `path`; `keys` are further metadata, with `__` for the dots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    _add_keys(writer, file_type, n_vocab, keys)
    for name, rows in _tensors(n_vocab):
        _add_tensor(writer, name, rows, tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_keys(writer: gguf.GGUFWriter, file_type: int | None, n_vocab: int, keys: dict[str, object]) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(256)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_vocab_size(n_vocab)
    if file_type is not None:
        writer.add_file_type(file_type)
    for key, value in keys.items():
        name = key.replace("__", ".")
        writer.add_uint32(name, value) if isinstance(value, int) else writer.add_string(name, str(value))


def _tensors(n_vocab: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(3)
    shapes = {"token_embd.weight": (n_vocab, N_EMBD)}
    for layer in range(N_LAYER):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in _MATRICES.items()}
    return [(name, random.standard_normal(shape, dtype=np.float32)) for name, shape in shapes.items()]


def _add_tensor(writer: gguf.GGUFWriter, name: str, rows: np.ndarray, tensor_type: str) -> None:
    kind = gguf.GGMLQuantizationType[tensor_type]
    writer.add_tensor(name, quants.quantize(rows, kind), raw_dtype=kind)
