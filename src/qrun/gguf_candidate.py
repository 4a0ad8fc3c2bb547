"""Local GGUF files as candidates: shards put together, headers read, labels held against the tensors.

Reads headers only, never weights. A file that cannot be taken becomes a candidate with its defect, so that one bad file
does not hide the good ones. Projectors, importance matrices and draft heads are no candidates.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from qrun.gguf_header import GgufHeader, HeaderDamaged, read_header
from qrun.local_files import LocalFile
from qrun.model import Candidate, Defect, ModelShape, Weights
from qrun.name_match import base_names, is_same_model
from qrun.quant import FILE_TYPES, kind_of_file, label_bits, parse_quant, quant_of_file, shard_of_file, split_quant
from qrun.shape import ShapeUnknown, shape_of

__all__ = ["ShardSet", "gguf_candidates", "name_of_file", "shard_sets"]

_MAGIC = b"GGUF"
_READERS = 8  # threads: the wait for a slow disk overlaps, a fast one keeps one core busy either way
# A file that holds less than this part of the bits its label promises is not what it says. Honest files stay above:
# a Q8_0 with a few Q6_K tensors, or llama.cpp's fallbacks, which only ever take more.
_LEAST_PART = 0.75
_MOST_QUANTIZED_BPW = 12.0  # a label of 8 bits or fewer over weights that are in truth 16 or 32 bits wide
_LABEL_BITS_OF_QUANTS = 8
_GENERIC = {"model", "ggml-model", "ggml_model", "llm_model", "output", "weights", "gguf", "llm"}
_PART_TYPES = ("mmproj", "imatrix", "adapter")  # general.type of what is no model by itself
_PART_ARCHITECTURES = ("clip", "imatrix")


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The files that make up one quant, in order; `missing` are the numbers of shards that are not there."""

    files: tuple[LocalFile, ...]
    count: int = 1
    missing: tuple[int, ...] = ()


def shard_sets(files: Iterable[LocalFile]) -> tuple[ShardSet, ...]:
    """The GGUF models among `files` with their shards together, by path. Files that are no models are left out."""
    sets: dict[tuple[str, int], dict[int, LocalFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.lower().endswith(".gguf") or kind_of_file(file.path) != "model":
            continue
        name, number, count = shard_of_file(file.path) or (file.path, 1, 1)
        sets.setdefault((name, count), {})[number] = file
    return tuple(_shard_set(shards, count) for (_, count), shards in sets.items())


def gguf_candidates(
    sets: Sequence[ShardSet], *, repo_id: str | None, publisher: str | None, base_model: str | None
) -> tuple[Candidate, ...]:
    """One candidate for each quant of `sets` that is a model by its header too; damaged ones carry their defect.

    `base_model` None: each file's own name says what it is.
    """
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="gguf-header") as pool:
        read = list(pool.map(_read_set, sets))
    return tuple(
        _candidate(found, repo_id=repo_id, publisher=publisher, base_model=base_model)
        for found in read
        if not _is_part(found.metadata)
    )


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


@dataclass(frozen=True, slots=True)
class _Read:
    """What the headers of one set gave."""

    set: ShardSet
    metadata: Mapping[str, object]
    shape: ModelShape | None = None
    weights: Weights | None = None
    defect: Defect | None = None


def _shard_set(shards: Mapping[int, LocalFile], count: int) -> ShardSet:
    missing = tuple(number for number in range(1, count + 1) if number not in shards)
    return ShardSet(tuple(shards[number] for number in sorted(shards)), count, missing)


def _read_set(shards: ShardSet) -> _Read:
    if shards.missing:
        return _Read(shards, {}, defect=Defect("incomplete", _missing(shards)))
    headers: list[GgufHeader] = []
    for file in shards.files:
        header = _read_file(file)
        if isinstance(header, Defect):
            detail = f"{PurePosixPath(file.path).name}: {header.detail}" if shards.count > 1 else header.detail
            return _Read(shards, {}, defect=replace(header, detail=detail))
        headers.append(header)
    return _understood(shards, headers)


def _understood(shards: ShardSet, headers: Sequence[GgufHeader]) -> _Read:
    metadata = headers[0].metadata
    count = metadata.get("split.count", 1)
    if isinstance(count, int) and count > max(1, len(headers)):
        detail = f"it is one of {count} shards, and its name does not say where the others are"
        return _Read(shards, metadata, defect=Defect("incomplete", detail))
    if _is_part(metadata):
        return _Read(shards, metadata)
    if not any(header.tensors for header in headers):
        return _Read(shards, metadata, defect=Defect("incomplete", "it has no tensors"))
    try:
        shape, weights = shape_of(headers)
    except ShapeUnknown as unknown:
        return _Read(shards, metadata, defect=Defect("architecture_unsupported", str(unknown)))
    return _Read(shards, metadata, shape, weights)


def _read_file(file: LocalFile) -> GgufHeader | Defect:
    if not file.size_bytes:
        empty = "it is a link that leads nowhere" if file.size_bytes is None else "it is empty (0 bytes)"
        return Defect("incomplete", empty)
    try:
        with file.disk.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                return Defect("mislabelled", f"it is no GGUF file ({file.size_bytes:,} bytes)")
            return read_header(lambda offset, n: _read_at(opened, offset, n), file.size_bytes)
    except HeaderDamaged as damage:
        return Defect("incomplete", str(damage))
    except PermissionError:
        return Defect("access_denied", f"no permission to read {file.disk}")
    except OSError as error:
        return Defect("incomplete", f"it cannot be read ({error.strerror or error})")


def _read_at(opened: BinaryIO, offset: int, n: int) -> bytes:
    opened.seek(offset)
    return opened.read(n)


def _missing(shards: ShardSet) -> str:
    there = shards.files[0].path
    name = (shard_of_file(there) or (there, 1, 1))[0]
    first = PurePosixPath(f"{name}-{shards.missing[0]:05d}-of-{shards.count:05d}.gguf").name
    more = f" and {len(shards.missing) - 1} more" if len(shards.missing) > 1 else ""
    return f"shard {shards.missing[0]} of {shards.count} is missing: {first}{more}"


def _is_part(metadata: Mapping[str, object]) -> bool:
    return metadata.get("general.type") in _PART_TYPES or metadata.get("general.architecture") in _PART_ARCHITECTURES


def _candidate(found: _Read, *, repo_id: str | None, publisher: str | None, base_model: str | None) -> Candidate:
    first = found.set.files[0]
    quant = _quant(first.path, found)
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=_with_organisation(base_model or name_of_file(first.path, found.metadata), found.metadata),
        files=tuple(file.as_model_file() for file in found.set.files),
        format="gguf",
        quant=quant,
        shape=found.shape,
        weights=found.weights,
        has_imatrix=_has_imatrix(first.path, found),
        has_chat_template="tokenizer.chat_template" in found.metadata if found.metadata else None,
        defect=found.defect or _contradiction(quant, found.weights),
    )


