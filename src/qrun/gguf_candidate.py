"""Local GGUF files as candidates: headers read, labels held against the tensors.

Reads headers only, never weights. A file that cannot be taken becomes a candidate with its defect, so that one bad file
does not hide the good ones. Projectors, importance matrices and draft heads are no candidates.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import BinaryIO

from qrun.gguf_header import GgufHeader, HeaderDamaged, read_header
from qrun.gguf_quant import (
    Understood,
    contradiction,
    has_imatrix,
    name_of_file,
    quant_label,
    understood,
    with_organisation,
)
from qrun.local_files import LocalFile
from qrun.model import Candidate, Defect
from qrun.shards import ShardSet, missing_shard

__all__ = ["gguf_candidates"]

_MAGIC = b"GGUF"
_READERS = 8  # threads: the wait for a slow disk overlaps, a fast one keeps one core busy either way


def gguf_candidates(
    sets: Sequence[ShardSet[LocalFile]], *, repo_id: str | None, publisher: str | None, base_model: str | None
) -> tuple[Candidate, ...]:
    """One candidate for each quant of `sets` that is a model by its header too; damaged ones carry their defect.

    `base_model` None: each file's own name says what it is.
    """
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="gguf-header") as pool:
        read = list(pool.map(_read_set, sets))
    return tuple(
        _candidate(shards, found, repo_id=repo_id, publisher=publisher, base_model=base_model)
        for shards, found in zip(sets, read, strict=True)
        if not found.is_part
    )


def _read_set(shards: ShardSet[LocalFile]) -> Understood:
    if shards.missing:
        return Understood({}, defect=Defect("incomplete", missing_shard(shards)))
    headers: list[GgufHeader] = []
    for file in shards.files:
        header = _read_file(file)
        if isinstance(header, Defect):
            detail = f"{PurePosixPath(file.path).name}: {header.detail}" if shards.count > 1 else header.detail
            return Understood({}, defect=replace(header, detail=detail))
        headers.append(header)
    return understood(headers)


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


def _candidate(
    shards: ShardSet[LocalFile],
    found: Understood,
    *,
    repo_id: str | None,
    publisher: str | None,
    base_model: str | None,
) -> Candidate:
    first = shards.files[0]
    quant = quant_label(first.path, found.metadata, found.weights)
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=with_organisation(base_model or name_of_file(first.path, found.metadata), found.metadata),
        files=tuple(file.as_model_file() for file in shards.files),
        format="gguf",
        quant=quant,
        shape=found.shape,
        weights=found.weights,
        has_imatrix=has_imatrix(first.path, found.metadata),
        has_chat_template="tokenizer.chat_template" in found.metadata if found.metadata else None,
        defect=found.defect or contradiction(quant, found.weights),
    )
