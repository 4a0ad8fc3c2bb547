"""Files of the listing's repos that the listing itself lacks: bases, configs of quants, and repos of further formats.

Dimensions are the published ones (configs.jsonl). A size is parameters times bits: near the real one, not equal to it.
"""

import json
import re
from collections.abc import Mapping

__all__ = ["ARCHITECTURES", "Files", "base_files", "gguf_facts", "made_up_files", "mlx_config", "n_params"]

Files = Mapping[str, bytes | int]

_SHARD_BYTES = 4_990_000_000  # where transformers begins a new file; EXL2 at 8 GB
_EXL2_SHARD_BYTES = 8_000_000_000
# llama.cpp's names for the `model_type` of a config.json, where they differ.
ARCHITECTURES = {
    "mistral": "llama",
    "mixtral": "llama",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
    "gpt_oss": "gpt-oss",
}
# What Gemma3TextConfig of transformers says where a published config leaves it out.
_GEMMA3_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}


def base_files(base_repo_id: str, config: Mapping | None) -> Files:
    """An unquantized base: its card, and its config and weights where its dimensions are known."""
    card = {"README.md": f"---\nlibrary_name: transformers\n---\n# {base_repo_id}\n".encode()}
    if config is None:
        return card
    return {**card, "config.json": _bytes(config), **_shards("model", 2 * n_params(config), _SHARD_BYTES)}


def mlx_config(repo_id: str, config: Mapping) -> Mapping | None:
    """The config.json of an MLX copy; None where the name does not tell how it is quantized."""
    name = repo_id.lower()
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    bits = re.search(r"(\d)-?bit", name)
    if "mxfp4" in name:
        quantization: Mapping = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    elif bits:
        quantization = {"group_size": 64, "bits": int(bits.group(1))}
    else:
        return None if "dwq" in name else plain  # else an MLX repo is in 16 bits
    return {**plain, "quantization": quantization, "quantization_config": quantization}


def made_up_files(row: Mapping, config: Mapping | None) -> tuple[Files, Mapping[str, Files]]:
    """The files of main and of each branch of a row of other_formats.jsonl."""
    n = n_params(config) if config else _params_by_name(row["base_repo_id"])
    kind, branches = row["format"], [name for name in row.get("branches", []) if name != "main"]
    card: Files = {"README.md": f"---\nlibrary_name: transformers\n---\n# {row['repo_id']}\n".encode()}
    if kind in ("exl2", "exl3") and not row.get("bits"):
        made = {branch: _exl_branch(row, branch, n, config) for branch in branches}
        return {**card, "measurement.json": b"{}"}, made
    told = row.get("config_quantization") or (_exl(kind, row["bits"]) if kind in ("exl2", "exl3") else None)
    size_bytes = row.get("size_bytes") or (int(n * row["bits"] / 8) if n else 0)
    weights = _shards("output" if kind == "exl2" else "model", size_bytes, _SHARD_BYTES)
    main = {**card, **_config_with(kind, config, told, bits=row["bits"]), **weights}
    return main, dict.fromkeys(branches, main)


def gguf_facts(config: Mapping) -> Mapping[str, object]:
    """What the Hub tells of a repo of GGUFs (`expand=gguf`): one value for all its files."""
    text = text_config(config)
    kind = str(text["model_type"])
    return {
        "total": n_params(config),
        "architecture": ARCHITECTURES.get(kind, kind),
        "context_length": text["max_position_embeddings"],
    }


def text_config(config: Mapping) -> Mapping:
    """The language part, with what the published file leaves to transformers' defaults."""
    text = config.get("text_config")
    return _GEMMA3_DEFAULTS | text if text else config


def n_params(config: Mapping) -> int:
    """The parameters of a decoder's matrices; norms and biases, under a thousandth, are left out."""
    text = text_config(config)
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    head = text.get("head_dim") or width // text["num_attention_heads"]
    attention = 2 * width * head * (text["num_attention_heads"] + text["num_key_value_heads"])
    experts = text.get("num_experts") or text.get("num_local_experts") or 1
    wide = text.get("moe_intermediate_size") or text["intermediate_size"]
    tables = text["vocab_size"] * width * (1 if text["tie_word_embeddings"] else 2)
    return tables + layers * (attention + 3 * width * wide * experts)


def _exl_branch(row: Mapping, branch: str, n: int | None, config: Mapping | None) -> Files:
    bits = _bits_of_branch(branch)
    size_bytes = row.get("size_by_branch", {}).get(branch) or (int(n * bits / 8) if n else 0)
    told = row.get("config_quantization") or _exl(row["format"], bits)
    name, most = ("output", _EXL2_SHARD_BYTES) if row["format"] == "exl2" else ("model", _EXL2_SHARD_BYTES)
    return {**_config_with(row["format"], config, told, bits=bits), **_shards(name, size_bytes, most)}


def _bits_of_branch(branch: str) -> float:
    found = re.match(r"(\d+)[._](\d+)", branch)
    if found is None:
        raise ValueError(f"no bits in the name of the branch {branch!r}")
    return float(f"{found.group(1)}.{found.group(2)}")


def _exl(kind: str, bits: float) -> Mapping:
    return {"quant_method": kind, "bits": bits, "head_bits": 6}


def _config_with(kind: str, config: Mapping | None, told: Mapping | None, *, bits: float) -> Files:
    """A copy's config.json; none where the dimensions or the quantization are not known: a wrong one would mislead."""
    if config is None or (told is None and bits != 16):
        return {}
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    if told is None:
        return {"config.json": _bytes(plain)}
    keys = ("quantization", "quantization_config") if kind == "mlx" else ("quantization_config",)
    return {"config.json": _bytes(plain | dict.fromkeys(keys, told))}


def _shards(name: str, size_bytes: int, most_bytes: int) -> Files:
    if not size_bytes:
        return {}
    count = -(-size_bytes // most_bytes)
    if count == 1:
        return {f"{name}.safetensors": size_bytes}
    sizes = [most_bytes] * (count - 1) + [size_bytes - most_bytes * (count - 1)]
    return {f"{name}-{n:05}-of-{count:05}.safetensors": size for n, size in enumerate(sizes, 1)}


def _params_by_name(base_repo_id: str) -> int | None:
    found = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", base_repo_id.lower())
    return int(float(found.group(1)) * 1e9) if found else None


def _bytes(config: Mapping) -> bytes:
    return json.dumps(config, indent=2).encode()