def _quant(path: str, found: _Read) -> str:
    """The label in the file's name; where that is missing or half of one (`Q4`), the header's, then its tensors'."""
    label = quant_of_file(path)
    if label and ("_" in label or not label.startswith(("Q", "IQ"))):
        return label
    file_type = found.metadata.get("general.file_type")
    if isinstance(file_type, int) and (said := FILE_TYPES.get(file_type)) and said.startswith(label or said):
        return said
    largest = found.weights.type_bytes[0][0] if found.weights else ""
    return label or parse_quant(largest) or "unknown"


def _has_imatrix(path: str, found: _Read) -> bool | None:
    """llama-quantize writes down the matrix it used; mradermacher and others say it in the name. Unread: unknown."""
    if any(mark in PurePosixPath(path).name.lower() for mark in (".i1-", "-imat.", "-imat-", "imatrix")):
        return True
    return any(key.startswith("quantize.imatrix.") for key in found.metadata) if found.metadata else None


def _contradiction(quant: str, weights: Weights | None) -> Defect | None:
    """Where label and tensors are grossly at odds.

    gpt-oss is excepted: its quants are labelled by their few other tensors, while the experts stay MXFP4.
    """
    bits = label_bits(quant)
    if weights is None or bits is None or not weights.n_params or weights.type_bytes[0][0] == "MXFP4":
        return None
    too_narrow = weights.bpw < _LEAST_PART * bits
    too_wide = bits <= _LABEL_BITS_OF_QUANTS and weights.bpw > _MOST_QUANTIZED_BPW
    if not (too_narrow or too_wide):
        return None
    return Defect("mislabelled", f"named {quant}, but its tensors have {weights.bpw:.1f} bits per weight")


def _with_organisation(base_model: str, metadata: Mapping[str, object]) -> str:
    """The base's id where the header names its source repo and that is this model.

    `general.base_model.*` is not asked: it names what the model was trained from, so an Instruct model's base model.
    """
    source = metadata.get("general.source.huggingface.repository") or metadata.get("general.source.repo_url")
    if "/" in base_model or not isinstance(source, str):
        return base_model
    repo_id = "/".join(source.rstrip("/").split("/")[-2:])
    return repo_id if is_same_model(base_model, repo_id.rpartition("/")[2]) else base_model
