"""One folder's files as candidates, of whatever formats they are; what both local sources share."""

from collections.abc import Callable, Sequence
from pathlib import Path

from qrun.errors import Failure, FileDamaged, UnsafeFile
from qrun.gguf_candidate import gguf_candidates
from qrun.local_files import LocalFile
from qrun.model import Candidate
from qrun.safetensors_candidate import pickle_candidate, safetensors_candidate
from qrun.shards import shard_sets

__all__ = ["candidates_of", "refuse_if_all_damaged", "whole_file"]


def candidates_of(
    files: Sequence[LocalFile], *, repo_id: str | None, publisher: str | None, base_model: str
) -> tuple[Candidate, ...]:
    """Every candidate that `files` of one model hold, GGUF first, damaged and unsafe ones with their defect."""
    gguf = gguf_candidates(shard_sets(files), repo_id=repo_id, publisher=publisher, base_model=base_model)
    others = (
        make(files, repo_id=repo_id, publisher=publisher, base_model=base_model)
        for make in (safetensors_candidate, pickle_candidate)
    )
    return (*gguf, *(other for other in others if other))


def refuse_if_all_damaged(candidates: Sequence[Candidate], folder_of: Callable[[Candidate], Path]) -> None:
    """Raises FileDamaged, UnsafeFile or Failure where not one candidate's files could be taken; names the first.

    A file that is whole but unfit (an unknown architecture, a false label) is the resolver's to reject.
    """
    damaged = [candidate for candidate in candidates if candidate.defect and candidate.shape is None]
    reasons = {candidate.defect.reason for candidate in damaged if candidate.defect}
    if len(damaged) < len(candidates) or "architecture_unsupported" in reasons or not damaged:
        return
    first = next((one for one in damaged if one.defect and one.defect.reason != "unsafe"), damaged[0])
    path = str(folder_of(first) / first.files[0].path)
    detail = first.defect.detail if first.defect else ""
    if first.defect and first.defect.reason == "access_denied":
        raise Failure(f"{path} cannot be read: {detail}.", "Change its permissions, or run qrun as its owner.")
    if reasons == {"unsafe"}:
        raise UnsafeFile(path, detail)
    others = f" (and {len(damaged) - 1} more files of the model are damaged)" if len(damaged) > 1 else ""
    raise FileDamaged(path, f"{detail}{others}")


def whole_file(root: Path, candidate: Candidate) -> Path:
    """The candidate's first file, after a look that all its files are still there in the sizes that were decided on.

    Raises FileDamaged where one is not.
    """
    for file in candidate.files:
        path = root / file.path
        size_bytes = path.stat().st_size if path.is_file() else None
        if size_bytes is None:
            raise FileDamaged(str(path), "it is gone", "Put it back, or decide anew.")
        if size_bytes != file.size_bytes:
            raise FileDamaged(str(path), f"it has {size_bytes:,} bytes and had {file.size_bytes:,} when it was chosen")
    return root / candidate.files[0].path
