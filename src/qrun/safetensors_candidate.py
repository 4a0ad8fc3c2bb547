"""A local repo's safetensors, MLX, EXL and other such weights as one candidate, and its pickles as a refused one.

What config.json says decides format and label; shapes and exact weights are left unknown, since no engine of today runs
these formats. Nothing is ever unpickled.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from qrun.local_files import LocalFile, read_text_head
from qrun.model import Candidate, Defect, Format
from qrun.quant import split_quant

__all__ = ["is_pickle", "pickle_candidate", "safetensors_candidate"]

_MAX_CONFIG_BYTES = 4 * 2**20
_SHARD = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.safetensors$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Of a training run, not of a model; and what is small beside weights.
_NO_WEIGHTS = re.compile(
    r"^(?:training_args|optimizer|scheduler|rng_state|tokenizer|adapter|spiece|merges)", re.IGNORECASE
)
_DTYPES: Mapping[object, str] = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_METHODS: Mapping[object, Format] = {
    "awq": "awq",
    "gptq": "gptq",
    "fp8": "fp8",
    "bitsandbytes": "bnb",
    "exl2": "exl2",
    "exl3": "exl3",
}


def safetensors_candidate(
    files: Sequence[LocalFile], *, repo_id: str | None, publisher: str | None, base_model: str
) -> Candidate | None:
    """The candidate that config.json and the safetensors files beside it make; None where they make none.

    A folder without config.json is none, and neither are formats that qrun does not know (compressed-tensors).
    """
    config = _config(files)
    weights = _weights(files)
    if config is None or not weights:
        return None
    known = _format_and_quant(config, repo_id or base_model)
    if known is None:
        return None
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=base_model,
        files=tuple(file.as_model_file() for file in weights),
        format=known[0],
        quant=known[1],
        defect=_defect(weights),
    )


def pickle_candidate(
    files: Sequence[LocalFile], *, repo_id: str | None, publisher: str | None, base_model: str
) -> Candidate | None:
    """All pickled weights of a folder as one candidate that is unsafe; None where there are none."""
    pickles = [file for file in files if is_pickle(file.path)]
    if not pickles:
        return None
    config = _config(files) or {}
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=base_model,
        files=tuple(file.as_model_file() for file in pickles),
        format="safetensors",  # what the same weights would be if they were safe
        quant=_DTYPES.get(config.get("torch_dtype"), "unknown"),
        defect=Defect("unsafe", f"{pickles[0].path} is a pickle, which can run code when it is loaded"),
    )


def is_pickle(path: str) -> bool:
    """Whether a file is weights in a format that can run code."""
    name = PurePosixPath(path).name
    return name.lower().endswith(_PICKLES) and not _NO_WEIGHTS.match(name)


def _config(files: Sequence[LocalFile]) -> dict[str, Any] | None:
    found = [file for file in files if _name(file) == "config.json"]
    file = min(found, key=lambda file: file.path.count("/"), default=None)
    if file is None:
        return None
    try:
        config = json.loads(read_text_head(file.disk, _MAX_CONFIG_BYTES))
    except ValueError:  # no JSON: as if it were not there
        return None
    return config if isinstance(config, dict) else None


def _weights(files: Sequence[LocalFile]) -> list[LocalFile]:
    """The safetensors at the folder's top; of several sets (Mistral's `consolidated`) the one named `model`."""
    found = [file for file in files if file.path.endswith(".safetensors")]
    top = min((file.path.count("/") for file in found), default=0)
    found = [file for file in found if file.path.count("/") == top and not _NO_WEIGHTS.match(_name(file))]
    return [file for file in found if _name(file).startswith("model")] or found


def _name(file: LocalFile) -> str:
    return PurePosixPath(file.path).name


def _defect(weights: Sequence[LocalFile]) -> Defect | None:
    for file in weights:
        if not file.size_bytes:
            return Defect("incomplete", f"{_name(file)} is empty, or a link that leads nowhere")
        if shard := _SHARD.search(file.path):
            there = {int(match[1]) for other in weights if (match := _SHARD.search(other.path))}
            missing = [number for number in range(1, int(shard[2]) + 1) if number not in there]
            return Defect("incomplete", f"shard {missing[0]} of {int(shard[2])} is missing") if missing else None
    return None


def _format_and_quant(config: Mapping[str, Any], name: str) -> tuple[Format, str] | None:
    if isinstance(mlx := config.get("quantization"), dict) and "bits" in mlx:
        return "mlx", _mlx_label(mlx, name)
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        dtype = config.get("dtype", config.get("torch_dtype"))
        return "safetensors", _DTYPES.get(dtype, "unknown")
    if (known := _METHODS.get(quantization.get("quant_method"))) is None:
        return None
    return known, _label(known, quantization)


def _mlx_label(mlx: Mapping[str, Any], name: str) -> str:
    """`4bit` from the figures; what they do not tell (DWQ) from the repo's name."""
    if mlx.get("mode") in ("mxfp4", "mxfp8", "nvfp4"):
        return str(mlx["mode"])
    label = f"{mlx['bits']}bit"
    named = split_quant(name)[1] or ""
    return named if named.startswith(f"{label}-") else label


def _label(known: Format, quantization: Mapping[str, Any]) -> str:
    if known == "fp8":
        return "fp8"
    if known == "bnb":
        return "int8" if quantization.get("load_in_8bit") else "nf4"
    bits = quantization.get("bits", quantization.get("w_bit"))
    if bits is None:
        return "unknown"
    if known in ("exl2", "exl3"):
        return f"{float(bits)}bpw"
    group = quantization.get("group_size", quantization.get("q_group_size"))
    return f"{bits}bit-g{group}" if isinstance(group, int) and group > 0 else f"{bits}bit"
