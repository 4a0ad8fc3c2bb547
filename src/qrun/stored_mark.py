"""Which candidates lie whole on this disk already: looked up without the Hub."""

from collections.abc import Callable
from dataclasses import replace

from qrun.errors import UnsafeFile
from qrun.kept_files import KeptFiles
from qrun.model import Candidate
from qrun.source import FoundModel

__all__ = ["stored_marked"]


def stored_marked(
    found: FoundModel, files: KeptFiles, *, only: Callable[[Candidate], bool] | None = None
) -> FoundModel:
    """`found` with each candidate's `stored` as it is now; with `only`, of those alone, and False for the others."""
    return replace(found, candidates=tuple(_marked(one, files, only) for one in found.candidates))


def _marked(candidate: Candidate, files: KeptFiles, only: Callable[[Candidate], bool] | None) -> Candidate:
    if candidate.defect is not None:
        return candidate
    try:
        stored = (only is None or only(candidate)) and files.path_of(candidate) is not None
    except UnsafeFile:  # a name that is never stored
        stored = False
    return candidate if stored == candidate.stored else replace(candidate, stored=stored)
