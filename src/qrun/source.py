"""Where models come from: one interface over files, folders of repos, what is stored and the Hub.

The resolver sees candidates and never learns which source they came from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qrun.model import Candidate
from qrun.names import ModelRef

__all__ = ["MOST_FINALISTS", "Advance", "FoundModel", "Report", "Source", "quiet"]

MOST_FINALISTS = 3  # candidates that are looked at closely for one decision (DESIGN section 6)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """What a source holds of one model: the base it is, every candidate, and what the user should hear about it."""

    base_model: str
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a file's bytes are on this disk. What an earlier run had fetched counts in `done_bytes` too."""

    repo_id: str
    path: str
    done_bytes: int
    total_bytes: int


Report = Callable[[Advance], None]  # may be called from several threads at once


def quiet(advance: Advance) -> None:
    """A `Report` that says nothing."""


class Source(Protocol):
    """A place that holds models."""

    @property
    def description(self) -> str:
        """Where this looks, for error messages."""
        ...

    def find(self, model: ModelRef) -> FoundModel:
        """The candidates of `model`. Raises ModelNotFound, AmbiguousModel, NotAModel or FileDamaged."""
        ...

    def sharpened(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """`candidates` with what only their files' headers tell (exact weights and shape), in the same order.

        Of at most MOST_FINALISTS, before the last word on them: each costs a read. Raises HubUnreachable.
        """
        ...

    def local_path(self, candidate: Candidate, report: Report = quiet) -> Path:
        """The candidate's first file on this disk, whole and verified. May download.

        Raises HubUnreachable, AccessDenied, DiskFull, or FileDamaged for bytes that are not what the Hub said.
        """
        ...

    def close(self) -> None:
        """Let go of connections. What was found stays good."""
        ...
