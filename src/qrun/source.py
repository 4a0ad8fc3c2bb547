"""Where models come from: one interface over files, folders of repos and (later) the Hub.

The resolver sees candidates and never learns which source they came from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qrun.model import Candidate
from qrun.names import ModelRef

__all__ = ["FoundModel", "Source"]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """What a source holds of one model: the base it is, every candidate, and what the user should hear about it."""

    base_model: str
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """A place that holds models."""

    @property
    def description(self) -> str:
        """Where this looks, for error messages."""
        ...

    def find(self, model: ModelRef) -> FoundModel:
        """The candidates of `model`. Raises ModelNotFound, AmbiguousModel, NotAModel or FileDamaged."""
        ...

    def local_path(self, candidate: Candidate) -> Path:
        """The candidate's first file on this disk, whole and verified. May download."""
        ...
