"""A decision that was made before, as far as it is kept: which files, on which engine, with which settings.

Pure. The resolver holds it against today's memory (DESIGN 3.10); `pins` keeps it on the disk.
"""

from dataclasses import dataclass

from qrun.model import Candidate
from qrun.placement import Mode
from qrun.request import KvType
from qrun.resolution import Choice

__all__ = ["Pin", "pin_of"]


@dataclass(frozen=True, slots=True)
class Pin:
    """What was decided. `path` is the candidate's first file, `decided_at` ISO 8601 in UTC."""

    repo_id: str | None
    revision: str | None
    path: str
    engine: str
    n_ctx: int
    n_parallel: int
    kv_cache_type: KvType
    mode: Mode
    decided_at: str

    def names(self, candidate: Candidate) -> bool:
        """Whether `candidate` is the one that was chosen."""
        same_repo = (candidate.repo_id, candidate.revision) == (self.repo_id, self.revision)
        return same_repo and bool(candidate.files) and candidate.files[0].path == self.path


def pin_of(choice: Choice, *, decided_at: str) -> Pin:
    """The pin that keeps `choice`."""
    candidate = choice.candidate
    return Pin(
        repo_id=candidate.repo_id,
        revision=candidate.revision,
        path=candidate.files[0].path,
        engine=choice.engine,
        n_ctx=choice.n_ctx,
        n_parallel=choice.n_parallel,
        kv_cache_type=choice.kv_cache_type,
        mode=choice.placement.mode,
        decided_at=decided_at,
    )
