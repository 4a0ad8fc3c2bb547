"""What the headers of one GGUF quant tell, and whether its label is true.

Pure: works on headers that somebody read, from a disk or from the Hub.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qrun.gguf_header import GgufHeader
from qrun.model import Defect, ModelShape, Weights
from qrun.name_match import is_same_model
from qrun.packed_name import base_names
from qrun.quant import FILE_TYPES, parse_quant, quant_of_file, shard_of_file, split_quant
from qrun.shape import ShapeUnknown, shape_of
from qrun.weights_formula import contradicts_label

__all__ = [
    "Understood",
    "contradiction",
    "has_imatrix",
    "name_of_file",
    "quant_label",
    "understood",
    "with_organisation",
]

_GENERIC = {"model", "ggml-model", "ggml_model", "llm_model", "output", "weights", "gguf", "llm"}
_PART_TYPES = ("mmproj", "imatrix", "adapter")  # general.type of what is no model by itself
_PART_ARCHITECTURES = ("clip", "imatrix")


@dataclass(frozen=True, slots=True)
class Understood:
    """What the headers of one quant say. `is_part`: they are no model by themselves (a projector, an adapter)."""

    metadata: Mapping[str, object]
    shape: ModelShape | None = None
    weights: Weights | None = None
    defect: Defect | None = None
    is_part: bool = False


def understood(headers: Sequence[GgufHeader]) -> Understood:
    """The headers of all files of one quant, in order, together."""
    metadata = headers[0].metadata
    count = metadata.get("split.count", 1)
    if isinstance(count, int) and count > max(1, len(headers)):
        detail = f"it is one of {count} shards, and its name does not say where the others are"
        return Understood(metadata, defect=Defect("incomplete", detail))
    if _is_part(metadata):
        return Understood(metadata, is_part=True)
    if not any(header.tensors for header in headers):
        return Understood(metadata, defect=Defect("incomplete", "it has no tensors"))
    try:
        shape, weights = shape_of(headers)
    except ShapeUnknown as unknown:
        return Understood(metadata, defect=Defect("architecture_unsupported", str(unknown)))
    return Understood(metadata, shape, weights)


def name_of_file(path: str, metadata: Mapping[str, object]) -> str:
    """The model that a file's name tells: the name without its label; for `model.gguf` and the like the header's.

    `general.name` is the worse witness: SmolLM2-135M-Instruct calls itself `Smollm2 135M 8k Lc100K Mix1 Ep2`.
    """
    stem = Path(path).name
    stem = (shard_of_file(stem) or (stem[: -len(".gguf")] if stem.lower().endswith(".gguf") else stem, 1, 1))[0]
    name = split_quant(base_names(stem)[0])[0]
    title = metadata.get("general.name")
    if name.lower() in _GENERIC and isinstance(title, str) and title.strip():
        return title.strip()
    return name


def quant_label(path: str, metadata: Mapping[str, object], weights: Weights | None) -> str:
    """The label in the file's name; where that is missing or half of one (`Q4`), the header's, then its tensors'."""
    label = quant_of_file(path)
    if label and ("_" in label or not label.startswith(("Q", "IQ"))):
        return label
    file_type = metadata.get("general.file_type")
    if isinstance(file_type, int) and (said := FILE_TYPES.get(file_type)) and said.startswith(label or said):
        return said
    largest = weights.type_bytes[0][0] if weights and weights.type_bytes else ""
    return label or parse_quant(largest) or "unknown"


def has_imatrix(path: str, metadata: Mapping[str, object]) -> bool | None:
    """llama-quantize writes down the matrix it used; mradermacher and others say it in the name. Unread: unknown."""
    if any(mark in PurePosixPath(path).name.lower() for mark in (".i1-", "-imat.", "-imat-", "imatrix")):
        return True
    return any(key.startswith("quantize.imatrix.") for key in metadata) if metadata else None


def contradiction(quant: str, weights: Weights | None) -> Defect | None:
    """Where label and tensors are grossly at odds."""
    why = contradicts_label(weights, quant) if weights else None
    return Defect("mislabelled", why) if why else None


def with_organisation(base_model: str, metadata: Mapping[str, object]) -> str:
    """The base's id where the header names its source repo and that is this model.

    `general.base_model.*` is not asked: it names what the model was trained from, so an Instruct model's base model.
    """
    source = metadata.get("general.source.huggingface.repository") or metadata.get("general.source.repo_url")
    if "/" in base_model or not isinstance(source, str):
        return base_model
    repo_id = "/".join(source.rstrip("/").split("/")[-2:])
    return repo_id if is_same_model(base_model, repo_id.rpartition("/")[2]) else base_model


def _is_part(metadata: Mapping[str, object]) -> bool:
    return metadata.get("general.type") in _PART_TYPES or metadata.get("general.architecture") in _PART_ARCHITECTURES
