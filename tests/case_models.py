"""Real models with their published files, as values: what the known right answers and the guides' rows choose among.

Weights are those that a decision has before any header is read: from config.json's dimensions, label and size.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from qrun.model import Candidate, ModelFile
from qrun.shape_config import params_of_config, shape_of_config
from qrun.source import FoundModel
from qrun.weights_formula import weights_by_formula

DATA = Path(__file__).parent / "data"
# config.json of which file, and the context where that model's own differs.
_CONFIGS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama-3-8b", 8192),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama-3-8b", 131072),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama-3.3-70b", 131072),
    "Qwen/Qwen2.5-14B-Instruct": ("qwen2.5-14b", 32768),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": ("qwen3-30b-a3b", 262144),
    "google/gemma-3-27b-it": ("gemma-3-27b", 131072),
    "openai/gpt-oss-20b": ("gpt-oss-20b", 131072),
}
# Of 16-bit embeddings and head, as a part of the layers' format: bits per weight (label_types.py).
_OUTSIDE_BITS = {"exl2": (16, 6), "exl3": (16, 6), "awq": (16, 16), "gptq": (16, 16), "bnb": (16, 16), "fp8": (16, 16)}


def table(name):
    """A table of tests/data, one mapping a row."""
    lines = [line.split("\t") for line in (DATA / name).read_text().splitlines() if line and not line.startswith("#")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@cache
def dimensions(base):
    """Shape and parameters of a base model."""
    name, n_ctx = _CONFIGS[base]
    config = json.loads((DATA / "configs" / f"{name}.json").read_text())["config"]
    return replace(shape_of_config(config), n_ctx_train=n_ctx), params_of_config(config)


@cache
def ggufs(base):
    """Every GGUF file of the base in case_candidates.tsv."""
    rows = {(row["repo_id"], row["path"]): row for row in table("case_candidates.tsv") if row["base_repo_id"] == base}
    return tuple(_candidate(base, "gguf", row, int(row["size_bytes"]), row["path"]) for row in rows.values())


@cache
def others(base):
    """Every repo of another format in other_formats.tsv."""
    rows = [row for row in table("other_formats.tsv") if row["base_repo_id"] == base]
    return tuple(_candidate(base, row["format"], row, _size_bytes(base, row), "model.safetensors") for row in rows)


def found(base, *, publisher=None, formats=("gguf",)):
    """The model with its files of those formats."""
    chosen = [one for one in (*ggufs(base), *others(base)) if one.format in formats]
    return FoundModel(base, tuple(one for one in chosen if publisher in (None, one.publisher)))


def _candidate(base, format_, row, size_bytes, path):
    shape, params = dimensions(base)
    weights = weights_by_formula(shape, format=format_, quant=row["quant"], size_bytes=size_bytes, params=params)
    publisher = row["repo_id"].partition("/")[0]
    files = (ModelFile(path, size_bytes),)
    revision = None if format_ == "gguf" else f"branch-{row['quant']}"  # widths of EXL2 and EXL3 are branches
    return Candidate(row["repo_id"], revision, publisher, base, files, format_, row["quant"], shape, weights)


def _size_bytes(base, row):
    _, params = dimensions(base)
    bits = float(row["layer_bits"])
    embeddings, head = _OUTSIDE_BITS.get(row["format"], (bits, bits))
    return int(sum(params.layers) * bits + params.token_embd * embeddings + params.output * head) // 8
