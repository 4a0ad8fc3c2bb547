"""What a repo's config.json says of its weights: their format, their label, and which of its files they are.

Pure: formats other than GGUF, from a folder or from the Hub alike. Nothing is ever unpickled.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

from qrun.model import Defect, Format
from qrun.quant import split_quant

__all__ = [
    "DTYPES",
    "Sized",
    "config_of",
    "format_and_quant",
    "is_pickle",
    "pickled",
    "safetensors_defect",
    "weights_of_files",
]

_SHARD = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.safetensors$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Of a training run, not of a model; and what is small beside weights.
_NO_WEIGHTS = re.compile(
    r"^(?:training_args|optimizer|scheduler|rng_state|tokenizer|adapter|spiece|merges)", re.IGNORECASE
)
DTYPES: Mapping[object, str] = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_W_BITS = re.compile(r"(?<![a-z])w([48])a(?:8|16)(?![0-9])|(?<![a-z])int([48])(?![0-9])|([48])-?bit", re.IGNORECASE)
_METHODS: Mapping[object, Format] = {
    "awq": "awq",
    "gptq": "gptq",
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",  # Meta's own
    "bitsandbytes": "bnb",
    "exl2": "exl2",
    "exl3": "exl3",
}


class Sized(Protocol):
    """A file of a repo; a size of None is that of a link which leads nowhere."""

    @property
    def path(self) -> str:
        """With `/`, relative to the repo."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Bytes."""
        ...


F = TypeVar("F", bound=Sized)


def config_of(files: Sequence[F]) -> F | None:
    """The config.json nearest to the repo's top."""
    found = [file for file in files if _name(file) == "config.json"]
    return min(found, key=lambda file: file.path.count("/"), default=None)


def weights_of_files(files: Sequence[F]) -> list[F]:
    """The safetensors at the folder's top; of several sets (Mistral's `consolidated`) the one named `model`."""
    found = [file for file in files if file.path.endswith(".safetensors")]
    top = min((file.path.count("/") for file in found), default=0)
    found = [file for file in found if file.path.count("/") == top and not _NO_WEIGHTS.match(_name(file))]
    return [file for file in found if _name(file).startswith("model")] or found


def pickled(files: Sequence[F]) -> list[F]:
    """The pickled weights among `files`."""
    return [file for file in files if is_pickle(file.path)]


def is_pickle(path: str) -> bool:
    """Whether a file is weights in a format that can run code."""
    name = PurePosixPath(path).name
    return name.lower().endswith(_PICKLES) and not _NO_WEIGHTS.match(name)


def safetensors_defect(weights: Sequence[F]) -> Defect | None:
    """Why these weights are not whole; None where they are."""
    for file in weights:
        if not file.size_bytes:
            return Defect("incomplete", f"{_name(file)} is empty, or a link that leads nowhere")
        if shard := _SHARD.search(file.path):
            there = {int(match[1]) for other in weights if (match := _SHARD.search(other.path))}
            missing = [number for number in range(1, int(shard[2]) + 1) if number not in there]
            return Defect("incomplete", f"shard {missing[0]} of {int(shard[2])} is missing") if missing else None
    return None


def format_and_quant(config: Mapping[str, Any], name: str) -> tuple[Format, str] | None:
    """Format and label by config.json; `name`, the repo's, tells what the figures do not. None: not known to qrun."""
    if isinstance(mlx := config.get("quantization"), dict) and "bits" in mlx:
        return "mlx", _mlx_label(mlx, name)
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        dtype = config.get("dtype", config.get("torch_dtype"))
        return "safetensors", DTYPES.get(dtype, "unknown") if isinstance(dtype, str) else "unknown"
    return _by_method(quantization, name)


def _by_method(quantization: Mapping[str, Any], name: str) -> tuple[Format, str] | None:
    method = quantization.get("quant_method")
    if method == "compressed-tensors":
        return _compressed(quantization, name)
    if method == "mxfp4":  # gpt-oss: the model's own weights
        return "safetensors", "mxfp4"
    if method == "modelopt":
        return ("fp8", "fp8") if quantization.get("quant_algo") == "FP8" else None
    if not isinstance(method, str) or (known := _METHODS.get(method)) is None:
        return None
    return known, _label(known, quantization)


def _compressed(quantization: Mapping[str, Any], name: str) -> tuple[Format, str] | None:
    """FP8 or integers in llm-compressor's layout, by the scheme of its weights, failing that by format and name.

    Integers stand as `awq`: transformers and vLLM load both, while ExLlamaV2 loads GPTQ's layout and not this one.
    """
    groups = quantization.get("config_groups")
    found = groups.values() if isinstance(groups, dict) else ()
    schemes = [group.get("weights") for group in found if isinstance(group, dict)]
    scheme = next((one for one in schemes if isinstance(one, dict)), {})
    bits, kind = scheme.get("num_bits"), scheme.get("type")
    if kind is None and (quantization.get("format") == "float-quantized" or "fp8" in name.lower()):
        bits, kind = 8, "float"
    if kind is None and (named := _W_BITS.search(name)):
        bits, kind = int(named[1] or named[2] or named[3]), "int"
    if kind == "float":
        return ("fp8", "fp8") if bits == 8 else None  # noqa: PLR2004  # bits
    return ("awq", _label("awq", {**scheme, "bits": bits})) if kind == "int" else None


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
    if not isinstance(bits, (int, float)):
        return "unknown"
    if known in ("exl2", "exl3"):
        return f"{float(bits)}bpw"
    group = quantization.get("group_size", quantization.get("q_group_size"))
    return f"{bits}bit-g{group}" if isinstance(group, int) and group > 0 else f"{bits}bit"


def _name(file: F) -> str:
    return PurePosixPath(file.path).name
